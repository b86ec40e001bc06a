/*
 * Writing host code: a bounded buffer and the few instructions the translator makes by itself. Code is written
 * through the writable view and runs in the executable one (layout.h); addresses given and returned are executable ones.
 *
 * Running out of room is sticky: everything later is dropped, and the caller looks at `full` once at the end.
 * No primitive here but the ones named so changes the host's arithmetic flags: guest flags live in them.
 */
#ifndef ENGINE_TRANSLATE_EMIT_H
#define ENGINE_TRANSLATE_EMIT_H

#include "base/types.h"
#include "engine/isa/insn.h"

/* Host registers, by hardware number. */
enum { H_AX, H_CX, H_DX, H_BX, H_SP, H_BP, H_SI, H_DI, H_8, H_9, H_10, H_11, H_12, H_13, H_14, H_15, H_NONE = 0xff };

struct emit {
	u8 *p, *end; /* in the writable view */
	s64 rx;      /* executable address = writable address + rx */
	bool full;
	u32 written; /* general registers that the primitives below have written; for whoever clears it */
};

/* A memory operand of the host. base and index may be H_NONE; index is not H_SP; shift is log2 of the scale. */
struct hostmem {
	u8 base, index, shift;
	bool gs; /* GS-relative: the vCPU's state */
	bool fs; /* FS-relative: the address space's jump caches */
	s32 disp;
};

static inline u64 emit_here(const struct emit *e)
{
	return (u64)e->p + (u64)e->rx;
}

void emit_bytes(struct emit *e, const void *bytes, unsigned n);
void emit_u8(struct emit *e, u8 v);
void emit_u32(struct emit *e, u32 v);
void emit_align_end(struct emit *e, unsigned bytes, unsigned to); /* so that what is so long ends there; to: at most 8 */
/* So that the rel32 that begins so many bytes further on lies in one aligned quadword: another vCPU that executes it while it is
 * patched finds the old or the new one, not some of each (AMD64 manual 2, 7.6.1). */
void emit_unsplit(struct emit *e, unsigned ahead);
void emit_align(struct emit *e, unsigned to); /* fills with multi-byte NOPs */

/* size: 1 2 4 8 bytes; 1 and 2 zero-extend on loads into 32 bits */
void emit_load(struct emit *e, unsigned reg, const struct hostmem *m, unsigned size);
void emit_store(struct emit *e, const struct hostmem *m, unsigned reg, unsigned size); /* size 1: any register, REX forces the low byte */
void emit_store_imm(struct emit *e, const struct hostmem *m, s32 imm, unsigned size);
void emit_mov(struct emit *e, unsigned dst, unsigned src, unsigned size); /* size 2, 4 or 8 */
void emit_mov_imm(struct emit *e, unsigned reg, u64 imm); /* shortest form */
void emit_lea(struct emit *e, unsigned reg, const struct hostmem *m, unsigned size); /* size 4 or 8; no segment */
void emit_rorx(struct emit *e, unsigned dst, unsigned src, unsigned count); /* 64-bit, BMI2 */
void emit_pext(struct emit *e, unsigned dst, unsigned src, const struct hostmem *mask); /* 32-bit, BMI2 */
void emit_movzx16(struct emit *e, unsigned dst, unsigned src); /* dst32 = zero-extended low word of src */
void emit_movzx8(struct emit *e, unsigned dst, unsigned src);
void emit_jmp(struct emit *e, u64 target);             /* rel32 always: may be patched */
void emit_jcc(struct emit *e, unsigned cond, u64 target); /* rel32 always */
void emit_jmp_mem(struct emit *e, const struct hostmem *m);
void emit_jmp_reg(struct emit *e, unsigned reg);

/* Short forward branches: the returned place is given to emit_short_here(), at most 127 bytes on (else: full). */
u8 *emit_jrcxz(struct emit *e);
void emit_jrcxz_back(struct emit *e, const u8 *to); /* to: in the writable view, at most 126 bytes back */
u8 *emit_jmp_short(struct emit *e);
u8 *emit_jcc_short(struct emit *e, unsigned cond);
void emit_short_here(struct emit *e, u8 *place);

/* Writes the rel32 that ends at `end` (executable address) so that it leads to target; a single aligned-or-not 4-byte store
 * through the writable view. */
void emit_patch_rel32(s64 rx, u64 end, u64 target);

#endif
