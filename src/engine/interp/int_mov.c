/* MOV LEA MOVZX MOVSX MOVSXD CBW CWD BSWAP MOVBE XLAT CMOVcc SETcc and the direct stores. */
#include "engine/interp/interp_int.h"

#define SIZES(M) M(8) M(16) M(32) M(64)
#define WIDE(M)  M(16) M(32) M(64)

#define MOV_FORMS(bits)                                                                                          \
	static void mov##bits##_rr(struct vcpu *cpu, const struct iop *op)                                       \
	{                                                                                                        \
		WR##bits(cpu, op->dst, RD##bits(cpu, op->src));                                                  \
		NEXT(cpu, op);                                                                                   \
	}                                                                                                        \
	static void mov##bits##_ri(struct vcpu *cpu, const struct iop *op)                                       \
	{                                                                                                        \
		WR##bits(cpu, op->dst, op->imm);                                                                 \
		NEXT(cpu, op);                                                                                   \
	}                                                                                                        \
	static void mov##bits##_rm(struct vcpu *cpu, const struct iop *op)                                       \
	{                                                                                                        \
		u##bits v = mmu_read##bits(cpu, iop_ea(cpu, op, bits / 8, false));                               \
		WR##bits(cpu, op->dst, v);                                                                       \
		NEXT(cpu, op);                                                                                   \
	}                                                                                                        \
	static void mov##bits##_mr(struct vcpu *cpu, const struct iop *op)                                       \
	{                                                                                                        \
		mmu_write##bits(cpu, iop_ea(cpu, op, bits / 8, true), RD##bits(cpu, op->src));                   \
		NEXT(cpu, op);                                                                             \
	}                                                                                                        \
	static void mov##bits##_mi(struct vcpu *cpu, const struct iop *op)                                       \
	{                                                                                                        \
		mmu_write##bits(cpu, iop_ea(cpu, op, bits / 8, true), (u##bits)op->imm);                         \
		NEXT(cpu, op);                                                                             \
	}
SIZES(MOV_FORMS)

/* MOV r, [base + disp] and back, the commonest forms */
#define MOV_BASE_FORMS(bits)                                                                                     \
	static void mov##bits##_rb(struct vcpu *cpu, const struct iop *op)                                       \
	{                                                                                                        \
		gva_t a = ((const u64 *)(const void *)cpu)[op->ea_base] + (u64)op->disp;                         \
		u##bits v = mmu_read##bits(cpu, a);                                                              \
		WR##bits(cpu, op->dst, v);                                                                       \
		NEXT(cpu, op);                                                                                   \
	}                                                                                                        \
	static void mov##bits##_br(struct vcpu *cpu, const struct iop *op)                                       \
	{                                                                                                        \
		gva_t a = ((const u64 *)(const void *)cpu)[op->ea_base] + (u64)op->disp;                         \
		mmu_write##bits(cpu, a, RD##bits(cpu, op->src));                                                 \
		NEXT(cpu, op);                                                                             \
	}
SIZES(MOV_BASE_FORMS)

#define ROW(bits) { mov##bits##_rr, mov##bits##_ri, mov##bits##_rm, mov##bits##_mr, mov##bits##_mi,              \
		    mov##bits##_rb, mov##bits##_br },
enum { RR, RI, RM, MR, MI, RB, BR, FORMS };
static iop_fn *const mov_table[4][FORMS] = {SIZES(ROW)};

#define LEA_FORMS(bits)                                                                                          \
	static void lea##bits(struct vcpu *cpu, const struct iop *op)                                            \
	{                                                                                                        \
		u64 a = iop_ea_offset(cpu, op);                                                                  \
		WR##bits(cpu, op->dst, a);                                                                       \
		NEXT(cpu, op);                                                                                   \
	}                                                                                                        \
	static void lea##bits##_b(struct vcpu *cpu, const struct iop *op)                                        \
	{                                                                                                        \
		u64 a = ((const u64 *)(const void *)cpu)[op->ea_base] + (u64)op->disp;                           \
		WR##bits(cpu, op->dst, a);                                                                       \
		NEXT(cpu, op);                                                                                   \
	}                                                                                                        \
	static void lea##bits##_bi(struct vcpu *cpu, const struct iop *op)                                       \
	{                                                                                                        \
		u64 a = ((const u64 *)(const void *)cpu)[op->ea_base] + (cpu->gpr[op->index & 15] << op->shift); \
		WR##bits(cpu, op->dst, a + (u64)op->disp);                                                       \
		NEXT(cpu, op);                                                                                   \
	}
