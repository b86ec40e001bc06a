/*
 * The decoder: bytes to struct insn, driven by the table. Pure; reads at most n bytes.
 */
#include "engine/isa/decode_int.h"

/* ---- prefixes, opcode ---- */

enum { BYTE_OPCODE, BYTE_SEG, BYTE_REX, BYTE_66, BYTE_67, BYTE_LOCK, BYTE_F2, BYTE_F3 };

static const u8 byte_kind[256] = {
    [0x26] = BYTE_SEG, [0x2e] = BYTE_SEG,  [0x36] = BYTE_SEG,          [0x3e] = BYTE_SEG,
    [0x64] = BYTE_SEG, [0x65] = BYTE_SEG,  [0x40 ... 0x4f] = BYTE_REX, [0x66] = BYTE_66,
    [0x67] = BYTE_67,  [0xf0] = BYTE_LOCK, [0xf2] = BYTE_F2,           [0xf3] = BYTE_F3,
};

static void segment_prefix(struct decoder *d, u8 byte)
{
	u8 seg = byte < 0x64 ? (byte >> 3) & 3 : SEG_FS + (byte & 1);

	d->out->prefixes |= PFX_SEG;
	/* ES, CS, SS and DS overrides are ignored in 64-bit mode and do not undo an FS or GS one before. */
	if (d->mode != INSN_MODE_64 || seg >= SEG_FS)
		d->seg = seg;
}

static void parse_prefixes(struct decoder *d)
{
	struct insn *out = d->out;

	for (; d->pos < d->limit; d->pos++) {
		u8 byte = d->p[d->pos];

		switch (byte_kind[byte]) {
		case BYTE_OPCODE:
			return;
		case BYTE_REX:
			if (d->mode != INSN_MODE_64)
				return;
			/* Counts only directly before the opcode: whatever prefix follows takes it back. */
			out->rex = byte & 15;
			out->prefixes |= PFX_REX;
			continue;
		case BYTE_SEG:
			segment_prefix(d, byte);
			break;
		case BYTE_66:
			out->prefixes |= PFX_OPSIZE;
			break;
		case BYTE_67:
			out->prefixes |= PFX_ADSIZE;
			break;
		case BYTE_LOCK:
			out->prefixes |= PFX_LOCK;
			break;
		case BYTE_F2:
			out->prefixes = (out->prefixes & ~PFX_REP) | PFX_REPNE;
			d->rep = 3;
			break;
		case BYTE_F3:
			out->prefixes = (out->prefixes & ~PFX_REPNE) | PFX_REP;
			d->rep = 2;
			break;
		}
		out->rex = 0;
		out->prefixes &= ~PFX_REX;
	}
}

/* C4 or C5 at pos with its payload available: sets map and pp. */
static bool parse_vex(struct decoder *d, u8 first)
{
	struct insn *out = d->out;
	u8 b1 = (u8)decoder_take(d, 1), b2 = b1;

	if (out->prefixes & (PFX_LOCK | PFX_REPNE | PFX_REP | PFX_OPSIZE | PFX_REX))
		return false;
	out->map = 1;
	out->rex = (~b1 >> 5) & 4;
	if (first == 0xc4) {
		b2 = (u8)decoder_take(d, 1);
		out->map = b1 & 31;
		out->rex = ((~b1 >> 5) & 7) | (b2 >> 4 & 8);
	}
	if (d->mode != INSN_MODE_64)
		out->rex &= 8;
	out->vvvv = ~b2 >> 3 & 15;
	out->vl = b2 >> 2 & 1;
	out->pp = b2 & 3;
	out->prefixes |= PFX_VEX;
	return out->map >= 1 && out->map <= 3;
}

static bool vex_follows(const struct decoder *d, u8 byte)
{
	if ((byte & 0xfe) != 0xc4)
		return false;
	/* Outside 64-bit mode C4 and C5 are LES and LDS unless the ModRM byte would name a register. */
	return d->mode == INSN_MODE_64 || (d->pos < d->limit && d->p[d->pos] >= 0xc0);
}

static enum table_space parse_opcode(struct decoder *d)
{
	struct insn *out = d->out;
	u8 byte = (u8)decoder_take(d, 1);

	if (vex_follows(d, byte)) {
		if (!parse_vex(d, byte))
			return SP_COUNT;
		out->opcode = (u8)decoder_take(d, 1);
		return SP_V0F + out->map - 1;
	}
	out->pp = d->rep ? d->rep : (out->prefixes & PFX_OPSIZE) != 0;
	if (byte == 0x0f) {
		byte = (u8)decoder_take(d, 1);
		out->map = 1;
		if (byte == 0x38 || byte == 0x3a) {
			out->map = byte == 0x38 ? 2 : 3;
			byte = (u8)decoder_take(d, 1);
		}
	}
	out->opcode = byte;
	return (enum table_space)out->map;
}

/* ---- row selection ---- */

