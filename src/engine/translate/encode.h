/* Pieces of host encodings that emit.c and reencode.c share. */
#ifndef ENGINE_TRANSLATE_ENCODE_H
#define ENGINE_TRANSLATE_ENCODE_H

#include "engine/translate/emit.h"

#define ENCODE_MAX 16 /* one instruction, rounded up */

enum { REX_B = 1, REX_X = 2, REX_R = 4, REX_W = 8, REX = 0x40 };
enum { PREFIX_FS = 0x64, PREFIX_GS = 0x65, PREFIX_66 = 0x66, PREFIX_LOCK = 0xf0 };

/* A byte register that without REX would be AH CH DH BH. */
static inline bool byte_reg_needs_rex(unsigned reg)
{
	return reg >= H_SP && reg <= H_DI;
}

/* X and B of REX or VEX for *m. */
static inline u8 mem_rex(const struct hostmem *m)
{
	return (u8)((m->index != H_NONE && m->index & 8 ? REX_X : 0) |
		    (m->base != H_NONE && m->base & 8 ? REX_B : 0));
}

/* ModRM, SIB and displacement at b for *m, with ModRM.reg = reg & 7: at most 6 bytes. Returns their number.
 */
unsigned mem_encode(u8 *b, unsigned reg, const struct hostmem *m);

#endif
