/*
 * The decoder: bytes to struct insn, driven by the table. Pure; reads at most n bytes.
 */
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

/* Bytes by size code and column. Registers and memory differ where an instruction touches part of a register.
 */
static const u8 reg_size[SZ_NUM][3] = {
    [SZ_B] = {1, 1, 1},      [SZ_W] = {2, 2, 2},       [SZ_D] = {4, 4, 4},      [SZ_Q] = {8, 8, 8},
    [SZ_T] = {10, 10, 10},   [SZ_V] = {2, 4, 8},       [SZ_Z] = {2, 4, 4},      [SZ_Y] = {4, 4, 8},
    [SZ_DB] = {4, 4, 4},     [SZ_DW] = {4, 4, 4},      [SZ_VW] = {2, 4, 8},     [SZ_ZW] = {2, 4, 4},
    [SZ_ZD] = {2, 4, 4},     [SZ_DQ] = {16, 16, 16},   [SZ_QQ] = {32, 32, 32},  [SZ_SS] = {16, 16, 16},
    [SZ_SD] = {16, 16, 16},  [SZ_VB] = {16, 16, 16},   [SZ_VWD] = {16, 16, 16}, [SZ_X & 63] = {16, 32},
    [SZ_HX & 63] = {16, 16}, [SZ_QX & 63] = {16, 16},  [SZ_OX & 63] = {16, 16}, [SZ_DDUP & 63] = {16, 32},
    [SZ_M & 63] = {4, 8},    [SZ_AD & 63] = {2, 4, 8},
};

static const u16 mem_size[SZ_NUM][3] = {
    [SZ_B] = {1, 1, 1},      [SZ_W] = {2, 2, 2},        [SZ_D] = {4, 4, 4},
    [SZ_Q] = {8, 8, 8},      [SZ_T] = {10, 10, 10},     [SZ_V] = {2, 4, 8},
    [SZ_Z] = {2, 4, 4},      [SZ_Y] = {4, 4, 8},        [SZ_P] = {4, 6, FAR_POINTER_64 ? 10 : 6},
    [SZ_A] = {4, 8, 8},      [SZ_DB] = {1, 1, 1},       [SZ_DW] = {2, 2, 2},
    [SZ_VW] = {2, 2, 2},     [SZ_ZW] = {2, 2, 2},       [SZ_ZD] = {4, 4, 4},
    [SZ_ENV] = {14, 28, 28}, [SZ_FPU] = {94, 108, 108}, [SZ_FXS] = {512, 512, 512},
    [SZ_64B] = {64, 64, 64}, [SZ_DQ] = {16, 16, 16},    [SZ_QQ] = {32, 32, 32},
    [SZ_SS] = {4, 4, 4},     [SZ_SD] = {8, 8, 8},       [SZ_VB] = {1, 1, 1},
    [SZ_VWD] = {2, 2, 2},    [SZ_X & 63] = {16, 32},    [SZ_HX & 63] = {8, 16},
    [SZ_QX & 63] = {4, 8},   [SZ_OX & 63] = {2, 4},     [SZ_DDUP & 63] = {8, 32},
    [SZ_S & 63] = {6, 10},
};

static u8 size_reg(const struct decoder *d, u8 code)
{
	return reg_size[code & 63][d->col[code >> 6]];
}

static u16 size_mem(const struct decoder *d, u8 code)
{
	return mem_size[code & 63][d->col[code >> 6]];
}

/* Little-endian value of size bytes; past the limit: 0, with overrun noted. */
static u64 take(struct decoder *d, u8 size)
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