WIDE(LEA_FORMS)

#define LEA_ROW(bits) { [EA_GENERIC] = lea##bits, [EA_BASE] = lea##bits##_b, [EA_BASE_INDEX] = lea##bits##_bi },
static iop_fn *const lea_table[3][3] = {WIDE(LEA_ROW)};

bool compile_mov(struct vcpu *cpu, const struct insn *in, struct iop *op)
{
	const struct insn_operand *d = &in->op[0], *s = &in->op[1];
	unsigned form = RR;

	op->size = d->size;
	if (d->kind == OPK_GPR)
		op->dst = reg_code(d);
	if (in->id == INSN_LEA) {
		op->fn = lea_table[size_row(d->size) - 1][op->ea_kind];
		return true;
	}
	if (s->kind == OPK_GPR)
		op->src = reg_code(s);
	else if (s->kind == OPK_IMM)
		op->imm = in->imm;
	if (d->kind == OPK_MEM)
		form = s->kind == OPK_IMM ? MI : op->ea_kind == EA_BASE ? BR : MR;
	else
		form = s->kind == OPK_IMM ? RI : s->kind == OPK_GPR ? RR : op->ea_kind == EA_BASE ? RB : RM;
	op->fn = mov_table[size_row(d->size)][form];
	return true;
}

/* ---- extension ---- */

#define EXT_FORMS(name, dbits, sbits, type)                                                                      \
	static void name##_##dbits##_##sbits##_r(struct vcpu *cpu, const struct iop *op)                         \
	{                                                                                                        \
		WR##dbits(cpu, op->dst, (type)RD##sbits(cpu, op->src));                                          \
		NEXT(cpu, op);                                                                                   \
	}                                                                                                        \
	static void name##_##dbits##_##sbits##_m(struct vcpu *cpu, const struct iop *op)                         \
	{                                                                                                        \
		u##sbits v = mmu_read##sbits(cpu, iop_ea(cpu, op, sbits / 8, false));                            \
		WR##dbits(cpu, op->dst, (type)v);                                                                \
		NEXT(cpu, op);                                                                                   \
	}
#define EXT_ROW(name, dbits, sbits) { name##_##dbits##_##sbits##_r, name##_##dbits##_##sbits##_m }

EXT_FORMS(zx, 16, 8, u8)
EXT_FORMS(zx, 32, 8, u8)
EXT_FORMS(zx, 64, 8, u8)
EXT_FORMS(zx, 16, 16, u16)
EXT_FORMS(zx, 32, 16, u16)
EXT_FORMS(zx, 64, 16, u16)
EXT_FORMS(sx, 16, 8, s8)
EXT_FORMS(sx, 32, 8, s8)
EXT_FORMS(sx, 64, 8, s8)
EXT_FORMS(sx, 16, 16, s16)
EXT_FORMS(sx, 32, 16, s16)
EXT_FORMS(sx, 64, 16, s16)
EXT_FORMS(sx, 16, 32, s32) /* MOVSXD with 66h: AMD reads four bytes all the same */
EXT_FORMS(sx, 32, 32, s32)
EXT_FORMS(sx, 64, 32, s32)

