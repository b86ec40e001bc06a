/*
 * ORC: for each range of kernel code, where the caller's stack pointer and frame pointer are (arch/x86/include/asm/orc_types.h;
 * the meaning as in arch/x86/kernel/unwind_orc.c). Two arrays: __orc_unwind_ip, addresses relative to themselves, and __orc_unwind.
 */
#include <stdlib.h>
#include <string.h>
#include "debug/kimage.h"
#include "debug/unwind.h"

enum { ENTRIES_MAX = 4 << 20, ENTRY_SIZE = 6, TABLES_MAX = 256, BEHIND_MAX = 1 << 16 };
enum { REG_UNDEFINED, REG_PREV_SP, REG_DX, REG_DI, REG_BP, REG_SP, REG_R10, REG_R13, REG_BP_INDIRECT, REG_SP_INDIRECT };
enum { KIND_UNKNOWN, KIND_END, KIND_CALL, KIND_REGS, KIND_PARTIAL };

struct orc_table {
	u32 *ip;    /* of each entry, from KERNEL_LOWEST; ascending */
	u8 *entry;
	u32 n;
};
struct orc {
	struct orc_table table[TABLES_MAX]; /* the kernel's, then modules' */
	u32 n;
	bool newer; /* Linux 6.4 and later: types are numbered anew, the end is one of them */
};

struct orc_entry {
	s16 sp_offset, bp_offset;
	u8 sp_reg, bp_reg, kind;
};

static struct orc_entry decode(const struct orc *o, const struct orc_table *t, u32 i)
{
	static const u8 older[] = {KIND_CALL, KIND_REGS, KIND_PARTIAL, KIND_CALL};
	static const u8 newer[] = {KIND_UNKNOWN, KIND_END, KIND_CALL, KIND_REGS, KIND_PARTIAL, KIND_UNKNOWN, KIND_UNKNOWN, KIND_UNKNOWN};
	struct orc_entry e;
	u16 bits = 0;

	memcpy(&e.sp_offset, t->entry + (size_t)i * ENTRY_SIZE, 2);
	memcpy(&e.bp_offset, t->entry + (size_t)i * ENTRY_SIZE + 2, 2);
	memcpy(&bits, t->entry + (size_t)i * ENTRY_SIZE + 4, 2);
	e.sp_reg = bits & 15;
	e.bp_reg = bits >> 4 & 15;
	if (o->newer) {
		e.kind = newer[bits >> 8 & 7];
	} else {
		e.kind = older[bits >> 8 & 3];
		if (bits >> 8 & 0xc && e.sp_reg == REG_UNDEFINED) /* "end"; where it is has moved between versions */
			e.kind = KIND_END;
		else if (e.sp_reg == REG_UNDEFINED)
			e.kind = KIND_UNKNOWN;
	}
	return e;
}

/* Which numbering: by far the most entries are for calls, which is 0 in the older and 2 in the newer. */
static bool is_newer(const struct orc_table *t)
{
	u32 zero = 0, two = 0;

	for (u32 i = 0; i < t->n; i++) {
		u8 type = t->entry[(size_t)i * ENTRY_SIZE + 5] & 7;

		zero += type == 0;
		two += type == 2;
	}
	return two > zero;
}

static bool load_ips(struct orc_table *t, const struct inspect *in, u64 at)
{
	s32 *rel = calloc(t->n, sizeof(*rel));
	bool ok = rel && inspect_read(in, at, rel, 4ull * t->n) == 4ull * t->n;

	for (u32 i = 0; ok && i < t->n; i++) {
		u64 ip = at + 4ull * i + (u64)(s64)rel[i] - KERNEL_LOWEST;

		ok = ip < MODULES_END - KERNEL_LOWEST && (!i || ip >= t->ip[i - 1]);
		t->ip[i] = (u32)ip;
	}
	free(rel);
	return ok;
}

static void free_table(struct orc_table *t)
{
	free(t->ip);
	free(t->entry);
	*t = (struct orc_table){0};
}

bool orc_add(struct orc *o, const struct inspect *in, u64 ip, u64 entry, u32 n)
{
	struct orc_table *t = &o->table[o->n];

	if (o->n == TABLES_MAX)
		return false;
	*t = (struct orc_table){.ip = calloc(n, sizeof(*t->ip)), .entry = calloc(n, ENTRY_SIZE), .n = n};
	if (!t->ip || !t->entry || !load_ips(t, in, ip) ||
	    inspect_read(in, entry, t->entry, (u64)n * ENTRY_SIZE) != (u64)n * ENTRY_SIZE) {
		free_table(t);
		return false;
	}
	o->n++;
	return true;
}

struct orc *orc_load(const struct symbols *s, const struct inspect *in)
{
	u64 ip = 0, ip_end = 0, entry = 0, entry_end = 0, n = 0;
	struct orc *o = NULL;

	if (!symbols_find(s, "__start_orc_unwind_ip", &ip) || !symbols_find(s, "__stop_orc_unwind_ip", &ip_end) ||
	    !symbols_find(s, "__start_orc_unwind", &entry) || !symbols_find(s, "__stop_orc_unwind", &entry_end))
		return NULL;
	n = (ip_end - ip) / 4;
	if (ip_end <= ip || !n || n > ENTRIES_MAX || entry_end - entry != n * ENTRY_SIZE)
		return NULL;
	o = calloc(1, sizeof(*o));
	if (o && !orc_add(o, in, ip, entry, (u32)n)) {
		orc_free(o);
		o = NULL;
	}
	if (o)
		o->newer = is_newer(&o->table[0]);
	return o;
}

