/* CLC STC CMC CLD STD LAHF SAHF SALC, and what does nothing: NOP, hints, prefetches; fences. */
#include <sys/syscall.h>

#include "engine/interp/interp_int.h"

static void flags_clear(struct vcpu *cpu, const struct iop *op)
{
	cpu->rflags &= ~op->imm;
	NEXT(cpu, op);
}

static void flags_set(struct vcpu *cpu, const struct iop *op)
{
	cpu->rflags |= op->imm;
	NEXT(cpu, op);
}

static void flags_flip(struct vcpu *cpu, const struct iop *op)
{
	cpu->rflags ^= op->imm;
	NEXT(cpu, op);
}

static void lahf(struct vcpu *cpu, const struct iop *op)
{
	WR8(cpu, 1, (cpu->rflags & 0xd5) | 2);
	NEXT(cpu, op);
}

static void sahf(struct vcpu *cpu, const struct iop *op)
{
	cpu->rflags = (cpu->rflags & ~0xd5ull) | (RD8(cpu, 1) & 0xd5);
	NEXT(cpu, op);
}

static void salc(struct vcpu *cpu, const struct iop *op)
{
	WR8(cpu, 0, cpu->rflags & FL_CF ? 0xff : 0);
	NEXT(cpu, op);
}

static void fence(struct vcpu *cpu, const struct iop *op)
{
	__asm__ volatile("mfence" : : : "memory");
	NEXT(cpu, op);
}

/* A guest that spins waits for another vCPU, which may wait for this host processor: long spins give it away. */
static void pause(struct vcpu *cpu, const struct iop *op)
{
	if ((++cpu->pauses & 127) == 0 && cpu->vm->nvcpus > 1)
		sys_call(SYS_sched_yield);
	else
		__asm__ volatile("pause");
	NEXT(cpu, op);
}

/* clang-format off */
static const struct {
	iop_fn *fn;
	u32 bits;
} flag_ops[INSN_COUNT] = {
	[INSN_CLC] = {flags_clear, FL_CF},
	[INSN_STC] = {flags_set, FL_CF},
	[INSN_CMC] = {flags_flip, FL_CF},
	[INSN_CLD] = {flags_clear, FL_DF},
	[INSN_STD] = {flags_set, FL_DF},
	[INSN_LAHF] = {lahf, 0},
	[INSN_SAHF] = {sahf, 0},
	[INSN_SALC] = {salc, 0},
	[INSN_PAUSE] = {pause, 0},
	[INSN_MFENCE] = {fence, 0},
	[INSN_LFENCE] = {fence, 0},
	[INSN_SFENCE] = {fence, 0},
	[INSN_NOP] = {op_nop, 0},
	[INSN_PREFETCH] = {op_nop, 0},
	[INSN_PREFETCHW] = {op_nop, 0},
	[INSN_CLDEMOTE] = {op_nop, 0},
};
/* clang-format on */

bool compile_flags(struct vcpu *cpu, const struct insn *in, struct iop *op)
{
	if ((in->id == INSN_LAHF || in->id == INSN_SAHF) && cpu->mode.long64 && !cpu_has(cpu, FEAT_LAHF64))
		return false;
	op->fn = flag_ops[in->id].fn;
	op->imm = flag_ops[in->id].bits;
	return true;
}
