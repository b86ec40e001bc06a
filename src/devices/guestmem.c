/* Bounds-checked access to guest RAM. Copies may cross slots that touch; pointers may not. */
#include <string.h>
#include "base/base.h"
#include "devices/guestmem.h"

/* Host address of a, with *avail = bytes up to the end of its slot; NULL outside RAM. */
static u8 *find(const struct guestmem *g, gpa_t a, u64 *avail)
{
	for (u32 i = 0; i < g->nslots; i++) {
		if (a < g->slot[i].gpa || a - g->slot[i].gpa >= g->slot[i].size)
			continue;
		*avail = g->slot[i].size - (a - g->slot[i].gpa);
		return g->slot[i].host + (a - g->slot[i].gpa);
	}
	return NULL;
}

void *guest_ptr(struct machine *m, gpa_t a, u64 n)
{
	u64 avail = 0;
	u8 *p = find(machine_guestmem(m), a, &avail);

	return p && n <= avail ? p : NULL;
}

bool guest_is_window(struct machine *m, gpa_t a, u64 n)
{
	const struct guestmem *g = machine_guestmem(m);

	return a >= g->windows.gpa && range_within(a - g->windows.gpa, n, g->windows.size);
}

bool guest_holds_code(const u8 *attr, u64 pages, u8 code, gpa_t a, u64 n)
{
	for (u64 p = a >> PAGE_SHIFT; n && p <= (a + n - 1) >> PAGE_SHIFT && p < pages; p++)
		if (__atomic_load_n(&attr[p], __ATOMIC_RELAXED) & code)
			return true;
	return false;
}

/* The fence pairs with the engine: it sets the attribute, then reads the code; we write the data, then read the attribute. */
void guest_written(struct machine *m, gpa_t a, u64 n)
{
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	guest_written_too(m, a, n);
}

void guest_written_too(struct machine *m, gpa_t a, u64 n)
{
	struct guestmem *g = machine_guestmem(m);

	if (n && g->written)
		g->written(g->arg, a, n);
}

/* Whole range in RAM? Asked before the first byte moves: a refused copy changes nothing. */
static bool all_ram(const struct guestmem *g, gpa_t a, u64 n)
{
	u64 avail = 0;

	while (n) {
		if (!find(g, a, &avail))
			return false;
		if (avail >= n)
			return true;
		a += avail;
		n -= avail;
	}
	return true;
}

bool guest_read(struct machine *m, gpa_t a, void *buf, u64 n)
{
	struct guestmem *g = machine_guestmem(m);
	u8 *to = buf;

	if (!all_ram(g, a, n))
		return false;
	while (n) {
		u64 avail = 0;
		const u8 *p = find(g, a, &avail);
		u64 now = MIN(n, avail);

		memcpy(to, p, now);
		to += now;
		a += now;
		n -= now;
	}
	return true;
}

bool guest_write(struct machine *m, gpa_t a, const void *buf, u64 n)
{
	struct guestmem *g = machine_guestmem(m);
	const u8 *from = buf;

	if (!all_ram(g, a, n))
		return false;
	while (n) {
		u64 avail = 0;
		u8 *p = find(g, a, &avail);
		u64 now = MIN(n, avail);

		memcpy(p, from, now);
		guest_written(m, a, now);
		from += now;
		a += now;
		n -= now;
	}
	return true;
}
