/* The decoder's state, shared by decode.c (prefixes, opcode, row) and operand.c (sizes, memory, operands). */
#ifndef ENGINE_ISA_DECODE_INT_H
#define ENGINE_ISA_DECODE_INT_H

#include "engine/isa/table.h"
#include "engine/lib/lib.h"

struct decoder {
	const u8 *p;
	u8 limit; /* bytes that may be looked at: min(n, 15) */
	u8 pos;
	u8 mode; /* enum insn_mode */
	u8 seg;  /* effective override or INSN_NO_REG */
	bool overrun;
	u8 rep;    /* F2 or F3 as a pp value, 0: none */
	u8 col[4]; /* column of the size tables, by enum size_by */
	struct insn *out;
	const struct insn_row *row;
};

/* Little-endian value of size bytes; past the limit: 0, with overrun noted. */
static inline u64 decoder_take(struct decoder *d, u8 size)
{
	const u8 *at = d->p + d->pos;
	u64 value = 0;

	if (unlikely(d->pos + size > d->limit)) {
		d->overrun = true;
		return 0;
	}
	d->pos += size;
	switch (size) {
	case 1:
		return *at;
	case 2:
		memcpy(&value, at, 2);
		return value;
	case 4:
		memcpy(&value, at, 4);
		return value;
	default:
		memcpy(&value, at, 8);
		return value;
	}
}

/* The row is selected: operand, address and vector sizes follow. */
void decoder_set_sizes(struct decoder *d);
/* Memory of string instructions and their like, described in insn.mem though no operand says so. */
void decoder_implicit_mem(struct decoder *d);
/* All operands of the row; false: #UD. */
bool decoder_operands(struct decoder *d);

#endif
