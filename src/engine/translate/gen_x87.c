/*
 * x87 instructions run as they are; what is added is the guest's instruction and data pointer and the opcode of the last
 * one that is no control instruction (SDM 1 8.1.8), since the host's are those of translated code.
 *
 * The data pointer is stored behind each instruction with a memory operand. Instruction pointer and opcode wait until
 * something may leave the straight line: a branch stores them; a site carries them, and came_back() stores them. So no
 * jump may lead into the middle of a block to an instruction before which they are waiting (own_insn() in gen_branch.c).
 */
#include "engine/cpu/fpu.h"
#include "engine/translate/tr_int.h"

static bool is_control(u16 id)
{
	return id == INSN_FLDCW || id == INSN_FNSTCW || id == INSN_FNSTSW || id == INSN_FNCLEX || id == INSN_FWAIT;
}

bool x87_native(const struct insn *in)
{
	switch (in->id) {
	case INSN_FNINIT:
	case INSN_FNENI:
	case INSN_FNDISI:
	case INSN_FNSETPM:
	case INSN_FNSTENV:
	case INSN_FNSAVE:
	case INSN_FLDENV:
	case INSN_FRSTOR:
		return false; /* they read or write the pointers, or are the host's business */
	default:
		return true;
	}
}

/* Behind an x87 instruction: it has completed. */
void gen_x87_done(struct build *b)
{
	const struct insn *in = &b->in;
	struct hostmem fdp = MEM_VCPU(tr.fdp), seg = MEM_VCPU(tr.fdp_seg);

	if (is_control(in->id))
		return;
	b->x87_op = (u16)(X87_OP_VALID | (in->opcode & 7) << 8 | in->modrm);
	b->x87_off = (u16)b->page_off;
	if (in->modrm >= 0xc0)
		return;
	gen_offset(b, S1, 0);
	if (in->mem.base != INSN_NO_REG && in->mem.index != INSN_NO_REG && is_spilled(in->mem.base) &&
	    is_spilled(in->mem.index))
		hold_drop(b); /* it took both */
	emit_store(&b->e, &fdp, S1, 8);
	emit_store_imm(&b->e, &seg, X87_SEG_VALID | in->mem.seg, 4);
}

/* Before a branch: what waits is stored. */
void gen_x87_flush(struct build *b)
{
	struct hostmem va = MEM_VCPU(tr.page_va), at = mem_at(S0, b->x87_off), fip = MEM_VCPU(tr.fip),
		       op = MEM_VCPU(tr.fop);

	if (!b->x87_op)
		return;
	build_room(b, 96);
	hold_drop(b);
	emit_load(&b->e, S0, &va, 8);
	emit_lea(&b->e, S0, &at, b->mode64 ? 8 : 4);
	emit_store(&b->e, &fip, S0, 8);
	emit_store_imm(&b->e, &op, b->x87_op, 4);
	b->x87_op = 0;
}

/* Translated code was left at s (NULL: by a jump): the pointers go where the interpreter keeps them. */
void x87_settle(struct vcpu *cpu, const struct tr_site *s)
{
	struct vec_state *vs = cpu->vecexec;
	struct tr_state *t = &cpu->tr;

	if (t->fop) {
		vs->fip = t->fip;
		vs->fop = t->fop & 0x7ff;
		vs->fcs = cpu->seg[SEG_CS].sel;
		t->fop = 0;
	}
	if (t->fdp_seg) {
		vs->fdp = t->fdp;
		vs->fds = cpu->seg[t->fdp_seg & 7].sel;
		t->fdp_seg = 0;
	}
	if (s->x87_op) {
		vs->fip = t->page_va + s->x87_off;
		if (!cpu->mode.long64)
			vs->fip = (u32)vs->fip;
		vs->fop = s->x87_op & 0x7ff;
		vs->fcs = cpu->seg[SEG_CS].sel;
	}
}