static bool row_fits(const struct decoder *d, const struct insn_row *row)
{
	const struct insn *out = d->out;
	u32 enc = row->enc, attr = row->d.attr;
	bool w = (out->rex & 8) && (!(enc & E_WG) || d->mode == INSN_MODE_64);
	bool is_reg = out->modrm >= 0xc0;

	if (attr & (d->mode == INSN_MODE_64 ? IA_NO64 : IA_ONLY64))
		return false;
	if (!(enc & (E_MEM | E_REG | E_L0 | E_L1 | E_W0 | E_W1 | E_NOB)))
		return true;
	return !(enc & (is_reg ? E_MEM : E_REG) || enc & (out->vl ? E_L0 : E_L1) || enc & (w ? E_W0 : E_W1) ||
		 (enc & E_NOB && out->rex & 1));
}

static bool select_row(struct decoder *d, enum table_space space)
{
	struct insn *out = d->out;
	u16 cell = insn_level1[space][out->opcode][out->pp];
	const struct insn_row *row = &insn_rows[cell];
	bool modrm = cell & GROUP_FLAG || row->d.attr & IA_MODRM;

	if (!cell)
		return false;
	if (modrm) {
		out->modrm_off = d->pos;
		out->modrm = (u8)decoder_take(d, 1);
		if (d->overrun)
			return true; /* judged by the caller */
	}
	if (cell & GROUP_FLAG) {
		u8 reg = out->modrm >> 3 & 7;
		u8 sub = out->modrm >= 0xc0 ? 1 + (out->modrm & 7) : 0;

		cell = insn_level2[cell & ~GROUP_FLAG][out->pp][reg * 9 + sub];
		if (!cell)
			return false;
		row = &insn_rows[cell];
	}
	while (!row_fits(d, row)) {
		if (!(row->enc & E_OR))
			return false;
		row--;
	}
	d->row = row;
	out->pp = row->enc & E_PP;
	return true;
}

/* ---- the whole ---- */

static bool rules_hold(const struct decoder *d)
{
	const struct insn *out = d->out;

	if (out->prefixes & PFX_LOCK && (!(out->desc->attr & IA_LOCKABLE) || out->op[0].kind != OPK_MEM))
		return false;
	if (d->row->enc & E_DISTINCT)
		return out->op[0].reg != out->op[2].reg && out->op[0].reg != out->mem.index &&
		       out->op[2].reg != out->mem.index;
	return true;
}

static enum insn_error decode(struct decoder *d)
{
	struct insn *out = d->out;
	enum table_space space = SP_M1;

	parse_prefixes(d);
	space = parse_opcode(d);
	if (d->overrun)
		return INSN_NEED_MORE;
	if (space == SP_COUNT || !select_row(d, space))
		return INSN_UD;
	if (d->overrun)
		return INSN_NEED_MORE;
	decoder_set_sizes(d);
	out->desc = &d->row->d;
	if (d->row->enc & E_CC)
		out->cond = out->opcode & 15;
	if (d->row->enc & E_IMEM)
		decoder_implicit_mem(d);
	if (!decoder_operands(d))
		return INSN_UD;
	if (d->overrun)
		return INSN_NEED_MORE;
	if (!rules_hold(d))
		return INSN_UD;
	if (d->row->enc & E_CNT0 && !(out->imm & (out->opsize == 8 ? 63 : 31)))
		out->desc = &d->row[-1].d;
	out->id = out->desc->id;
	return INSN_OK;
}

/* In words: without vector registers the compiler would make it a slow string store. */
static void clear(struct insn *out)
{
	u64 *word = (u64 *)out;

	_Static_assert(sizeof(*out) % sizeof(*word) == 0, "cleared in words");
#pragma GCC unroll 16
	for (size_t i = 0; i < sizeof(*out) / sizeof(*word); i++)
		word[i] = 0;
}

/* The out->len bytes at p, zeros after them. */
static void keep_bytes(struct insn *out, const u8 *p, size_t n)
{
	u64 low = 0, high = 0;

	if (n < INSN_MAX_LEN) {
		memcpy(out->bytes, p, out->len);
		return;
	}
	memcpy(&low, p, 8);
	memcpy(&high, p + 7, 8);
	high >>= 8;
	if (out->len <= 8) {
		high = 0;
		low = out->len == 8 ? low : low & ((1ull << 8 * out->len) - 1);
	} else {
		high &= (1ull << 8 * (out->len - 8)) - 1;
	}
	memcpy(out->bytes, &low, 8);
	memcpy(out->bytes + 8, &high, 7);
}

enum insn_error insn_decode(const u8 *p, size_t n, enum insn_mode mode, struct insn *out)
{
	struct decoder d = {.p = p,
			    .limit = n < INSN_MAX_LEN ? (u8)n : INSN_MAX_LEN,
			    .mode = mode,
			    .seg = INSN_NO_REG,
			    .out = out};
	enum insn_error err = INSN_OK;

	clear(out);
	err = decode(&d);
	out->len = d.pos;
	keep_bytes(out, p, n);
	if (err == INSN_NEED_MORE && n >= INSN_MAX_LEN)
		return INSN_TOO_LONG;
	return err;
}

const char *insn_name(enum insn_id id)
{
	static const char *const names[INSN_COUNT] = {
	    [INSN_INVALID] = "(invalid)",
#define INSN(name) [INSN_##name] = #name,
#include "engine/isa/mnemonics.inc"
#undef INSN
	};

	return (unsigned)id < INSN_COUNT ? names[id] : names[INSN_INVALID];
}
