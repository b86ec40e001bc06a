/* Makes programs: short sequences with forward branches, whose memory operands mostly lie in the data pages. */
#include <string.h>

#include "tests/insn/harness.h"

/* Hold addresses in the data pages at the start; instructions that overwrite them are made rare. */
#define POINTERS (BIT(R_BX) | BIT(R_BP) | BIT(R_SI) | BIT(R_DI) | BIT(R_SP) | \
		  BIT(R_11) | BIT(R_13) | BIT(R_14) | BIT(R_15))

static unsigned below(u64 *rnd, unsigned n)
{
	return (unsigned)(test_random(rnd) >> 33) % n;
}

static s32 displacement(u64 *rnd)
{
	s32 d = (s32)below(rnd, 2 * PAGE_SIZE) - (s32)PAGE_SIZE;

	switch (below(rnd, 8)) {
	case 0: /* across pages */
		return (s32)below(rnd, 3) * (s32)PAGE_SIZE - (s32)PAGE_SIZE - (s32)below(rnd, 16);
	case 1: /* about the ends */
		return (s32)(below(rnd, 2) ? PAGE_SIZE + PAGE_SIZE / 2 : -(PAGE_SIZE + PAGE_SIZE / 2)) - (s32)below(rnd, 16);
	default:
		return below(rnd, 2) ? d & ~15 : d;
	}
}

static unsigned put_modrm(u8 *p, u64 *rnd)
{
	static const u8 bases[] = {3, 5, 6, 7};
	s32 disp = displacement(rnd);
	u8 reg = (u8)(below(rnd, 8) << 3);
	unsigned n = 1;

	if (below(rnd, 100) < 45) {
		p[0] = 0xc0 | reg | (u8)below(rnd, 8);
		return 1;
	}
	p[0] = 0x80 | reg | bases[below(rnd, 4)];
	if (below(rnd, 3) == 0) {
		p[0] = 0x80 | reg | 4;
		/* no index, or RAX, which is small at the start */
		p[n++] = (u8)(below(rnd, 4) << 6 | (below(rnd, 3) ? 4 : 0) << 3 | bases[below(rnd, 4)]);
	}
	memcpy(p + n, &disp, 4);
	return n + 4;
}

static void put_bytes(u8 *p, u64 *rnd, bool compat)
{
	static const u8 prefixes[] = {0x66, 0x66, 0x66, 0xf2, 0xf3, 0xf3, 0xf0, 0x66};
	unsigned n = 0, map = below(rnd, 8);

	for (unsigned i = 0; i < 16; i++)
		p[i] = (u8)test_random(rnd);
	if (below(rnd, 5) == 0)
		p[n++] = prefixes[below(rnd, 8)];
	if (map == 7) {
		p[n++] = 0xc4;
		p[n++] = (p[15] & 0xe0) | (compat ? 0xc0 : 0) | (u8)(1 + below(rnd, 3));
		n++;
	} else {
		if (!compat && below(rnd, 2))
			p[n++] = 0x40 | (u8)below(rnd, 16);
		if (map >= 5)
			p[n++] = 0x0f;
		if (map == 6)
			p[n++] = below(rnd, 2) ? 0x38 : 0x3a;
	}
	put_modrm(p + n + 1, rnd);
}

/* Branches here are those that can be pointed at a later instruction. */
static bool fits(const struct insn *in, u64 *rnd)
{
	bool branch = in->desc->attr & IA_BRANCH;

	if (branch && (in->nops == 0 || in->op[0].kind != OPK_REL || in->opsize == 2))
		return false;
	if (in->id == INSN_PAUSE || in->id == INSN_INTO)
		return false;
	for (unsigned i = 0; i < in->nops; i++)
		if (in->op[i].kind == OPK_GPR && in->op[i].access & OPA_WRITE && !in->op[i].high8 &&
		    BIT(in->op[i].reg) & POINTERS && below(rnd, 100) < 85)
			return false;
	return true;
}

