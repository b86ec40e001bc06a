/*
 * Interpreter: decodes once into blocks of struct iop, cached by guest physical address and mode key; executes them
 * as threaded code. See interp/block.c for the cache, interp/compile.c for insn -> iop.
 */
#ifndef ENGINE_INTERP_INTERP_H
#define ENGINE_INTERP_INTERP_H

#include "engine/vcpu.h"
#include "engine/isa/insn.h"
#include "engine/mmu/mmu.h"
#include "engine/cpu/cpu.h"

struct iop;
typedef void iop_fn(struct vcpu *cpu, const struct iop *op);

/*
 * One decoded instruction, ready to run: 64 bytes. A handler commits, then `NEXT(cpu, op)`; handlers of
 * block-ending instructions set cpu->rip and return. While a handler runs, cpu->rip is the address of its instruction.
 */
struct iop {
	iop_fn *fn;      /* replaced by interp_leave when the block is invalidated: any vCPU inside leaves at its next instruction */
	u8 len;
	u8 dst, src;     /* GPR numbers, or as the handler likes */
	u8 size;         /* operand size in bytes */
	u8 seg, base, index, shift; /* effective address: INSN_NO_REG = none; shift = log2 scale */
	s64 disp;
	u64 imm;
	u8 asize;        /* address size in bytes: 2 4 8 */
	u8 flags;        /* IOP_* */
	u8 aux[6];
	void *ptr;       /* handler's own: host stub of a vector instruction, ... */
	const struct insn_desc *desc;
	u16 nth;         /* instructions before this one in its block */
	u8 ea_kind;      /* enum ea_kind */
	u8 ea_base;      /* EA_BASE*: word of struct vcpu: GPR number, or 16 for RIP */
	bool has_mem;    /* an explicit memory operand */
	u8 spare[3];
};

_Static_assert(sizeof(struct iop) == 64, "a cache line");
_Static_assert(offsetof(struct vcpu, rip) == 16 * 8, "RIP follows the GPRs: ea_base 16");

#define IOP_BASE_RIP 0x20 /* base: address of this instruction (cpu->rip); compile adds len into disp */

enum {
	IOP_SEGCHECK = 1, /* EA goes through seg_linear() */
	IOP_LAST = 2,
	IOP_LOCK = 4,
	IOP_SEGBASE = 8,  /* 64-bit mode, FS or GS: add the base, no checks */
};

/* Ways to compute an effective address, cheapest first but the catch-all. */
enum ea_kind { EA_GENERIC, EA_BASE, EA_BASE_INDEX };

#define NEXT(cpu, op)                                                                                            \
	do {                                                                                                     \
		(cpu)->rip += (op)->len;                                                                         \
		const struct iop *next_ = (op) + 1;                                                              \
		return next_->fn((cpu), next_);                                                                  \
	} while (0)

/* Linear address of op's memory operand for an access of size bytes (checks segments where the mode has them). */
static inline gva_t iop_ea_offset(const struct vcpu *cpu, const struct iop *op)
{
	u64 a = (u64)op->disp;

	if (op->base < 16)
		a += cpu->gpr[op->base];
	else if (op->base == IOP_BASE_RIP)
		a += cpu->rip;
	if (op->index != INSN_NO_REG)
		a += cpu->gpr[op->index] << op->shift;
	return op->asize == 8 ? a : op->asize == 4 ? (u32)a : (u16)a;
}

/* With checks: segment limits outside 64-bit mode, FS/GS bases, canonical addresses (#GP/#SS). In 64-bit mode without a
 * segment base a non-canonical address is caught by the TLB miss path (mmu raises #GP(0), or #SS(0) if stack_seg). */
gva_t iop_ea_slow(struct vcpu *cpu, const struct iop *op, unsigned size, bool write);
/* The same for an offset that is known. */
gva_t iop_linear(struct vcpu *cpu, const struct iop *op, u64 off, unsigned size, bool write);
static inline gva_t iop_ea(struct vcpu *cpu, const struct iop *op, unsigned size, bool write)
{
	u64 a = ((const u64 *)(const void *)cpu)[op->ea_base] + (u64)op->disp;

	if (likely(op->ea_kind == EA_BASE))
		return a;
	if (likely(op->ea_kind == EA_BASE_INDEX))
		return a + (cpu->gpr[op->index & 15] << op->shift);
	return iop_ea_slow(cpu, op, size, write);
}

/*
 * Compilers of the two halves: fill op (fn, operands) for the decoded instruction. Return false: cannot (the caller
 * then makes it raise #UD). int_compile handles IC_INT and IC_SYS; vec_compile IC_X87, IC_MMX, IC_SSE, IC_AVX.
 * The address fields, len and desc of op are already filled by the caller.
 */
bool int_compile(struct vcpu *cpu, const struct insn *in, struct iop *op);
bool vec_compile(struct vcpu *cpu, const struct insn *in, struct iop *op);

/* Code was written: drops decoded blocks that overlap [a, a+n). Any thread. Called by mmu for pages with PA_CODE, and for
 * invalidation requests of the VMM (DMA). After it returns no vCPU executes stale code beyond its current instruction. */
void code_invalidate(gpa_t a, u64 n);
/* Drops everything (slot changes). At a safe point. */
void code_flush_all(void);
/* The vCPU's cached linear-to-block lookups are stale: address space changed in a way tags do not show. Own thread. */
void interp_forget_lookups(struct vcpu *cpu);
/* The same for one page (INVLPG), cheap if no code was run from it. */
void interp_forget_page(struct vcpu *cpu, gva_t a);

#endif
