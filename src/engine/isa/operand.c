/*
 * The decoder's second half: sizes, memory and operands of the selected row.
 */
#include "engine/isa/decode_int.h"

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
static s64 sign_extend(u64 value, u8 size)
{
	u8 shift = 64 - 8 * size;

	return size ? (s64)(value << shift) >> shift : 0;
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

void decoder_set_sizes(struct decoder *d)
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
	d->out->mem.disp = sign_extend(decoder_take(d, size), size);
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

	out->sib = (u8)decoder_take(d, 1);
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

void decoder_implicit_mem(struct decoder *d)
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
	return decoder_take(d, size);
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
	out->mem.disp = (s64)decoder_take(d, out->adsize);
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

bool decoder_operands(struct decoder *d)
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
