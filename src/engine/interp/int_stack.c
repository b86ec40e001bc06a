/* PUSH POP PUSHA POPA ENTER LEAVE, PUSH and POP of segment registers. */
#include "engine/interp/interp_int.h"

/* ---- 64-bit pushes in 64-bit mode ---- */

static inline void push64(struct vcpu *cpu, u64 v)
{
	u64 sp = cpu->gpr[R_SP] - 8;

	mmu_write64(cpu, sp, v);
	cpu->gpr[R_SP] = sp;
}

static void push_r64(struct vcpu *cpu, const struct iop *op)
{
	push64(cpu, cpu->gpr[op->src]);
	NEXT(cpu, op);
}

static void push_i64(struct vcpu *cpu, const struct iop *op)
{
	push64(cpu, op->imm);
	NEXT(cpu, op);
}

static void push_m64(struct vcpu *cpu, const struct iop *op)
{
	push64(cpu, mmu_read64(cpu, iop_ea(cpu, op, 8, false)));
	NEXT(cpu, op);
}

static void pop_r64(struct vcpu *cpu, const struct iop *op)
{
	u64 v = mmu_read64(cpu, cpu->gpr[R_SP]);

	cpu->gpr[R_SP] += 8;
	cpu->gpr[op->dst] = v; /* POP RSP: the value wins */
	NEXT(cpu, op);
}

static void leave64(struct vcpu *cpu, const struct iop *op)
{
	u64 v = mmu_read64(cpu, cpu->gpr[R_BP]);

	cpu->gpr[R_SP] = cpu->gpr[R_BP] + 8;
	cpu->gpr[R_BP] = v;
	NEXT(cpu, op);
}

/* ---- any ---- */

static void push_any(struct vcpu *cpu, const struct iop *op)
{
	u64 v = op->aux[0] == OPK_IMM	? op->imm
		: op->aux[0] == OPK_GPR ? gpr_read(cpu, op->src, op->size)
					: mem_read(cpu, iop_ea(cpu, op, op->size, false), op->size);

	cpu_push(cpu, v, op->size);
	NEXT(cpu, op);
}

static void pop_reg(struct vcpu *cpu, const struct iop *op)
{
	u64 v = cpu_pop(cpu, op->size);

	gpr_write(cpu, op->dst, v, op->size);
	NEXT(cpu, op);
}

/* The address is computed with RSP already incremented (SDM 2B POP); the write may fault, so RSP is put back for it. */
static void pop_mem(struct vcpu *cpu, const struct iop *op)
{
	u64 old = cpu->gpr[R_SP], v = cpu_pop(cpu, op->size), popped = cpu->gpr[R_SP], a;

	a = iop_ea_offset(cpu, op);
	cpu->gpr[R_SP] = old;
	mem_write(cpu, iop_linear(cpu, op, a, op->size, true), v, op->size);
	cpu->gpr[R_SP] = popped;
	NEXT(cpu, op);
}

static gva_t stack_at(struct vcpu *cpu, u64 off, unsigned size, bool write)
{
	off = cpu->mode.stack == 8 ? off : cpu->mode.stack == 4 ? (u32)off : (u16)off;
	return cpu->mode.long64 ? off : seg_linear(cpu, SEG_SS, off, size, write);
}

/* Words and registers before a fault stay changed, as on AMD. */
static void pusha(struct vcpu *cpu, const struct iop *op)
{
	u64 sp = cpu->gpr[R_SP];

	for (unsigned r = R_AX; r <= R_DI; r++)
		mem_write(cpu, stack_at(cpu, sp - (r + 1) * op->size, op->size, true), cpu->gpr[r], op->size);
	gpr_write(cpu, R_SP, sp - 8 * op->size, cpu->mode.stack);
	NEXT(cpu, op);
}

static void popa(struct vcpu *cpu, const struct iop *op)
{
	u64 sp = cpu->gpr[R_SP];

	for (unsigned i = 0; i < 8; i++) {
		u64 v = mem_read(cpu, stack_at(cpu, sp + i * op->size, op->size, false), op->size);

		if (7 - i != R_SP)
			gpr_write(cpu, 7 - i, v, op->size);
	}
	gpr_write(cpu, R_SP, sp + 8 * op->size, cpu->mode.stack);
	NEXT(cpu, op);
}

