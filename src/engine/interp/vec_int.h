/* Inside interp/vec: what the handlers of vector and x87 instructions share. */
#ifndef ENGINE_INTERP_VEC_INT_H
#define ENGINE_INTERP_VEC_INT_H

#include "engine/cpu/fpu.h"
#include "engine/interp/interp.h"
#include "engine/interp/stub.h"

static inline struct vec_state *vs_of(const struct vcpu *cpu)
{
	return cpu->vecexec;
}

/* op->aux of a vector instruction. */
enum {
	AUX_UNAVAIL, /* enum vec_unavail */
	AUX_INDEX,   /* VSIB index register */
	AUX_VL,      /* bytes of the vector */
	AUX_ELEM,    /* bytes of an element */
	AUX_INDEX_SIZE,
	AUX_ALIGNED = AUX_ELEM,        /* #GP(0) unless aligned to its size */
	AUX_MASK = AUX_INDEX_SIZE + 1, /* mask register */
};

/* Which rules decide between #UD and #NM when the state may not be used (SDM 3A 2.5, tables 2-3, 14-1). */
enum vec_unavail { VU_X87, VU_MMX, VU_SSE, VU_AVX };

/* #AC for a data access of cpl 3 (SDM 3A 6.15): align is a power of two. */
void vec_raise_ac(struct vcpu *cpu, gva_t a);
static inline void vec_check_align(struct vcpu *cpu, gva_t a, unsigned align)
{
	if (unlikely((cpu->rflags & FL_AC) && (a & (align - 1)) && cpu->mode.cpl == 3 &&
		     (cpu->cr0 & BIT(18))))
		vec_raise_ac(cpu, a);
}

/* Host pointer if the TLB allows the access at once: no faults, no side effects. */
static inline void *vec_tlb_hit(struct vcpu *cpu, gva_t a, unsigned size, bool write)
{
	const struct tlb_entry *e = &cpu->tlb.e[cpu->mode.mmu_idx][tlb_index(a)];
	u64 want = ((a + size - 1) & PAGE_MASK) | cpu->tlb.ctx[a >> 63];

	return (write ? e->tag_w : e->tag_r) == want ? (void *)(a + e->addend) : NULL;
}

/* Pointer to the operand, in guest RAM or copied to the bounce buffer. */
void *vec_read_slow(struct vcpu *cpu, gva_t a, unsigned size);
static inline void *vec_read(struct vcpu *cpu, gva_t a, unsigned size)
{
	void *p = vec_tlb_hit(cpu, a, size, false);

	return likely(p != NULL) ? p : vec_read_slow(cpu, a, size);
}

/* Runs the store through the bounce buffer. */
void vec_store_slow(struct vcpu *cpu, const struct iop *op, gva_t a);

/* Any size, not crossing checked: copies between guest memory and a buffer; write: probed before the first
 * byte. */
void vec_copy_in(struct vcpu *cpu, gva_t a, void *buf, unsigned size);
void vec_copy_out(struct vcpu *cpu, gva_t a, const void *buf, unsigned size);

/* Moves one vector register from or to memory: 32 bytes with AVX, else 16. */
void vec_reg_get(struct vcpu *cpu, unsigned reg, void *to);
void vec_reg_set(struct vcpu *cpu, unsigned reg, const void *from);

void vec_mmx_get(struct vcpu *cpu, unsigned reg, void *to); /* 8 bytes */

/* Compilers of the groups; false: not one of theirs. */
bool vec_compile_x87(struct vcpu *cpu, const struct insn *in, struct iop *op);
bool vec_compile_state(struct vcpu *cpu, const struct insn *in,
		       struct iop *op); /* FXSAVE, XSAVE, LDMXCSR ... */
bool vec_compile_masked(struct vcpu *cpu, const struct insn *in, struct iop *op); /* gathers, masked moves */

#endif
