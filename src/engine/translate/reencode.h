/*
 * Guest instructions as host instructions: the same operation, general registers renamed, the memory operand replaced.
 * The guest may be in 64-bit or 32-bit mode; the host is in 64-bit mode.
 */
#ifndef ENGINE_TRANSLATE_REENCODE_H
#define ENGINE_TRANSLATE_REENCODE_H

#include "engine/translate/emit.h"

/* Which encoded fields of the instruction name general registers (not the ones of a memory operand's address). */
enum gpr_field {
	GF_REG = 1,    /* ModRM.reg */
	GF_RM = 2,     /* ModRM.rm, register form */
	GF_VVVV = 4,   /* VEX.vvvv */
	GF_OPCODE = 8, /* low three bits of the opcode: MOV r, imm; BSWAP; XCHG rAX, r; PUSH; POP; INC r (32-bit mode) */
};
unsigned insn_gpr_fields(const struct insn *in);

/* Guest registers (bit per number) that those fields name, read and written. A write of less than 4 bytes also counts as a read: the rest of the
 * register survives. A conditional write (CMOVcc, BSF of 0, shift counts) counts as both. high8 operands count as their whole register. */
u32 insn_gprs_read(const struct insn *in);
u32 insn_gprs_written(const struct insn *in);

/* An operand is AH CH DH BH: no REX prefix may be needed. */
bool insn_has_high8(const struct insn *in);

/*
 * Emits in with guest register n renamed to map[n] wherever a field names it, and the explicit memory operand, if there is one,
 * replaced by *m (m NULL: the instruction has none). Legacy prefixes LOCK (unless lock is false), F2, F3, 66 are kept as far as they mean something;
 * segment and address-size prefixes go. Implicit operands (rAX of MUL, CL of a shift, ...) stay what the host's instruction has. Immediates are copied.
 * 32-bit forms that 64-bit mode lacks are emitted in their other form (INC r: FF /0). VEX forms stay VEX.
 * With 8-bit operands SPL BPL SIL DIL and r8b.. come out right whatever map says.
 * BT BTS BTR BTC m, r reach beyond *m by what r says, as the host's instruction does: the caller adds the offset's upper part
 * to the address and maps r to a register with the lower part. A NOP of any form becomes the one byte; LEA is given *m as any other.
 * False: it cannot be expressed (high8 with a register that needs REX, a form we do not know); nothing was emitted.
 */
bool reencode(struct emit *e, const struct insn *in, const u8 map[16], const struct hostmem *m, bool lock);

#endif