static void push_sreg(struct vcpu *cpu, const struct iop *op)
{
	cpu_push(cpu, cpu->seg[op->src].sel, op->size);
	NEXT(cpu, op);
}

static void pop_sreg(struct vcpu *cpu, const struct iop *op)
{
	u64 old = cpu->gpr[R_SP], v = cpu_pop(cpu, op->size), popped = cpu->gpr[R_SP];

	cpu->gpr[R_SP] = old;
	cpu_load_sreg(cpu, op->dst, v);
	if (op->dst == SEG_SS) {
		gpr_write(cpu, R_SP, popped, cpu->mode.stack);
		cpu->shadow = SHADOW_MOVSS;
	} else {
		cpu->gpr[R_SP] = popped;
	}
	cpu->rip += op->len;
	iop_return(cpu, op, false);
}

static void leave_any(struct vcpu *cpu, const struct iop *op)
{
	u64 bp = cpu->gpr[R_BP];
	u64 v = mem_read(cpu, stack_at(cpu, bp, op->size, false), op->size);

	gpr_write(cpu, R_SP, bp + op->size, cpu->mode.stack);
	gpr_write(cpu, R_BP, v, op->size);
	NEXT(cpu, op);
}

/*
 * ENTER: imm bytes of frame, aux[0] levels of nesting (SDM 2A). Old frame pointers are read and pushed one by one: the two
 * stacks may overlap, and what was pushed stays there if a later access faults.
 */
static void enter_any(struct vcpu *cpu, const struct iop *op)
{
	unsigned size = op->size, level = op->aux[0] & 31;
	u64 bp = cpu->gpr[R_BP], frame = cpu->gpr[R_SP] - size, sp = frame;

	mem_write(cpu, stack_at(cpu, frame, size, true), bp, size);
	for (unsigned i = 1; i < level; i++) {
		u64 v = mem_read(cpu, stack_at(cpu, bp - i * size, size, false), size);

		sp -= size;
		mem_write(cpu, stack_at(cpu, sp, size, true), v, size);
	}
	if (level) {
		sp -= size;
		mem_write(cpu, stack_at(cpu, sp, size, true), frame, size);
	}
	/* The final stack must be writable (SDM: the last byte of the new frame is probed). */
	sp -= op->imm;
	mmu_probe(cpu, stack_at(cpu, sp, size, true), size, ACC_WRITE, cpu->mode.mmu_idx);
	gpr_write(cpu, R_BP, frame, size);
	gpr_write(cpu, R_SP, sp, cpu->mode.stack);
	NEXT(cpu, op);
}

/* ---- compilation ---- */

static void compile_push(struct vcpu *cpu, const struct insn *in, struct iop *op)
{
	const struct insn_operand *s = &in->op[0];

	op->aux[0] = s->kind;
	op->imm = in->imm;
	op->src = s->reg;
	if (in->opsize != 8)
		op->fn = push_any;
	else
		op->fn = s->kind == OPK_GPR ? push_r64 : s->kind == OPK_IMM ? push_i64 : push_m64;
}

static void compile_pop(struct vcpu *cpu, const struct insn *in, struct iop *op)
{
	op->dst = in->op[0].reg;
	if (in->op[0].kind == OPK_MEM)
		op->fn = pop_mem;
	else
		op->fn = in->opsize == 8 ? pop_r64 : pop_reg;
}

bool compile_stack(struct vcpu *cpu, const struct insn *in, struct iop *op)
{
	op->size = in->opsize;
	switch (in->id) {
	case INSN_PUSH:
		compile_push(cpu, in, op);
		break;
	case INSN_POP:
		compile_pop(cpu, in, op);
		break;
	case INSN_PUSHA:
		op->fn = pusha;
		break;
	case INSN_POPA:
		op->fn = popa;
		break;
	case INSN_PUSH_SREG:
		op->src = in->op[0].reg;
		op->fn = push_sreg;
		break;
	case INSN_POP_SREG:
		op->dst = in->op[0].reg;
		op->fn = pop_sreg;
		break;
	case INSN_LEAVE:
		op->fn = in->opsize == 8 ? leave64 : leave_any;
		break;
	default:
		op->imm = (u16)in->imm;
		op->aux[0] = in->imm2;
		op->fn = enter_any;
		break;
	}
	return true;
}
