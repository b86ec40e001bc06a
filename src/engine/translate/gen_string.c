/*
 * REP MOVS and REP STOS of what lies in one page on each side: both addresses are looked up, and the host's own instruction does
 * the rest, with host addresses. It goes forward element by element, as the guest's would, so overlapping strings come out
 * right: the same byte of guest memory has the same host address, whichever guest address leads there.
 *
 * Their handler does it (SITE_EMU) if the direction flag is set, the count is 0 or more than a page, a string crosses a page or a table
 * has no entry; it fills the tables with the pages where the strings begin (run.c). A look-up from the first byte's page number and
 * the last one's finds no entry for a string that crosses one page border, and it cannot cross two.
 *
 * When the host's instruction faults its registers say how far it came: string_fault() makes them the guest's.
 */
#include "engine/translate/tr_int.h"

#define SLOT(reg) mem_gs(offsetof(struct vcpu, gpr) + 8 * (reg))

/* The handler's way out, which later misses take too. Falls through if S0 is 0. */
static const u8 *emulate_unless_zero(struct build *b)
{
	struct tr_site *s = gen_emulate_unless_zero(b);

	s->string = b->in.id == INSN_MOVS ? STRING_MOVS : STRING_STOS;
	s->size = b->in.opsize;
	return b->e.p - JUMP_OUT_BYTES;
}

/* S0 = 0 if DF is clear and the count is at least 1 and at most a page. */
static void check_count(struct build *b, unsigned shift)
{
	static const u8 shrx[] = {0xc4, 0xe2, 0x83, 0xf7, 0xc9}; /* shrx rcx, rcx, r15 */
	struct hostmem less = mem_at(HOST_CX, -1), df = MEM_VCPU(tr.fl_df), sum = {.base = S0, .index = S1};

	emit_lea(&b->e, S0, &less, 8);
	emit_mov_imm(&b->e, S1, PAGE_SHIFT - shift);
	emit_bytes(&b->e, shrx, sizeof(shrx));
	emit_load(&b->e, S1, &df, 4);
	emit_lea(&b->e, S0, &sum, 8);
}

/* S0 = what to add to addresses of the string at the register. */
static void look_up_string(struct build *b, unsigned reg, unsigned shift, bool write, const u8 *slow)
{
	struct hostmem last = {.base = (u8)reg, .index = HOST_CX, .shift = (u8)shift, .disp = -1};

	emit_lea(&b->e, S0, &last, 8);
	emit_rorx(&b->e, S1, reg, PAGE_SHIFT);
	emit_rorx(&b->e, S0, S0, PAGE_SHIFT);
	gen_entry(b, false, write);
	emit_jrcxz_back(&b->e, slow);
}

static void host_string(struct build *b, unsigned size)
{
	u8 op[4] = {0xf3};
	unsigned n = 1;

	if (size == 2) {
		op[0] = 0x66;
		op[n++] = 0xf3;
	} else if (size == 8) {
		op[n++] = 0x48;
	}
	op[n++] = (u8)((b->in.id == INSN_MOVS ? 0xa4 : 0xaa) | (size > 1));
	gen_mark(b);
	emit_bytes(&b->e, op, n);
}

/* S0: of the target; that of the source waits in tr.addend. */
static void move(struct build *b, unsigned size, unsigned shift)
{
	struct hostmem slot = SLOT(R_DI), addend = MEM_VCPU(tr.addend), to = {.base = H_DI, .index = S0},
		       from = {.base = H_SI, .index = S0}, from_end = {.base = S1, .index = HOST_CX, .shift = (u8)shift},
		       to_end = {.base = H_DI, .index = HOST_CX, .shift = (u8)shift};
	bool moves = b->in.id == INSN_MOVS;
	unsigned width = b->mode64 ? 8 : 4;

	emit_store(&b->e, &slot, H_DI, 8);
	emit_lea(&b->e, H_DI, &to, 8);
	if (moves) {
		emit_load(&b->e, S0, &addend, 8);
		emit_mov(&b->e, S1, H_SI, 8);
		emit_lea(&b->e, H_SI, &from, 8);
	}
	emit_mov(&b->e, S0, HOST_CX, 8);
	host_string(b, size);
	if (moves)
		emit_lea(&b->e, H_SI, &from_end, width);
	emit_load(&b->e, H_DI, &slot, 8);
	emit_lea(&b->e, H_DI, &to_end, width);
	emit_mov_imm(&b->e, HOST_CX, 0);
}

static bool suits(const struct build *b)
{
	const struct insn *in = &b->in;

	if ((in->id != INSN_MOVS && in->id != INSN_STOS) || !(in->prefixes & (PFX_REP | PFX_REPNE)) || in->prefixes & PFX_LOCK)
		return false;
	return in->adsize == (b->mode64 ? 8 : 4) && in->mem.seg < SEG_FS && gen_addressable(b);
}

bool gen_string(struct build *b)
{
	const struct insn *in = &b->in;
	unsigned size = in->opsize, shift = (unsigned)__builtin_ctz(size);
	struct hostmem addend = MEM_VCPU(tr.addend);
	const u8 *slow = NULL;

	if (!suits(b))
		return false;
	build_islands(b);
	if (!b->mode64) { /* what is above 32 bits there is undefined: SDM 1 3.4.1.1 */
		emit_mov(&b->e, HOST_CX, HOST_CX, 4);
		emit_mov(&b->e, H_DI, H_DI, 4);
		if (in->id == INSN_MOVS)
			emit_mov(&b->e, H_SI, H_SI, 4);
	}
	check_count(b, shift);
	slow = emulate_unless_zero(b);
	if (in->id == INSN_MOVS) {
		look_up_string(b, H_SI, shift, false, slow);
		emit_store(&b->e, &addend, S0, 8);
	}
	look_up_string(b, H_DI, shift, true, slow);
	move(b, size, shift);
	return true;
}

/* RSI is in S1 and RDI in its slot from before, R14 is the count then, RCX what is left of it. */
void string_fault(const struct vcpu *cpu, const struct tr_site *s, greg_t *host)
{
	u64 left = (u64)host[REG_RCX], done = ((u64)host[REG_R14] - left) * s->size;

	if (s->string == STRING_MOVS)
		host[REG_RSI] = (greg_t)((u64)host[REG_R15] + done);
	host[REG_RDI] = (greg_t)(cpu->gpr[R_DI] + done);
	host[REG_R14] = (greg_t)left;
}