void orc_free(struct orc *o)
{
	for (u32 i = 0; o && i < o->n; i++)
		free_table(&o->table[i]);
	free(o);
}

/* The table with the nearest beginning; far behind its last entry nothing is its. */
static const struct orc_table *table_for(const struct orc *o, u32 want)
{
	const struct orc_table *best = NULL;

	for (u32 i = 0; i < o->n; i++) {
		const struct orc_table *t = &o->table[i];

		if (t->ip[0] <= want && want - MIN(want, t->ip[t->n - 1]) < BEHIND_MAX && (!best || t->ip[0] > best->ip[0]))
			best = t;
	}
	return best;
}

static bool find(const struct orc *o, u64 pc, struct orc_entry *e)
{
	const struct orc_table *t = NULL;
	u32 lo = 0, hi = 0, want = 0;

	if (pc < KERNEL_LOWEST || pc >= MODULES_END)
		return false;
	want = (u32)(pc - KERNEL_LOWEST);
	t = table_for(o, want);
	if (!t)
		return false;
	hi = t->n;
	while (lo < hi) {
		u32 mid = lo + (hi - lo) / 2;

		if (t->ip[mid] <= want)
			lo = mid + 1;
		else
			hi = mid;
	}
	if (!lo)
		return false;
	*e = decode(o, t, lo - 1);
	return true;
}

/* ---- one step ---- */
static bool word(const struct inspect *in, u64 at, u64 *v)
{
	return inspect_read(in, at, v, 8) == 8;
}

/* Other registers are known only where an interrupt has saved them all. */
static bool saved(const struct unwind_state *st, u64 value, u64 *out)
{
	*out = value;
	return st->have_regs;
}

static bool caller_sp(const struct inspect *in, const struct unwind_state *st, const struct orc_entry *e, u64 *sp)
{
	u64 off = (u64)(s64)e->sp_offset;

	switch (e->sp_reg) {
	case REG_SP:
		*sp = st->sp + off;
		return true;
	case REG_BP:
		*sp = st->bp + off;
		return true;
	case REG_SP_INDIRECT:
		if (!word(in, st->sp, sp))
			return false;
		*sp += off;
		return true;
	case REG_BP_INDIRECT:
		return word(in, st->bp + off, sp);
	case REG_R10:
		return saved(st, st->regs.r10, sp);
	case REG_R13:
		return saved(st, st->regs.r13, sp);
	case REG_DI:
		return saved(st, st->regs.rdi, sp);
	case REG_DX:
		return saved(st, st->regs.rdx, sp);
	default:
		return false;
	}
}

/* struct pt_regs (arch/x86/include/asm/ptrace.h): r15 r14 r13 r12 bp bx r11 r10 r9 r8 ax cx dx si di orig_ax ip cs flags sp ss */
enum { PT_R13 = 2, PT_BP = 4, PT_R10 = 7, PT_DX = 12, PT_DI = 14, PT_IP = 16, PT_CS, PT_FLAGS, PT_SP, PT_WORDS = 21 };

static enum orc_result interrupted(const struct inspect *in, struct unwind_state *st, u64 at, bool all)
{
	u64 w[PT_WORDS];
	u32 first = all ? 0 : PT_IP;

	if (inspect_read(in, at, w + first, 8ull * (PT_WORDS - first)) != 8ull * (PT_WORDS - first))
		return ORC_UNKNOWN;
	st->pc = w[PT_IP];
	st->sp = w[PT_SP];
	st->exact = true;
	st->have_regs = all;
	if (all) {
		st->bp = w[PT_BP];
		st->regs = (struct kvm_regs){.r10 = w[PT_R10], .r13 = w[PT_R13], .rdi = w[PT_DI], .rdx = w[PT_DX]};
	}
	return w[PT_CS] & 3 ? ORC_USER : ORC_NEXT;
}

enum orc_result orc_step(const struct orc *o, const struct inspect *in, struct unwind_state *st)
{
	struct orc_entry e;
	u64 sp = 0, bp = st->bp, pc = 0;

	/* behind a call that does not return the next function's entry would be found */
	if (!find(o, st->exact ? st->pc : st->pc - 1, &e) || e.kind == KIND_UNKNOWN)
		return ORC_UNKNOWN;
	if (e.kind == KIND_END)
		return ORC_END;
	if (!caller_sp(in, st, &e, &sp))
		return ORC_UNKNOWN;
	if (e.kind != KIND_CALL)
		return interrupted(in, st, sp, e.kind == KIND_REGS);
	if (!word(in, sp - 8, &pc))
		return ORC_UNKNOWN;
	if (e.bp_reg == REG_PREV_SP && !word(in, sp + (u64)(s64)e.bp_offset, &bp))
		return ORC_UNKNOWN;
	if (e.bp_reg == REG_BP && !word(in, st->bp + (u64)(s64)e.bp_offset, &bp))
		return ORC_UNKNOWN;
	st->pc = pc;
	st->sp = sp;
	st->bp = bp;
	st->exact = st->have_regs = false;
	return ORC_NEXT;
}