/* [source 1 2 4 bytes][destination 2 4 8 bytes][register, memory] */
static iop_fn *const zx_table[2][3][2] = {
	{EXT_ROW(zx, 16, 8), EXT_ROW(zx, 32, 8), EXT_ROW(zx, 64, 8)},
	{EXT_ROW(zx, 16, 16), EXT_ROW(zx, 32, 16), EXT_ROW(zx, 64, 16)},
};
static iop_fn *const sx_table[3][3][2] = {
	{EXT_ROW(sx, 16, 8), EXT_ROW(sx, 32, 8), EXT_ROW(sx, 64, 8)},
	{EXT_ROW(sx, 16, 16), EXT_ROW(sx, 32, 16), EXT_ROW(sx, 64, 16)},
	{EXT_ROW(sx, 16, 32), EXT_ROW(sx, 32, 32), EXT_ROW(sx, 64, 32)},
};

static void cbw(struct vcpu *cpu, const struct iop *op)
{
	s64 v = cpu->gpr[R_AX];

	if (op->size == 2)
		WR16(cpu, R_AX, (s8)v);
	else if (op->size == 4)
		WR32(cpu, R_AX, (s16)v);
	else
		WR64(cpu, R_AX, (s64)(s32)v);
	NEXT(cpu, op);
}

static void cwd(struct vcpu *cpu, const struct iop *op)
{
	s64 v = cpu->gpr[R_AX];

	if (op->size == 2)
		WR16(cpu, R_DX, (s16)v >> 15);
	else if (op->size == 4)
		WR32(cpu, R_DX, (s32)v >> 31);
	else
		WR64(cpu, R_DX, v >> 63);
	NEXT(cpu, op);
}

static void bswap32(struct vcpu *cpu, const struct iop *op)
{
	WR32(cpu, op->dst, __builtin_bswap32(RD32(cpu, op->dst)));
	NEXT(cpu, op);
}

static void bswap64(struct vcpu *cpu, const struct iop *op)
{
	WR64(cpu, op->dst, __builtin_bswap64(RD64(cpu, op->dst)));
	NEXT(cpu, op);
}

/* BSWAP r16 is undefined; every CPU clears the word (APM 3). */
static void bswap16(struct vcpu *cpu, const struct iop *op)
{
	WR16(cpu, op->dst, 0);
	NEXT(cpu, op);
}

static u64 swapped(u64 v, unsigned size)
{
	return __builtin_bswap64(v) >> (64 - 8 * size);
}

static void movbe_load(struct vcpu *cpu, const struct iop *op)
{
	u64 v = mem_read(cpu, iop_ea(cpu, op, op->size, false), op->size);

	gpr_write(cpu, op->dst, swapped(v, op->size), op->size);
	NEXT(cpu, op);
}

static void movbe_store(struct vcpu *cpu, const struct iop *op)
{
	u64 v = gpr_read(cpu, op->src, op->size);

	mem_write(cpu, iop_ea(cpu, op, op->size, true), swapped(v, op->size), op->size);
	NEXT(cpu, op);
}

static void xlat(struct vcpu *cpu, const struct iop *op)
{
	u64 off = cpu->gpr[R_BX] + RD8(cpu, 0);
	gva_t a;

	off = op->asize == 8 ? off : op->asize == 4 ? (u32)off : (u16)off;
	a = cpu->mode.long64 && op->seg < SEG_FS ? off
	    : cpu->mode.long64			 ? off + cpu->seg[op->seg].base
						 : seg_linear(cpu, op->seg, off, 1, false);
	WR8(cpu, 0, mmu_read8(cpu, a));
	NEXT(cpu, op);
}

/* MOVDIR64B: 64 bytes to ES:reg, which must be aligned. */
static void movdir64b(struct vcpu *cpu, const struct iop *op)
{
	u8 data[64];
	u64 off = cpu->gpr[op->dst];
	gva_t to;

	off = op->asize == 8 ? off : op->asize == 4 ? (u32)off : (u16)off;
	if (off & 63)
		cpu_raise_gp(cpu, 0);
	to = cpu->mode.long64 ? off : seg_linear(cpu, SEG_ES, off, 64, true);
	mmu_read_slow(cpu, iop_ea(cpu, op, 64, false), data, 64, cpu->mode.mmu_idx);
	mmu_write_slow(cpu, to, data, 64, cpu->mode.mmu_idx);
	NEXT(cpu, op);
}

