/*
 * Blocks of pages that are written often (interp_int.h, enum page_mode). Such a page is not write-protected: a block compares
 * its code with what it was translated from each time it is entered, and ends behind each instruction that may write memory or
 * is emulated. So a store of this vCPU takes effect at the next instruction, and one of another vCPU or a device when this one
 * jumps or executes a serialising instruction (SDM 3A 9.1.3 asks for no more).
 *
 * In a soft page constants are left out of the comparison, and read from the code when the instruction runs: what is
 * generated again and again in the same place often differs in nothing else.
 *
 * No flag may change: loads, LEA and JRCXZ.
 */
#include "engine/lib/lib.h"
#include "engine/translate/encode.h"
#include "engine/translate/tr_int.h"

void check_snapshot(struct build *b, gpa_t gpa)
{
	unsigned left = (unsigned)(PAGE_SIZE - (gpa & ~PAGE_MASK));

	b->snap_gpa = gpa;
	b->snap_len = MIN(left, (unsigned)sizeof(b->snap));
	memcpy(b->snap, gpa_to_hva(gpa), b->snap_len);
}

bool check_writes(const struct insn *in)
{
	for (unsigned i = 0; i < in->nops; i++)
		if (in->op[i].kind == OPK_MEM && in->op[i].access & OPA_WRITE)
			return true;
	return in->id == INSN_PUSH || in->id == INSN_PUSHF;
}

/* Instructions with a register and a constant whose constant is read from the code in a soft page. */
static bool may_be_soft(const struct insn *in)
{
	bool reg = in->op[0].kind == OPK_GPR && in->op[1].kind == OPK_IMM && in->nops == 2;

	if (!reg || in->map || in->opsize < 4 || in->prefixes & PFX_VEX || in->desc->cls != IC_INT)
		return false;
	if (in->id == INSN_MOV)
		return in->imm_len == 4 || in->imm_len == in->opsize;
	if (in->opsize == 8 && (in->id == INSN_ADD || in->id == INSN_SUB))
		return false; /* shared look-ups rely on the constant: scan_delta() */
	return in->id >= INSN_ADD && in->id <= INSN_CMP && (in->imm_len == 4 || in->imm_len == 1) &&
	       ((in->opcode & 0xc7) == 0x05 || in->opcode == 0x81 || in->opcode == 0x83);
}

/* ---- the comparison ---- */

/* Zero in S0 goes on; else out. */
static void expect_zero(struct build *b, u64 stale)
{
	u8 *same = emit_jrcxz(&b->e);

	emit_jmp(&b->e, stale);
	emit_short_here(&b->e, same);
}

static void compare8(struct build *b, unsigned at, u64 stale)
{
	struct hostmem m = mem_at(S0, 0), sum = {.base = S0, .index = S1};
	u64 want = 0;

	memcpy(&want, b->snap + at, 8);
	emit_mov_imm(&b->e, S0, (u64)gpa_to_hva(b->snap_gpa + at));
	emit_mov_imm(&b->e, S1, 0 - want);
	emit_load(&b->e, S0, &m, 8);
	emit_lea(&b->e, S0, &sum, 8);
	expect_zero(b, stale);
}

/* 1, 2 or 4 bytes; S1 holds the address of the first byte of the block. */
static void compare_few(struct build *b, unsigned at, unsigned size, u64 stale)
{
	struct hostmem m = mem_at(S1, (s32)at);
	u32 want = 0;
	struct hostmem less;

	memcpy(&want, b->snap + at, size);
	less = mem_at(S0, (s32)(0 - want));
	emit_load(&b->e, S0, &m, size);
	emit_lea(&b->e, S0, &less, 4);
	expect_zero(b, stale);
}

/* Bytes [from, to) that must be the same, first those in eights, then (tail) the rest: in the pieces they are likely to be
 * written in, since a load that spans two stores waits. */
static void compare_run(struct build *b, unsigned from, unsigned to, bool tail, u64 stale)
{
	unsigned eights = (to - from) / 8 * 8;

	for (unsigned at = from; !tail && at < from + eights; at += 8)
		compare8(b, at, stale);
	for (unsigned at = from + eights; tail && at < to;) {
		unsigned size = to - at >= 4 ? 4 : to - at >= 2 ? 2 : 1;

		compare_few(b, at, size, stale);
		at += size;
	}
}

