/* ADD OR ADC SBB AND SUB XOR CMP TEST, NOT NEG INC DEC: register, memory and immediate forms, locked ones too. */
#include "engine/interp/hostop.h"
#include "engine/interp/interp_int.h"

/* dst = dst op src, src being a register, immediate or memory */
#define REG_FORM(fn, bits, host, source)                                                                         \
	static void fn(struct vcpu *cpu, const struct iop *op)                                                   \
	{                                                                                                        \
		u##bits b = source;                                                                              \
		u##bits r = host(&cpu->rflags, RD##bits(cpu, op->dst), b);                                       \
		WR##bits(cpu, op->dst, r);                                                                       \
		NEXT(cpu, op);                                                                                   \
	}
#define MEM_FORM(fn, bits, host, source)                                                                         \
	static void fn(struct vcpu *cpu, const struct iop *op)                                                   \
	{                                                                                                        \
		gva_t a = iop_ea(cpu, op, bits / 8, true);                                                       \
		u##bits b = source;                                                                              \
		u##bits *p = mmu_rmw_ptr(cpu, a, bits / 8);                                                      \
		u64 fl = cpu->rflags;                                                                            \
		if (likely(p))                                                                                   \
			*p = host(&fl, *p, b);                                                                   \
		else                                                                                             \
			rmw_end(cpu, a, host(&fl, rmw_begin(cpu, a, bits / 8, false), b), bits / 8, false);       \
		cpu->rflags = fl;                                                                                \
		NEXT(cpu, op);                                                                             \
	}
#define LOCK_FORM(fn, bits, host, hostlock, source)                                                              \
	static void fn(struct vcpu *cpu, const struct iop *op)                                                   \
	{                                                                                                        \
		gva_t a = iop_ea(cpu, op, bits / 8, true);                                                       \
		u##bits b = source;                                                                              \
		u##bits *p = mmu_rmw_ptr(cpu, a, bits / 8);                                                      \
		u64 fl = cpu->rflags;                                                                            \
		if (likely(p))                                                                                   \
			hostlock(&fl, p, b);                                                                     \
		else                                                                                             \
			rmw_end(cpu, a, host(&fl, rmw_begin(cpu, a, bits / 8, true), b), bits / 8, true);         \
		cpu->rflags = fl;                                                                                \
		NEXT(cpu, op);                                                                             \
	}
#define COMPARE_FORM(fn, bits, host, first, second)                                                              \
	static void fn(struct vcpu *cpu, const struct iop *op)                                                   \
	{                                                                                                        \
		u##bits a = first;                                                                               \
		u##bits b = second;                                                                              \
		host(&cpu->rflags, a, b);                                                                        \
		NEXT(cpu, op);                                                                                   \
	}

#define SRC_REG(bits) RD##bits(cpu, op->src)
#define SRC_IMM(bits) (u##bits)op->imm
#define SRC_MEM(bits) mmu_read##bits(cpu, iop_ea(cpu, op, bits / 8, false))

