/*
 * CMPXCHG8B and CMPXCHG16B, which need RCX in its place, and BT BTS BTR BTC with a bit number in a register: it reaches beyond
 * the operand that the address fields name (SDM 2A BT), so the address goes through memory, for the look-up and for C.
 */
#include "engine/translate/tr_int.h"

static void raw(struct build *b, const void *bytes, unsigned n)
{
	emit_bytes(&b->e, bytes, n);
}

static bool gen_cmpxchg_wide(struct build *b)
{
	bool wide = b->in.id == INSN_CMPXCHG16B;
	const u8 op[] = {0xf0, (u8)(wide ? 0x49 : 0x41), 0x0f, 0xc7, 0x0f}; /* lock cmpxchg [r15] */
	unsigned skip = b->in.prefixes & PFX_LOCK && key_locks(b->key) ? 0 : 1;

	gen_access(b, wide ? 16 : 8, true);
	gen_operand_in_s0(b);
	emit_mov(&b->e, S1, S0, 8);
	emit_mov(&b->e, S0, HOST_CX, 8);
	gen_mark(b);
	raw(b, op + skip, sizeof(op) - skip);
	return true;
}

/* The address of the operand's word that has the bit into tr.address. */
static void bit_address(struct build *b, unsigned size)
{
	/* movsxd r15, r15d; sarx r15, r15, rcx */
	static const u8 extend[] = {0x4d, 0x63, 0xff}, shift[] = {0xc4, 0x42, 0xf2, 0xf7, 0xff};
	struct hostmem address = MEM_VCPU(tr.address);
	struct hostmem word = {.base = S0, .index = S1, .shift = (u8)(size == 8 ? 3 : 2)};

	gen_ea(b, S1, 0);
	emit_store(&b->e, &address, S1, 8);
	gen_get(b, S1, b->in.op[1].reg);
	if (size == 4)
		raw(b, extend, sizeof(extend));
	emit_mov_imm(&b->e, S0, size == 8 ? 6 : 5);
	raw(b, shift, sizeof(shift));
	emit_load(&b->e, S0, &address, 8);
	emit_lea(&b->e, S1, &word, b->mode64 ? 8 : 4);
	emit_store(&b->e, &address, S1, 8);
}

/* S1 = the bit's number within the word, by shifting the rest out. */
static void bit_number(struct build *b, unsigned size)
{
	/* shlx r15, r15, rcx; shrx r15, r15, rcx */
	static const u8 cut[] = {0xc4, 0x42, 0xf1, 0xf7, 0xff, 0xc4, 0x42, 0xf3, 0xf7, 0xff};

	gen_get(b, S1, b->in.op[1].reg);
	emit_mov_imm(&b->e, S0, size == 8 ? 58 : 59);
	raw(b, cut, sizeof(cut));
}

static bool gen_bit(struct build *b)
{
	static const u8 opcode[] = {0xa3, 0xab, 0xb3, 0xbb}; /* BT BTS BTR BTC */
	struct hostmem address = MEM_VCPU(tr.address), value = MEM_VCPU(tr.value), sum = {.base = S0, .index = S1};
	unsigned size = b->in.opsize;
	bool write = b->in.id != INSN_BT;
	u8 op[8];
	unsigned n = 0;

	if (b->in.op[1].kind != OPK_GPR || b->in.op[0].kind != OPK_MEM || size < 4 || b->in.adsize != (b->mode64 ? 8 : 4))
		return false;
	build_room(b, 100);
	bit_address(b, size);
	gen_access_stored(b, size, write);
	emit_load(&b->e, S1, &address, 8);
	emit_lea(&b->e, S0, &sum, 8);
	emit_store(&b->e, &value, S0, 8);
	bit_number(b, size);
	emit_load(&b->e, S0, &value, 8);
	gen_mark(b);
	if (b->in.prefixes & PFX_LOCK && key_locks(b->key))
		op[n++] = 0xf0;
	op[n++] = (u8)(size == 8 ? 0x4c : 0x44); /* [rcx], r15 */
	op[n++] = 0x0f;
	op[n++] = opcode[b->in.id - INSN_BT];
	op[n++] = 0x39;
	raw(b, op, n);
	return true;
}

bool gen_bitmem(struct build *b)
{
	const struct insn *in = &b->in;

	if (in->desc->cls != IC_INT || !gen_addressable(b) ||
	    (in->desc->feature != FEAT_NONE && !cpu_has(b->cpu, in->desc->feature)))
		return false;
	switch (b->in.id) {
	case INSN_CMPXCHG8B:
	case INSN_CMPXCHG16B:
		return gen_cmpxchg_wide(b);
	case INSN_BT:
	case INSN_BTS:
	case INSN_BTR:
	case INSN_BTC:
		return gen_bit(b);
	default:
		return false;
	}
}