static void compare_all(struct build *b, unsigned bytes, bool tail, u64 stale)
{
	unsigned from = 0;

	for (unsigned i = 0; i < b->nsoft; i++) {
		compare_run(b, from, b->soft_at[i].at, tail, stale);
		from = b->soft_at[i].at + b->soft_at[i].len;
	}
	compare_run(b, from, bytes, tail, stale);
}

static void plan_soft(struct build *b)
{
	for (unsigned i = 0; b->soft && i < b->total && b->nsoft < ARRAY_SIZE(b->soft_at); i++) {
		const struct insn *in = &b->code[i];

		if (!may_be_soft(in))
			continue;
		b->soft_at[b->nsoft].at = (u16)(b->insn_off[i] - b->insn_off[0] + in->imm_off);
		b->soft_at[b->nsoft].len = in->imm_len;
		b->soft_at[b->nsoft++].insn = (u8)i;
	}
}

/* In place of build_entry(): the code follows, once it is known to be the same. */
void gen_check(struct build *b)
{
	u64 stale = emit_here(&b->e);
	unsigned bytes = b->insn_off[b->total] - b->insn_off[0];
	struct tr_site *s = build_site(b, SITE_STALE);

	plan_soft(b);
	build_leave(b, site_number(b, s));
	build_entry(b);
	compare_all(b, bytes, false, stale);
	emit_mov_imm(&b->e, S1, (u64)gpa_to_hva(b->snap_gpa));
	compare_all(b, bytes, true, stale);
}

/* ---- constants read from the code ---- */

/* The constant, sign-extended to size (4, 8), into reg; S1 is clobbered. */
static void load_soft(struct build *b, unsigned reg, unsigned len, unsigned size)
{
	const struct insn *in = &b->in;
	unsigned at = b->page_off + in->imm_off - (unsigned)(b->snap_gpa & ~PAGE_MASK);
	u8 rex = REX | (size == 8 ? REX_W : 0) | (reg & 8 ? REX_R : 0) | REX_B;
	u8 modrm = (u8)((reg & 7) << 3 | (S1 & 7));
	struct hostmem m = mem_at(S1, 0);

	emit_mov_imm(&b->e, S1, (u64)gpa_to_hva(b->snap_gpa + at));
	if (len == size)
		emit_load(&b->e, reg, &m, size);
	else if (len == 4) /* MOVSXD */
		emit_bytes(&b->e, (const u8[]){rex, 0x63, modrm}, 3);
	else /* MOVSX from a byte */
		emit_bytes(&b->e, (const u8[]){rex, 0x0f, 0xbe, modrm}, 4);
}

static bool soft_mov(struct build *b)
{
	const struct insn *in = &b->in;
	unsigned dst = in->op[0].reg, to = is_spilled(dst) ? S0 : host_of(dst);

	load_soft(b, to, in->imm_len, in->opsize);
	gen_put(b, dst, to);
	return true;
}

/* ADD OR ADC SBB AND SUB XOR CMP r, imm as r, S1. */
static bool soft_alu(struct build *b)
{
	const struct insn *in = &b->in;
	unsigned dst = in->op[0].reg, to = is_spilled(dst) ? S0 : host_of(dst);
	unsigned op = in->opcode < 0x40 ? in->opcode >> 3 & 7 : in->modrm >> 3 & 7;
	u8 rex = REX | REX_R | (in->opsize == 8 ? REX_W : 0) | (to & 8 ? REX_B : 0);

	load_soft(b, S1, in->imm_len, in->opsize);
	if (is_spilled(dst))
		gen_get(b, to, dst);
	emit_bytes(&b->e, (const u8[]){rex, (u8)(op << 3 | 1), (u8)(0xc0 | (S1 & 7) << 3 | (to & 7))}, 3);
	if (op != 7)
		gen_put(b, dst, to);
	return true;
}

bool gen_soft(struct build *b)
{
	bool planned = false;

	for (unsigned i = 0; i < b->nsoft; i++)
		planned |= b->soft_at[i].insn == b->n;
	if (!planned)
		return false;
	if (is_spilled(b->in.op[0].reg))
		hold_drop(b); /* S0 is needed */
	return b->in.id == INSN_MOV ? soft_mov(b) : soft_alu(b);
}