#define BINARY_FORMS(name, bits)                                                                                 \
	REG_FORM(name##bits##_rr, bits, host_##name##bits, SRC_REG(bits))                                        \
	REG_FORM(name##bits##_ri, bits, host_##name##bits, SRC_IMM(bits))                                        \
	REG_FORM(name##bits##_rm, bits, host_##name##bits, SRC_MEM(bits))                                        \
	MEM_FORM(name##bits##_mr, bits, host_##name##bits, SRC_REG(bits))                                        \
	MEM_FORM(name##bits##_mi, bits, host_##name##bits, SRC_IMM(bits))                                        \
	LOCK_FORM(name##bits##_lock_mr, bits, host_##name##bits, host_lock_##name##bits, SRC_REG(bits))          \
	LOCK_FORM(name##bits##_lock_mi, bits, host_##name##bits, host_lock_##name##bits, SRC_IMM(bits))
#define COMPARE_FORMS(name, bits)                                                                                \
	COMPARE_FORM(name##bits##_rr, bits, host_##name##bits, RD##bits(cpu, op->dst), SRC_REG(bits))            \
	COMPARE_FORM(name##bits##_ri, bits, host_##name##bits, RD##bits(cpu, op->dst), SRC_IMM(bits))            \
	COMPARE_FORM(name##bits##_rm, bits, host_##name##bits, RD##bits(cpu, op->dst), SRC_MEM(bits))            \
	COMPARE_FORM(name##bits##_mr, bits, host_##name##bits, SRC_MEM(bits), SRC_REG(bits))                     \
	COMPARE_FORM(name##bits##_mi, bits, host_##name##bits, SRC_MEM(bits), SRC_IMM(bits))
#define SIZES(M, name) M(name, 8) M(name, 16) M(name, 32) M(name, 64)

SIZES(BINARY_FORMS, add)
SIZES(BINARY_FORMS, or)
SIZES(BINARY_FORMS, adc)
SIZES(BINARY_FORMS, sbb)
SIZES(BINARY_FORMS, and)
SIZES(BINARY_FORMS, sub)
SIZES(BINARY_FORMS, xor)
SIZES(COMPARE_FORMS, cmp)
SIZES(COMPARE_FORMS, test)

/* XOR r, r: the idiom for zero */
static void zero_reg(struct vcpu *cpu, const struct iop *op)
{
	cpu->rflags = (cpu->rflags & ~(u64)FL_ARITH) | FL_ZF | FL_PF;
	cpu->gpr[op->dst] = 0;
	NEXT(cpu, op);
}

enum alu_form { RR, RI, RM, MR, MI, LOCK_MR, LOCK_MI, FORMS };
enum alu_name { A_ADD, A_OR, A_ADC, A_SBB, A_AND, A_SUB, A_XOR, A_CMP, A_TEST, A_COUNT };

#define ROW_BINARY(name, bits)                                                                                   \
	{ name##bits##_rr, name##bits##_ri, name##bits##_rm, name##bits##_mr, name##bits##_mi,                   \
	  name##bits##_lock_mr, name##bits##_lock_mi }
#define ROW_COMPARE(name, bits)                                                                                  \
	{ name##bits##_rr, name##bits##_ri, name##bits##_rm, name##bits##_mr, name##bits##_mi }
#define ROWS(R, name) { R(name, 8), R(name, 16), R(name, 32), R(name, 64) }

static iop_fn *const alu_table[A_COUNT][4][FORMS] = {
	[A_ADD] = ROWS(ROW_BINARY, add),  [A_OR] = ROWS(ROW_BINARY, or),    [A_ADC] = ROWS(ROW_BINARY, adc),
	[A_SBB] = ROWS(ROW_BINARY, sbb),  [A_AND] = ROWS(ROW_BINARY, and),  [A_SUB] = ROWS(ROW_BINARY, sub),
	[A_XOR] = ROWS(ROW_BINARY, xor),  [A_CMP] = ROWS(ROW_COMPARE, cmp), [A_TEST] = ROWS(ROW_COMPARE, test),
};

static const u8 alu_of_id[INSN_COUNT] = {
	[INSN_ADD] = A_ADD, [INSN_OR] = A_OR,   [INSN_ADC] = A_ADC, [INSN_SBB] = A_SBB,  [INSN_AND] = A_AND,
	[INSN_SUB] = A_SUB, [INSN_XOR] = A_XOR, [INSN_CMP] = A_CMP, [INSN_TEST] = A_TEST,
};

bool compile_alu(struct vcpu *cpu, const struct insn *in, struct iop *op)
{
	const struct insn_operand *d = &in->op[0], *s = &in->op[1];
	bool lock = in->prefixes & PFX_LOCK;
	enum alu_form form = RR;

	op->size = d->size;
	if (s->kind == OPK_IMM)
		op->imm = in->imm;
	else if (s->kind == OPK_GPR)
		op->src = reg_code(s);
	if (d->kind == OPK_GPR) {
		op->dst = reg_code(d);
		form = s->kind == OPK_GPR ? RR : s->kind == OPK_IMM ? RI : RM;
	} else {
		form = s->kind == OPK_IMM ? (lock ? LOCK_MI : MI) : (lock ? LOCK_MR : MR);
	}
	op->fn = alu_table[alu_of_id[in->id]][size_row(d->size)][form];
	if (in->id == INSN_XOR && form == RR && op->dst == op->src && d->size >= 4)
		op->fn = zero_reg;
	return op->fn;
}

#define UNARY_FORMS(name, bits)                                                                                  \
	static void name##bits##_r(struct vcpu *cpu, const struct iop *op)                                       \
	{                                                                                                        \
		u##bits r = host_##name##bits(&cpu->rflags, RD##bits(cpu, op->dst));                             \
		WR##bits(cpu, op->dst, r);                                                                       \
		NEXT(cpu, op);                                                                                   \
	}                                                                                                        \
	static void name##bits##_m(struct vcpu *cpu, const struct iop *op)                                       \
	{                                                                                                        \
		gva_t a = iop_ea(cpu, op, bits / 8, true);                                                       \
		u##bits *p = mmu_rmw_ptr(cpu, a, bits / 8);                                                      \
		bool lock = op->flags & IOP_LOCK;                                                                \
		u64 fl = cpu->rflags;                                                                            \
		if (likely(p)) {                                                                                 \
			if (lock)                                                                                \
				host_lock_##name##bits(&fl, p);                                                  \
			else                                                                                     \
				*p = host_##name##bits(&fl, *p);                                                 \
		} else {                                                                                         \
			rmw_end(cpu, a, host_##name##bits(&fl, rmw_begin(cpu, a, bits / 8, lock)), bits / 8, lock); \
		}                                                                                                \
		cpu->rflags = fl;                                                                                \
		NEXT(cpu, op);                                                                             \
	}
SIZES(UNARY_FORMS, not)
SIZES(UNARY_FORMS, neg)
SIZES(UNARY_FORMS, inc)
SIZES(UNARY_FORMS, dec)

#define ROW_UNARY(name, bits) { name##bits##_r, name##bits##_m }
static iop_fn *const unary_table[4][4][2] = {
	ROWS(ROW_UNARY, not), ROWS(ROW_UNARY, neg), ROWS(ROW_UNARY, inc), ROWS(ROW_UNARY, dec),
};

bool compile_unary(struct vcpu *cpu, const struct insn *in, struct iop *op)
{
	const struct insn_operand *d = &in->op[0];
	unsigned n = in->id == INSN_NOT ? 0 : in->id == INSN_NEG ? 1 : in->id == INSN_INC ? 2 : 3;

	op->size = d->size;
	if (d->kind == OPK_GPR)
		op->dst = reg_code(d);
	op->fn = unary_table[n][size_row(d->size)][d->kind == OPK_MEM];
	return true;
}
