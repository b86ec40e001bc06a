/*
 * Guest instructions as host instructions. See reencode.h.
 *
 * What a field of the instruction means is read from the decoder's table row, operand by operand; nothing
 * here lists opcodes, but for the few forms that need another one on the host.
 */
#include "engine/isa/table.h"
#include "engine/lib/lib.h"
#include "engine/translate/encode.h"
#include "engine/translate/reencode.h"

static const struct insn_row *row_of(const struct insn *in)
{
	return container_of(in->desc, struct insn_row, d);
}

static unsigned place_of(const struct insn *in, unsigned i)
{
	return OS_PLACE(row_of(in)->ops >> (16 * i));
}

/* The field that names operand i, 0 unless that is a general register. */
static unsigned gpr_field(const struct insn *in, unsigned i)
{
	if (in->op[i].kind != OPK_GPR || in->op[i].implicit || in->id == INSN_NOP)
		return 0; /* the operands of a NOP are not looked at */
	switch (place_of(in, i)) {
	case PL_G:
		return GF_REG;
	case PL_E:
	case PL_R:
		return GF_RM;
	case PL_BV:
		return GF_VVVV;
	case PL_Z:
		return GF_OPCODE;
	default:
		return 0;
	}
}

unsigned insn_gpr_fields(const struct insn *in)
{
	unsigned fields = 0;

	for (unsigned i = 0; i < in->nops; i++)
		fields |= gpr_field(in, i);
	return fields;
}

u32 insn_gprs_read(const struct insn *in)
{
	u32 regs = 0;

	for (unsigned i = 0; i < in->nops; i++)
		if (gpr_field(in, i) && (in->op[i].access & OPA_READ || in->op[i].size < 4))
			regs |= BIT(in->op[i].reg);
	return regs;
}

u32 insn_gprs_written(const struct insn *in)
{
	u32 regs = 0;

	for (unsigned i = 0; i < in->nops; i++)
		if (gpr_field(in, i) && in->op[i].access & OPA_WRITE)
			regs |= BIT(in->op[i].reg);
	return regs;
}

bool insn_has_high8(const struct insn *in)
{
	for (unsigned i = 0; i < in->nops; i++)
		if (in->op[i].high8)
			return true;
	return false;
}

/* ---- the host's instruction ---- */

struct host_insn {
	u8 map, opcode, pp;
	bool vex, has_modrm, lock, p66, w;
	bool rex_required, rex_forbidden; /* by byte registers */
	u8 reg, rm, vvvv, opcode_reg;     /* 0..15; reg and rm also opcode extensions */
	u8 imm[8], imm_len;
	const struct hostmem *m;
};

/* In every mode one of the others' business: control flow, stack, strings, system. */
static bool is_expressible(const struct insn *in)
{
	u32 attr = in->desc->attr;

	if (in->desc->cls == IC_SYS || row_of(in)->enc & E_IMEM)
		return false;
	if (attr & (IA_BRANCH | IA_STRING | IA_DEF64))
		return false;
	if (in->id == INSN_MOVDIR64B)
		return false; /* a register operand is an address */
	return !(attr & IA_NO64) || in->id == INSN_INC || in->id == INSN_DEC || in->opcode == 0x82;
}

static bool w_bit(const struct insn *in)
{
	u32 enc = row_of(in)->enc;

	if (enc & (E_W0 | E_W1))
		return enc & E_W1;
	/* CRC32 with a byte source has two operand sizes. */
	return in->opsize == 8 || (in->opsize == 1 && in->op[0].kind == OPK_GPR && in->op[0].size == 8);
}

/* 66 only where it gives an operand 16 bits: elsewhere it could make another instruction (66 0F AE). */
static bool needs_66(const struct insn *in)
{
	u16 size = in->mem.size;

	if (in->opsize != 2)
		return false;
	if (in->desc->cls == IC_X87)
		return size == 14 || size == 94; /* FNSTENV, FNSAVE and their reverses */
	for (unsigned i = 0; i < in->nops; i++)
		if (in->op[i].size == 2)
			return in->desc->cls == IC_INT;
	return in->id == INSN_CBW || in->id == INSN_CWD;
}

/* The host register for general register operand op. */
static u8 renamed(struct host_insn *h, const struct insn_operand *op, const u8 map[16])
{
	u8 reg = map[op->reg];

	if (op->size != 1)
		return reg;
	if (op->high8) {
		h->rex_forbidden = true;
		h->rex_required |= reg > H_BX; /* has no high byte: refused later */
		return reg + 4;
	}
	h->rex_required |= byte_reg_needs_rex(reg);
	return reg;
}

/* Puts operand i where its place says. False: a vector index, or memory and no m. */
static bool put_operand(struct host_insn *h, const struct insn *in, unsigned i, const u8 map[16],
			const struct hostmem *m)
{
	const struct insn_operand *op = &in->op[i];
	u8 reg = op->kind == OPK_GPR && !op->implicit ? renamed(h, op, map) : op->reg;

	if (op->kind == OPK_MEM) {
		h->m = m;
		return m && !in->mem.vsib;
	}
	switch (place_of(in, i)) {
	case PL_Z:
		h->opcode_reg = reg;
		return true;
	case PL_G:
	case PL_V:
	case PL_P:
		h->reg = reg;
		return true;
	case PL_E:
	case PL_R:
	case PL_W:
	case PL_U:
	case PL_Q:
	case PL_N:
	case PL_STI:
		h->rm = reg;
		return true;
	case PL_H:
	case PL_BV:
		h->vvvv = reg;
		return true;
	case PL_L: /* bit 7 is ignored outside 64-bit mode (SDM 2A 2.3.8) */
		h->imm[0] = (u8)(reg << 4 | (h->imm[0] & 15));
		return true;
	default: /* immediates, fixed registers */
		return true;
	}
}

