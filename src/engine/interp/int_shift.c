/* ROL ROR RCL RCR SHL SHR SAR, SHLD SHRD. */
#include "engine/interp/hostop.h"
#include "engine/interp/interp_int.h"

/* Count in CL, or in imm (also the 1 of D0, D1). The host masks it. */
#define SHIFT_FORM(fn, bits, host, count)                                                                        \
	static void fn##_r(struct vcpu *cpu, const struct iop *op)                                               \
	{                                                                                                        \
		u##bits r = host(&cpu->rflags, RD##bits(cpu, op->dst), count);                                   \
		WR##bits(cpu, op->dst, r);                                                                       \
		NEXT(cpu, op);                                                                                   \
	}                                                                                                        \
	static void fn##_m(struct vcpu *cpu, const struct iop *op)                                               \
	{                                                                                                        \
		gva_t a = iop_ea(cpu, op, bits / 8, true);                                                       \
		u##bits *p = mmu_rmw_ptr(cpu, a, bits / 8);                                                      \
		u64 fl = cpu->rflags;                                                                            \
		if (likely(p))                                                                                   \
			*p = host(&fl, *p, count);                                                               \
		else                                                                                             \
			rmw_end(cpu, a, host(&fl, rmw_begin(cpu, a, bits / 8, false), count), bits / 8, false);  \
		cpu->rflags = fl;                                                                                \
		NEXT(cpu, op);                                                                             \
	}
#define SHIFT_FORMS(name, bits)                                                                                  \
	SHIFT_FORM(name##bits##_i, bits, host_##name##bits, (u8)op->imm)                                         \
	SHIFT_FORM(name##bits##_c, bits, host_##name##bits, RD8(cpu, R_CX * 8))
#define SIZES(M, name) M(name, 8) M(name, 16) M(name, 32) M(name, 64)

SIZES(SHIFT_FORMS, rol)
SIZES(SHIFT_FORMS, ror)
SIZES(SHIFT_FORMS, rcl)
SIZES(SHIFT_FORMS, rcr)
SIZES(SHIFT_FORMS, shl)
SIZES(SHIFT_FORMS, shr)
SIZES(SHIFT_FORMS, sar)

/* [count in CL][memory] */
#define ROW(name, bits)                                                                                          \
	{ {name##bits##_i_r, name##bits##_i_m}, {name##bits##_c_r, name##bits##_c_m} }
#define ROWS(name) { ROW(name, 8), ROW(name, 16), ROW(name, 32), ROW(name, 64) }
static iop_fn *const shift_table[7][4][2][2] = {
	ROWS(rol), ROWS(ror), ROWS(rcl), ROWS(rcr), ROWS(shl), ROWS(shr), ROWS(sar),
};

static const u8 shift_of_id[INSN_COUNT] = {
	[INSN_ROL] = 0, [INSN_ROR] = 1, [INSN_RCL] = 2, [INSN_RCR] = 3,
	[INSN_SHL] = 4, [INSN_SHR] = 5, [INSN_SAR] = 6,
};

/* ---- double shifts ---- */

#define HOST_DOUBLE(name, bits, insn)                                                                            \
	static inline u##bits host_##name##bits(u64 *fl, u##bits a, u##bits b, u8 n)                             \
	{                                                                                                        \
		u32 ax = flags_to_ax(*fl);                                                                       \
		__asm__(LOAD_FLAGS insn " %%cl, %2, %1\n\t" SAVE_FLAGS                                           \
			: "+&a"(ax), "+r"(a) : "r"(b), "c"(n) : "cc");                                           \
		*fl = flags_merge(*fl, ax);                                                                      \
		return a;                                                                                        \
	}
#define HOST_DOUBLES(name, insn)                                                                                 \
	HOST_DOUBLE(name, 16, insn "w") HOST_DOUBLE(name, 32, insn "l") HOST_DOUBLE(name, 64, insn "q")
HOST_DOUBLES(shld, "shld")
HOST_DOUBLES(shrd, "shrd")

static u64 double_shift(u64 *fl, const struct iop *op, u64 a, u64 b, u8 n)
{
	if (op->aux[1])
		return op->size == 8 ? host_shld64(fl, a, b, n) : op->size == 4 ? host_shld32(fl, a, b, n)
										 : host_shld16(fl, a, b, n);
	return op->size == 8 ? host_shrd64(fl, a, b, n) : op->size == 4 ? host_shrd32(fl, a, b, n)
									 : host_shrd16(fl, a, b, n);
}

static u8 double_count(const struct vcpu *cpu, const struct iop *op)
{
	return op->aux[0] ? RD8(cpu, R_CX * 8) : (u8)op->imm;
}

static void double_r(struct vcpu *cpu, const struct iop *op)
{
	u64 a = gpr_read(cpu, op->dst, op->size), b = gpr_read(cpu, op->src, op->size);

	gpr_write(cpu, op->dst, double_shift(&cpu->rflags, op, a, b, double_count(cpu, op)), op->size);
	NEXT(cpu, op);
}

static void double_m(struct vcpu *cpu, const struct iop *op)
{
	gva_t a = iop_ea(cpu, op, op->size, true);
	u64 b = gpr_read(cpu, op->src, op->size), fl = cpu->rflags;
	u64 v = rmw_begin(cpu, a, op->size, false);

	rmw_end(cpu, a, double_shift(&fl, op, v, b, double_count(cpu, op)), op->size, false);
	cpu->rflags = fl;
	NEXT(cpu, op);
}

static bool compile_double(const struct insn *in, struct iop *op)
{
	bool mem = in->op[0].kind == OPK_MEM;

	op->size = in->op[0].size;
	if (!mem)
		op->dst = in->op[0].reg;
	op->src = in->op[1].reg;
	op->aux[0] = in->op[2].kind == OPK_GPR;
	op->aux[1] = in->id == INSN_SHLD;
	op->imm = in->imm;
	op->fn = mem ? double_m : double_r;
	return true;
}

bool compile_shift(struct vcpu *cpu, const struct insn *in, struct iop *op)
{
	const struct insn_operand *d = &in->op[0];
	bool by_cl = in->op[1].kind == OPK_GPR;

	if (in->id == INSN_SHLD || in->id == INSN_SHRD)
		return compile_double(in, op);
	op->size = d->size;
	if (d->kind == OPK_GPR)
		op->dst = reg_code(d);
	op->imm = in->imm;
	op->fn = shift_table[shift_of_id[in->id]][size_row(d->size)][by_cl][d->kind == OPK_MEM];
	return true;
}