bool compile_ext(struct vcpu *cpu, const struct insn *in, struct iop *op)
{
	const struct insn_operand *d = &in->op[0], *s = &in->op[1];
	unsigned mem = s->kind == OPK_MEM;

	switch (in->id) {
	case INSN_CBW:
		op->fn = cbw;
		return true;
	case INSN_CWD:
		op->fn = cwd;
		return true;
	case INSN_XLAT:
		op->seg = in->mem.seg;
		op->fn = xlat;
		return true;
	case INSN_MOVDIR64B:
		op->dst = d->reg;
		op->fn = movdir64b;
		return true;
	default:
		break;
	}
	op->size = d->size;
	if (d->kind == OPK_GPR)
		op->dst = reg_code(d);
	if (in->nops > 1 && s->kind == OPK_GPR)
		op->src = reg_code(s);
	if (in->id == INSN_BSWAP)
		op->fn = d->size == 8 ? bswap64 : d->size == 4 ? bswap32 : bswap16;
	else if (in->id == INSN_MOVBE)
		op->fn = d->kind == OPK_MEM ? movbe_store : movbe_load;
	else if (in->id == INSN_MOVZX)
		op->fn = zx_table[s->size == 2][size_row(d->size) - 1][mem];
	else
		op->fn = sx_table[in->id == INSN_MOVSXD ? 2 : size_row(s->size)][size_row(d->size) - 1][mem];
	return true;
}

/* ---- conditions ---- */

/* A 32-bit CMOV with a false condition still clears the upper half. */
#define CMOV_FORMS(bits)                                                                                         \
	static void cmov##bits##_r(struct vcpu *cpu, const struct iop *op)                                       \
	{                                                                                                        \
		u##bits v = cond_true(cpu->rflags, op->aux[0]) ? RD##bits(cpu, op->src) : RD##bits(cpu, op->dst); \
		WR##bits(cpu, op->dst, v);                                                                       \
		NEXT(cpu, op);                                                                                   \
	}                                                                                                        \
	static void cmov##bits##_m(struct vcpu *cpu, const struct iop *op)                                       \
	{                                                                                                        \
		u##bits v = mmu_read##bits(cpu, iop_ea(cpu, op, bits / 8, false));                               \
		if (!cond_true(cpu->rflags, op->aux[0]))                                                         \
			v = RD##bits(cpu, op->dst);                                                              \
		WR##bits(cpu, op->dst, v);                                                                       \
		NEXT(cpu, op);                                                                                   \
	}
WIDE(CMOV_FORMS)
#define CMOV_ROW(bits) { cmov##bits##_r, cmov##bits##_m },
static iop_fn *const cmov_table[3][2] = {WIDE(CMOV_ROW)};

static void setcc_r(struct vcpu *cpu, const struct iop *op)
{
	WR8(cpu, op->dst, cond_true(cpu->rflags, op->aux[0]));
	NEXT(cpu, op);
}

static void setcc_m(struct vcpu *cpu, const struct iop *op)
{
	mmu_write8(cpu, iop_ea(cpu, op, 1, true), cond_true(cpu->rflags, op->aux[0]));
	NEXT(cpu, op);
}

bool compile_cmov(struct vcpu *cpu, const struct insn *in, struct iop *op)
{
	op->aux[0] = in->cond;
	op->size = in->op[0].size;
	if (in->op[0].kind == OPK_GPR)
		op->dst = reg_code(&in->op[0]);
	if (in->id == INSN_SETCC) {
		op->fn = in->op[0].kind == OPK_MEM ? setcc_m : setcc_r;
		return true;
	}
	if (in->op[1].kind == OPK_GPR)
		op->src = reg_code(&in->op[1]);
	op->fn = cmov_table[size_row(op->size) - 1][in->op[1].kind == OPK_MEM];
	return true;
}