/* Forms that 64-bit mode or a renamed register asks for. */
static void adapt_one_byte(struct host_insn *h, const struct insn *in)
{
	switch (in->opcode) {
	case 0x40 ... 0x4f: /* INC, DEC r */
		h->opcode = 0xff;
		h->has_modrm = true;
		h->reg = in->id == INSN_DEC;
		h->rm = h->opcode_reg;
		h->opcode_reg = 0;
		break;
	case 0x82: /* ALU r/m8, imm8 once more */
		h->opcode = 0x80;
		break;
	case 0x90 ... 0x97: /* XCHG r, rAX: 90 would be NOP, F3 90 PAUSE */
		if (in->id != INSN_XCHG)
			break;
		h->pp = 0;
		h->opcode = 0x90;
		if (h->opcode_reg == H_AX) {
			h->opcode = 0x87;
			h->has_modrm = true;
		}
		break;
	case 0xa0 ... 0xa3: /* MOV rAX, moffs */
		h->opcode = 0x88 | (in->opcode & 1) | (in->opcode & 2 ? 0 : 2);
		h->has_modrm = true;
		break;
	case 0xb0 ... 0xbf: /* MOV r, imm */
		h->opcode &= 0xf8;
		break;
	}
}

static bool fill(struct host_insn *h, const struct insn *in, const u8 map[16], const struct hostmem *m)
{
	*h = (struct host_insn){
	    .map = in->map,
	    .opcode = in->opcode,
	    .pp = in->pp,
	    .vex = in->prefixes & PFX_VEX,
	    .has_modrm = in->modrm_off != 0,
	    .lock = in->prefixes & PFX_LOCK,
	    .p66 = needs_66(in),
	    .w = w_bit(in),
	    .reg = in->modrm >> 3 & 7,
	    .rm = in->modrm & 7,
	    .imm_len = in->imm_len,
	};
	memcpy(h->imm, in->bytes + in->imm_off, MIN(in->imm_len, sizeof(h->imm)));
	for (unsigned i = 0; i < in->nops; i++)
		if (!put_operand(h, in, i, map, m))
			return false;
	if (in->map == 0)
		adapt_one_byte(h, in);
	else if (in->id == INSN_BSWAP)
		h->opcode &= 0xf8;
	return true;
}

static u8 rex_bits(const struct host_insn *h)
{
	u8 rex = h->w ? REX_W : 0;

	if (h->has_modrm)
		rex |= (h->reg & 8 ? REX_R : 0) | (h->m ? mem_rex(h->m) : h->rm & 8 ? REX_B : 0);
	else
		rex |= h->opcode_reg & 8 ? REX_B : 0;
	return rex;
}

static unsigned put_vex(u8 *b, const struct host_insn *h, const struct insn *in, u8 rex)
{
	u8 last = (u8)((~h->vvvv & 15) << 3 | (in->vl & 1) << 2 | h->pp);

	if (h->map == 1 && !(rex & (REX_W | REX_X | REX_B))) {
		b[0] = 0xc5;
		b[1] = (u8)((rex & REX_R ? 0 : 0x80) | last);
		return 2;
	}
	b[0] = 0xc4;
	b[1] = (u8)((~rex & 7) << 5 | h->map);
	b[2] = (u8)((rex & REX_W ? 0x80 : 0) | last);
	return 3;
}

static unsigned put_legacy(u8 *b, const struct host_insn *h, u8 rex)
{
	static const u8 mandatory[4] = {0, PREFIX_66, 0xf3, 0xf2};
	unsigned n = 0;

	if (h->p66)
		b[n++] = PREFIX_66;
	if (h->pp)
		b[n++] = mandatory[h->pp];
	if (rex || h->rex_required)
		b[n++] = REX | rex;
	if (h->map)
		b[n++] = 0x0f;
	if (h->map >= 2)
		b[n++] = h->map == 2 ? 0x38 : 0x3a;
	return n;
}

bool reencode(struct emit *e, const struct insn *in, const u8 map[16], const struct hostmem *m, bool lock)
{
	u8 b[ENCODE_MAX + 8];
	struct host_insn h;
	unsigned n = 0;
	u8 rex = 0;

	if (!is_expressible(in))
		return false;
	if (in->id == INSN_NOP) {
		emit_u8(
		    e,
		    0x90); /* the hint space is full of what the host may know and the guest must not get */
		return true;
	}
	if (!fill(&h, in, map, m))
		return false;
	rex = rex_bits(&h);
	if (h.rex_forbidden && (rex || h.rex_required))
		return false;
	if (h.lock && lock)
		b[n++] = PREFIX_LOCK;
	if (h.m && h.m->gs)
		b[n++] = PREFIX_GS;
	n += h.vex ? put_vex(b + n, &h, in, rex) : put_legacy(b + n, &h, rex);
	b[n++] = (u8)(h.opcode | (h.has_modrm ? 0 : h.opcode_reg & 7));
	if (h.m)
		n += mem_encode(b + n, h.reg, h.m);
	else if (h.has_modrm)
		b[n++] = (u8)(0xc0 | (h.reg & 7) << 3 | (h.rm & 7));
	memcpy(b + n, h.imm, h.imm_len);
	emit_bytes(e, b, n + h.imm_len);
	return true;
}