static s64 sign_extend(u64 value, u8 size)
{
	u8 shift = 64 - 8 * size;

	return size ? (s64)(value << shift) >> shift : 0;
}

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
	u8 b1 = (u8)take(d, 1), b2 = b1;

	if (out->prefixes & (PFX_LOCK | PFX_REPNE | PFX_REP | PFX_OPSIZE | PFX_REX))
		return false;
	out->map = 1;
	out->rex = (~b1 >> 5) & 4;
	if (first == 0xc4) {
		b2 = (u8)take(d, 1);
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
	u8 byte = (u8)take(d, 1);

	if (vex_follows(d, byte)) {
		if (!parse_vex(d, byte))
			return SP_COUNT;
		out->opcode = (u8)take(d, 1);
		return SP_V0F + out->map - 1;
	}
	out->pp = d->rep ? d->rep : (out->prefixes & PFX_OPSIZE) != 0;
	if (byte == 0x0f) {
		byte = (u8)take(d, 1);
		out->map = 1;
		if (byte == 0x38 || byte == 0x3a) {
			out->map = byte == 0x38 ? 2 : 3;
			byte = (u8)take(d, 1);
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
		out->modrm = (u8)take(d, 1);
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

/* ---- sizes ---- */

static u8 operand_size(const struct decoder *d)
{
	const struct insn *out = d->out;
	u32 attr = d->row->d.attr;
	bool p66 = out->prefixes & PFX_OPSIZE;

	if (out->prefixes & PFX_VEX)
		return d->mode == INSN_MODE_64 && out->rex & 8 ? 8 : 4;
	/* A 66h that selected the row says nothing about the size. */
	if (d->row->ops && (d->row->enc & E_PP) == 1)
		p66 = false;
	if (d->mode != INSN_MODE_64 && d->row->enc & E_MODIGN)
		return 4;
	if (d->mode != INSN_MODE_64)
		return (d->mode == INSN_MODE_32) != p66 ? 4 : 2;
	if (out->rex & 8)
		return d->row->enc & E_NOW ? 4 : 8;
	if (attr & IA_DEF64)
		return p66 && !(attr & IA_FORCE64) ? 2 : 8;
	return p66 ? 2 : 4;
}

static u8 address_size(const struct decoder *d)
{
	bool p67 = d->out->prefixes & PFX_ADSIZE;

	if (d->mode == INSN_MODE_64)
		return p67 ? 4 : 8;
	return (d->mode == INSN_MODE_32) != p67 ? 4 : 2;
}

static void set_sizes(struct decoder *d)
{
	struct insn *out = d->out;

	out->opsize = operand_size(d);
	out->adsize = address_size(d);
	d->col[BY_OPSIZE] = out->opsize >> 2;
	d->col[BY_VL] = out->vl;
	d->col[BY_MODE] = d->mode == INSN_MODE_64;
	d->col[BY_ADSIZE] = out->adsize >> 2;
	if (d->row->enc & E_B)
		out->opsize = 1;
	else if (d->row->enc & E_Y)
		out->opsize = size_reg(d, SZ_Y);
}

/* ---- memory ---- */

static void take_disp(struct decoder *d, u8 size)
{
	d->out->disp_off = d->pos;
	d->out->disp_len = size;
	d->out->mem.disp = sign_extend(take(d, size), size);
}

/* 16-bit addressing: base and index register of each ModRM.rm. */
static const u8 addr16[8][2] = {{3, 6},           {3, 7},           {5, 6},           {5, 7},
				{6, INSN_NO_REG}, {7, INSN_NO_REG}, {5, INSN_NO_REG}, {3, INSN_NO_REG}};

static void parse_mem16(struct decoder *d, u8 mod, u8 rm)
{
	struct insn_mem *mem = &d->out->mem;

	mem->base = addr16[rm][0];
	mem->index = addr16[rm][1];
	if (mod == 0 && rm == 6)
		mem->base = INSN_NO_REG;
	if (mem->base == 5)
		mem->seg = SEG_SS;
	if (mod == 1)
		take_disp(d, 1);
	else if (mod == 2 || mem->base == INSN_NO_REG)
		take_disp(d, 2);
}

static void parse_sib(struct decoder *d, u8 mod)
{
	struct insn *out = d->out;
	struct insn_mem *mem = &out->mem;
	u8 base = 0, index = 0;

	out->sib = (u8)take(d, 1);
	base = out->sib & 7;
	index = (out->sib >> 3 & 7) | (out->rex << 2 & 8);
	if (index != 4 || mem->vsib)
		mem->index = index;
	mem->scale = 1 << (out->sib >> 6);
	if (base == 5 && mod == 0)
		take_disp(d, 4);
	else
		mem->base = base | (out->rex << 3 & 8);
}

static void parse_mem(struct decoder *d, u8 size, bool vsib)
{
	struct insn *out = d->out;
	struct insn_mem *mem = &out->mem;
	u8 mod = out->modrm >> 6, rm = out->modrm & 7;

	mem->seg = SEG_DS;
	mem->base = INSN_NO_REG;
	mem->index = INSN_NO_REG;
	mem->scale = 1;
	mem->vsib = vsib;
	mem->size = size_mem(d, size);
	if (out->adsize == 2) {
		parse_mem16(d, mod, rm);
	} else {
		if (rm == 4) {
			parse_sib(d, mod);
		} else if (rm == 5 && mod == 0) {
			mem->rip_relative = d->mode == INSN_MODE_64;
			take_disp(d, 4);
		} else {
			mem->base = rm | (out->rex << 3 & 8);
		}
		if (mem->base == 4 || mem->base == 5)
			mem->seg = SEG_SS;
		if (mod)
			take_disp(d, mod == 1 ? 1 : 4);
	}
	if (d->seg != INSN_NO_REG)
		mem->seg = d->seg;
}

/* Memory of string instructions and their like, described in insn.mem though no operand says so. */
static void implicit_mem(struct decoder *d)
{
	static const u8 base[8] = {0, 6, 7, 7, 3, 0, 0, 0};
	struct insn *out = d->out;
	u32 kind = d->row->enc & E_IMEM;

	out->mem.base = base[kind / E_SI];
	out->mem.index = INSN_NO_REG;
	out->mem.scale = 1;
	out->mem.size = kind == E_AX ? 0 : kind == E_DDI ? (out->desc->cls == IC_MMX ? 8 : 16) : out->opsize;
	out->mem.seg = kind == E_DI ? SEG_ES : d->seg != INSN_NO_REG ? d->seg : SEG_DS;
}

/* ---- operands ---- */

static void put_gpr(const struct decoder *d, struct insn_operand *op, u8 reg, u8 size)
{
	op->kind = OPK_GPR;
	op->reg = reg;
	op->size = size;
	if (size == 1 && reg >= 4 && reg < 8 && !(d->out->prefixes & (PFX_REX | PFX_VEX))) {
		op->reg = reg - 4;
		op->high8 = true;
	}
}

static void put_vec(struct insn_operand *op, u8 reg, u8 size)
{
	op->kind = size == 32 ? OPK_YMM : OPK_XMM;
	op->reg = reg;
	op->size = size;
}

static void put_reg(struct insn_operand *op, u8 kind, u8 reg, u8 size)
{
	op->kind = kind;
	op->reg = reg;
	op->size = size;
}

static u64 take_imm(struct decoder *d, u8 size)
{
	if (!d->out->imm_len)
		d->out->imm_off = d->pos;
	d->out->imm_len += size;
	return take(d, size);
}

static void put_imm(struct decoder *d, struct insn_operand *op, u8 place, u8 arg)
{
	struct insn *out = d->out;
	u8 size = size_reg(d, arg);

	op->kind = OPK_IMM;
	op->size = size;
	switch (place) {
	case PL_I:
		out->imm = take_imm(d, size);
		break;
	case PL_SI:
		out->imm = (u64)sign_extend(take_imm(d, size), size);
		op->size = out->opsize;
		break;
	case PL_I2:
		out->imm2 = take_imm(d, size);
		break;
	case PL_ONE:
		out->imm = 1;
		op->implicit = true;
		break;
	case PL_J:
		op->kind = OPK_REL;
		out->imm = (u64)sign_extend(take_imm(d, size), size);
		break;
	default: /* PL_AP */
		op->kind = OPK_FAR;
		op->size = size_mem(d, SZ_P);
		out->imm = take_imm(d, op->size - 2);
		out->imm2 = take_imm(d, 2);
		break;
	}
}

static void put_moffs(struct decoder *d, struct insn_operand *op, u8 arg)
{
	struct insn *out = d->out;

	op->kind = OPK_MEM;
	op->size = (u8)size_mem(d, arg);
	out->mem.seg = d->seg != INSN_NO_REG ? d->seg : SEG_DS;
	out->mem.base = INSN_NO_REG;
	out->mem.index = INSN_NO_REG;
	out->mem.scale = 1;
	out->mem.size = op->size;
	out->disp_off = d->pos;
	out->disp_len = out->adsize;
	out->mem.disp = (s64)take(d, out->adsize);
}

/* The operand ModRM.rm names: a register of the place's file, or memory. */
static bool put_rm(struct decoder *d, struct insn_operand *op, u8 place, u8 arg)
{
	struct insn *out = d->out;
	u8 rm = out->modrm & 7, full = rm | (out->rex << 3 & 8);
	bool is_reg = out->modrm >= 0xc0 || d->row->enc & E_MODIGN;

	if (!is_reg) {
		if (place == PL_R || place == PL_U || place == PL_N || place == PL_STI)
			return false;
		if (place == PL_VM && (rm != 4 || out->adsize == 2))
			return false; /* a vector index needs a SIB byte */
		parse_mem(d, arg, place == PL_VM);
		op->kind = OPK_MEM;
		op->size = out->mem.size > 255 ? 0 : (u8)out->mem.size;
		return true;
	}
	switch (place) {
	case PL_E:
	case PL_R:
		put_gpr(d, op, full, size_reg(d, arg));
		return true;
	case PL_W:
	case PL_U:
		put_vec(op, full, size_reg(d, arg));
		return true;
	case PL_Q:
	case PL_N:
		put_reg(op, OPK_MMX, rm, 8);
		return true;
	case PL_STI:
		put_reg(op, OPK_ST, rm, 10);
		return true;
	default: /* PL_M, PL_VM */
		return false;
	}
}

/* The operand ModRM.reg names. */
static bool put_modrm_reg(struct decoder *d, struct insn_operand *op, u8 place, u8 arg)
{
	struct insn *out = d->out;
	u8 low = out->modrm >> 3 & 7, full = low | (out->rex << 1 & 8);

	switch (place) {
	case PL_G:
		put_gpr(d, op, full, size_reg(d, arg));
		return true;
	case PL_V:
		put_vec(op, full, size_reg(d, arg));
		return true;
	case PL_P:
		put_reg(op, OPK_MMX, low, 8);
		return true;
	case PL_S:
		put_reg(op, OPK_SREG, low, 2);
		return low <= SEG_GS && !(low == SEG_CS && op->access & OPA_WRITE);
	case PL_C:
		put_reg(op, OPK_CR, full, size_reg(d, arg));
		return full == 0 || (full >= 2 && full <= 4) || full == 8;
	default: /* PL_D */
		put_reg(op, OPK_DR, full, size_reg(d, arg));
		return full < 8;
	}
}

static bool put_operand(struct decoder *d, struct insn_operand *op, u16 spec)
{
	struct insn *out = d->out;
	u8 place = OS_PLACE(spec), arg = OS_ARG(spec);
	u8 high = d->mode == INSN_MODE_64 ? 15 : 7;

	switch (place) {
	case PL_Z:
		put_gpr(d, op, (out->opcode & 7) | (out->rex << 3 & 8), size_reg(d, arg));
		return true;
	case PL_FIX:
		put_reg(op, OPK_GPR, arg >> 4, size_reg(d, arg & 15));
		op->implicit = true;
		return true;
	case PL_SEGFIX:
		put_reg(op, OPK_SREG, arg, 2);
		op->implicit = true;
		return true;
	case PL_ST0:
		put_reg(op, OPK_ST, 0, 10);
		op->implicit = true;
		return true;
	case PL_XMM0:
		put_reg(op, OPK_XMM, 0, 16);
		op->implicit = true;
		return true;
	case PL_I:
	case PL_SI:
	case PL_I2:
	case PL_ONE:
	case PL_J:
	case PL_AP:
		put_imm(d, op, place, arg);
		return true;
	case PL_O:
		put_moffs(d, op, arg);
		return true;
	case PL_H:
		put_vec(op, out->vvvv & high, size_reg(d, arg));
		return true;
	case PL_BV:
		put_gpr(d, op, out->vvvv & high, size_reg(d, arg));
		return true;
	case PL_L:
		out->imm = take_imm(d, 1);
		put_vec(op, out->imm >> 4 & high, size_reg(d, arg));
		return true;
	case PL_G:
	case PL_V:
	case PL_P:
	case PL_S:
	case PL_C:
	case PL_D:
		return put_modrm_reg(d, op, place, arg);
	default:
		return put_rm(d, op, place, arg);
	}
}

static bool put_operands(struct decoder *d)
{
	struct insn *out = d->out;
	u64 specs = d->row->ops;
	u8 access = d->row->acc;
	bool vvvv_used = false;

	for (; specs; specs >>= 16, access >>= 2) {
		struct insn_operand *op = &out->op[out->nops++];
		u8 place = OS_PLACE(specs);

		op->access = access & 3;
		vvvv_used |= place == PL_H || place == PL_BV;
		if (!put_operand(d, op, (u16)specs))
			return false;
	}
	return !(out->prefixes & PFX_VEX) || vvvv_used || out->vvvv == 0;
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
	set_sizes(d);
	out->desc = &d->row->d;
	if (d->row->enc & E_CC)
		out->cond = out->opcode & 15;
	if (d->row->enc & E_IMEM)
		implicit_mem(d);
	if (!put_operands(d))
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
