/* Memory as gdb sees it: by linear address, without our breakpoints. */
#include <string.h>
#include "base/base.h"
#include "debug/gdb_int.h"

static bool where(const struct gdb *g, const struct inspect *in, u64 addr, gpa_t *gpa)
{
	struct inspect_walk w;

	if (g->physical) {
		*gpa = addr;
		return true;
	}
	inspect_walk(in, addr, &w);
	*gpa = w.gpa;
	return w.end == WALK_MAPPED;
}

static void hide_breaks(const struct gdb *g, gpa_t gpa, u8 *buf, u64 n)
{
	for (u32 i = 0; i < g->nbrk; i++)
		if (g->brk[i].gpa - gpa < n && buf[g->brk[i].gpa - gpa] == 0xcc)
			buf[g->brk[i].gpa - gpa] = g->brk[i].old;
}

/* What is written where a breakpoint is becomes what it hides. */
static void keep_breaks(struct gdb *g, gpa_t gpa, u8 *buf, u64 n)
{
	for (u32 i = 0; i < g->nbrk; i++) {
		if (g->brk[i].gpa - gpa >= n)
			continue;
		g->brk[i].old = buf[g->brk[i].gpa - gpa];
		buf[g->brk[i].gpa - gpa] = 0xcc;
	}
}

static bool part(struct gdb *g, gpa_t gpa, u8 *buf, u64 n, bool write)
{
	u8 page[4096];

	if (!write) {
		if (!inspect_read_physical(g->t.ram, gpa, buf, n))
			return false;
		hide_breaks(g, gpa, buf, n);
		return true;
	}
	if (!inspect_read_physical(g->t.ram, gpa, page, n))
		return false;
	memcpy(page, buf, n);
	keep_breaks(g, gpa, page, n);
	return inspect_write_physical(g->t.ram, gpa, page, n);
}

static u64 each(struct gdb *g, u64 addr, u8 *buf, u64 n, bool write)
{
	struct cpu_state c;
	struct inspect in = {.ram = g->t.ram};
	u64 done = 0;

	if (gdb_get(g, g->cpu, &c))
		return 0;
	in.s = c.s;
	while (done < n) {
		u64 now = MIN(n - done, 4096 - ((addr + done) & 4095));
		gpa_t gpa = 0;

		if (!where(g, &in, addr + done, &gpa) || !part(g, gpa, buf + done, now, write))
			break;
		done += now;
	}
	return done;
}

u64 gdb_mem_read(struct gdb *g, u64 addr, u8 *buf, u64 n)
{
	return each(g, addr, buf, n, false);
}

u64 gdb_mem_write(struct gdb *g, u64 addr, const u8 *buf, u64 n)
{
	return each(g, addr, (u8 *)(uintptr_t)buf, n, true);
}