/* Whether after it the flags it writes have surely been written: not by a shift by CL, or a repeat count of 0. */
static bool surely_writes(const struct insn *in)
{
	bool shift = in->id >= INSN_ROL && in->id <= INSN_SAR;
	bool by_cl = in->nops && in->op[in->nops - 1].kind == OPK_GPR && in->op[in->nops - 1].reg == R_CX;

	if ((shift || in->id == INSN_SHLD || in->id == INSN_SHRD) && by_cl)
		return false;
	return !(in->desc->attr & IA_STRING);
}

static bool add_insn(struct insn_case *c, unsigned n, u64 *rnd, bool (*want)(const struct insn *in))
{
	enum insn_mode mode = c->compat ? INSN_MODE_32 : INSN_MODE_64;
	struct insn *in = &c->prog[n].in;
	u8 bytes[16];

	put_bytes(bytes, rnd, c->compat);
	if (insn_decode(bytes, 15, mode, in) != INSN_OK || !want(in) || !fits(in, rnd) ||
	    in->desc->flags_read & c->prog[n].undefined)
		return false;
	if (in->mem.rip_relative) {
		s32 disp = (s32)(T_DATA_VA + T_DATA_SIZE / 2 + (u64)displacement(rnd) - (c->before.rip + c->len + in->len));

		memcpy(bytes + in->disp_off, &disp, 4);
		insn_decode(bytes, 15, mode, in);
	}
	c->prog[n].off = (u16)c->len;
	memcpy(c->bytes + c->len, bytes, in->len);
	c->len += in->len;
	return true;
}

/* Sends a branch to the start of instruction `to`, which the 8-bit form always reaches only if it is near. */
static void point_branch(struct insn_case *c, unsigned n, unsigned to)
{
	struct insn *in = &c->prog[n].in;
	u8 *p = c->bytes + c->prog[n].off;
	s32 rel = (s32)(to < c->count ? c->prog[to].off : c->len) - (s32)(c->prog[n].off + in->len);

	if (in->imm_len == 1 && rel > 127)
		rel = 0;
	memcpy(p + in->imm_off, &rel, in->imm_len);
	insn_decode(p, 15, c->compat ? INSN_MODE_32 : INSN_MODE_64, in);
}

static void start_state(struct insn_case *c, u64 *rnd)
{
	for (unsigned i = 0; i < 16; i++)
		c->before.gpr[i] = BIT(i) & POINTERS ? T_DATA_VA + T_DATA_SIZE / 2 : test_interesting(rnd);
	c->before.gpr[R_AX] = below(rnd, 2) ? below(rnd, 256) : test_random(rnd);
	c->before.gpr[R_CX] = below(rnd, 4) ? below(rnd, 70) : test_random(rnd);
	for (unsigned i = 0; i < 16 && c->compat; i++)
		c->before.gpr[i] = i < 8 ? (u32)c->before.gpr[i] : 0;
	c->before.rflags = (test_random(rnd) & (FL_ARITH | (below(rnd, 8) ? 0 : FL_DF))) | FL_ONE;
	c->before.fs_base = below(rnd, 4096);
	c->before.gs_base = (u64)0 - below(rnd, 4096);
	c->at = 64 + below(rnd, 512);
	c->before.rip = T_CODE_VA + c->at;
}

void harness_generate_block(struct insn_case *c, u64 *rnd, bool (*want)(const struct insn *in))
{
	u8 to[T_MAX_INSNS] = {0};

	c->len = 0;
	c->count = 2 + below(rnd, T_MAX_INSNS - 1);
	memset(&c->in, 0, sizeof(c->in));
	start_state(c, rnd);
	for (unsigned i = 0; i <= c->count; i++)
		c->prog[i].undefined = 0;
	for (unsigned i = 0; i < c->count; i++) {
		const struct insn_desc *d = NULL;
		u64 after = 0;

		while (!add_insn(c, i, rnd, want))
			;
		d = c->prog[i].in.desc;
		after = c->prog[i].undefined;
		if (surely_writes(&c->prog[i].in))
			after &= ~(u64)d->flags_written;
		after |= d->flags_undef;
		c->prog[i + 1].undefined |= after;
		if (d->attr & IA_BRANCH) {
			to[i] = (u8)(i + 1 + below(rnd, c->count - i));
			c->prog[to[i]].undefined |= after;
		}
	}
	for (unsigned i = 0; i < c->count; i++)
		if (to[i])
			point_branch(c, i, to[i]);
}
