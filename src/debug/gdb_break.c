/* Breakpoints and watchpoints: INT3 in guest memory, and the four debug registers (SDM 3B 17.2). */
#include <string.h>
#include "base/base.h"
#include "debug/gdb_int.h"

#define INT3 0xcc

/* ---- software ---- */
static bool locate(struct gdb *g, u32 cpu, u64 linear, gpa_t *gpa)
{
	struct cpu_state c;
	struct inspect in = {.ram = g->t.ram};
	struct inspect_walk w;

	if (gdb_get(g, cpu, &c))
		return false;
	in.s = c.s;
	inspect_walk(&in, linear, &w);
	*gpa = w.gpa;
	return w.end == WALK_MAPPED;
}

static int soft_insert(struct gdb *g, u64 linear)
{
	static const u8 int3 = INT3;
	struct gdb_break b = {.linear = linear};

	if (!locate(g, g->cpu, linear, &b.gpa))
		return -EFAULT;
	for (u32 i = 0; i < g->nbrk; i++)
		if (g->brk[i].gpa == b.gpa)
			return 0; /* inserting is idempotent: GDB manual E.2 */
	if (g->nbrk == GDB_BREAKS_MAX)
		return -ENOSPC;
	if (!inspect_read_physical(g->t.ram, b.gpa, &b.old, 1) || !inspect_write_physical(g->t.ram, b.gpa, &int3, 1))
		return -EFAULT;
	g->brk[g->nbrk++] = b;
	return 0;
}

/* Only where the INT3 still is: the guest may have put the page to another use. */
static void put_back(struct gdb *g, const struct gdb_break *b)
{
	u8 now = 0;

	if (inspect_read_physical(g->t.ram, b->gpa, &now, 1) && now == INT3)
		inspect_write_physical(g->t.ram, b->gpa, &b->old, 1);
}

static int soft_remove(struct gdb *g, u64 linear)
{
	for (u32 i = 0; i < g->nbrk; i++) {
		if (g->brk[i].linear != linear)
			continue;
		put_back(g, &g->brk[i]);
		g->brk[i] = g->brk[--g->nbrk];
		return 0;
	}
	return 0;
}

bool break_at(struct gdb *g, u32 cpu, u64 pc)
{
	gpa_t gpa = 0;

	if (!g->nbrk || !locate(g, cpu, pc, &gpa))
		return false;
	for (u32 i = 0; i < g->nbrk; i++)
		if (g->brk[i].gpa == gpa)
			return true;
	return false;
}

void break_forget_soft(struct gdb *g)
{
	g->nbrk = 0;
}

/* ---- debug registers ---- */
/* The largest aligned piece at a. */
static u8 piece(u64 a, u64 left)
{
	u8 n = 8;

	while (n > left || a & (n - 1))
		n >>= 1;
	return n;
}

static int hard_insert(struct gdb *g, enum gdb_z type, u64 addr, u64 len)
{
	u32 free = 0, need = 0;

	if (type == Z_HARD)
		len = 1;
	if (!len || len > GDB_HW_MAX * 8 || add_overflows(addr, len))
		return -EINVAL;
	for (u32 i = 0; i < GDB_HW_MAX; i++) {
		if (g->hw[i].used && g->hw[i].type == type && g->hw[i].addr == addr && g->hw[i].len == len)
			return 0;
		free += !g->hw[i].used;
	}
	for (u64 at = addr; at < addr + len; at += piece(at, addr + len - at))
		need++;
	if (need > free)
		return -ENOSPC;
	for (u64 at = addr, i = 0; at < addr + len; i++) {
		u8 n = piece(at, addr + len - at);

		if (g->hw[i].used)
			continue;
		g->hw[i] = (struct gdb_hw){.used = true, .type = type, .addr = addr, .len = len, .at = at, .bytes = n};
		at += n;
	}
	return 0;
}

static int hard_remove(struct gdb *g, enum gdb_z type, u64 addr, u64 len)
{
	if (type == Z_HARD)
		len = 1;
	for (u32 i = 0; i < GDB_HW_MAX; i++)
		if (g->hw[i].used && g->hw[i].type == type && g->hw[i].addr == addr && g->hw[i].len == len)
			g->hw[i].used = false;
	return 0;
}

bool break_registers(const struct gdb *g, u64 dr[8])
{
	static const u8 rw[] = {[Z_HARD] = 0, [Z_WRITE] = 1, [Z_READ] = 3, [Z_ACCESS] = 3};
	static const u8 len[] = {[1] = 0, [2] = 1, [4] = 3, [8] = 2};
	bool any = false;

	memset(dr, 0, 8 * sizeof(dr[0]));
	dr[7] = 0x400;
	for (u32 i = 0; i < GDB_HW_MAX; i++) {
		if (!g->hw[i].used)
			continue;
		dr[i] = g->hw[i].at;
		dr[7] |= 2ull << (2 * i) | (u64)rw[g->hw[i].type] << (16 + 4 * i) | (u64)len[g->hw[i].bytes] << (18 + 4 * i);
		any = true;
	}
	return any;
}

/* ---- all ---- */
int break_insert(struct gdb *g, enum gdb_z type, u64 addr, u64 kind)
{
	return type == Z_SOFT ? soft_insert(g, addr) : hard_insert(g, type, addr, kind);
}

int break_remove(struct gdb *g, enum gdb_z type, u64 addr, u64 kind)
{
	return type == Z_SOFT ? soft_remove(g, addr) : hard_remove(g, type, addr, kind);
}

void break_remove_all(struct gdb *g)
{
	for (u32 i = 0; i < g->nbrk; i++)
		put_back(g, &g->brk[i]);
	g->nbrk = 0;
	memset(g->hw, 0, sizeof(g->hw));
}
