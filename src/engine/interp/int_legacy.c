/* What 64-bit mode dropped: BCD arithmetic, BOUND, ARPL. */
#include "engine/interp/hostop.h"
#include "engine/interp/interp_int.h"

/* SF ZF PF of a byte result; the rest of the arithmetic flags as given. */
static void set_flags(struct vcpu *cpu, u8 result, bool cf, bool af)
{
	u64 fl = 0;

	host_test8(&fl, result, result);
	cpu->rflags = (cpu->rflags & ~(u64)FL_ARITH) | (fl & (FL_SF | FL_ZF | FL_PF)) | (cf ? FL_CF : 0) |
		      (af ? FL_AF : 0);
}

static void decimal_adjust(struct vcpu *cpu, bool subtract)
{
	u8 al = RD8(cpu, 0), old = al;
	bool cf = cpu->rflags & FL_CF, af = cpu->rflags & FL_AF, borrow = cf;

	af = (al & 15) > 9 || af;
	if (af) {
		borrow = cf || (subtract ? al < 6 : al > 0xf9);
		al = subtract ? al - 6 : al + 6;
	} else {
		borrow = false;
	}
	cf = old > 0x99 || cf;
	if (cf)
		al = subtract ? al - 0x60 : al + 0x60;
	WR8(cpu, 0, al);
	set_flags(cpu, al, subtract ? cf || borrow : cf, af);
}

static void daa(struct vcpu *cpu, const struct iop *op)
{
	decimal_adjust(cpu, false);
	NEXT(cpu, op);
}

static void das(struct vcpu *cpu, const struct iop *op)
{
	decimal_adjust(cpu, true);
	NEXT(cpu, op);
}

/* AAA and AAS: aux[0] subtract */
static void ascii_adjust(struct vcpu *cpu, const struct iop *op)
{
	bool adjust = (RD8(cpu, 0) & 15) > 9 || (cpu->rflags & FL_AF);

	if (adjust)
		WR16(cpu, R_AX, op->aux[0] ? RD16(cpu, R_AX) - 0x106 : RD16(cpu, R_AX) + 0x106);
	WR8(cpu, 0, RD8(cpu, 0) & 15);
	set_flags(cpu, RD8(cpu, 0), adjust, adjust);
	NEXT(cpu, op);
}

static void aam(struct vcpu *cpu, const struct iop *op)
{
	u8 al = RD8(cpu, 0), base = op->imm;

	if (!base)
		cpu_raise(cpu, EXC_DE);
	WR16(cpu, R_AX, (al / base) << 8 | al % base);
	set_flags(cpu, al % base, false, false);
	NEXT(cpu, op);
}

static void aad(struct vcpu *cpu, const struct iop *op)
{
	u8 al = RD8(cpu, 0) + RD8(cpu, 1) * (u8)op->imm;

	WR16(cpu, R_AX, al);
	set_flags(cpu, al, false, false);
	NEXT(cpu, op);
}

/* Two accesses, each with its own checks: the second may wrap around. */
static void bound(struct vcpu *cpu, const struct iop *op)
{
	struct iop upper = *op;
	s64 low, high, v;

	upper.disp += op->size;
	low = (s64)mem_read(cpu, iop_ea(cpu, op, op->size, false), op->size);
	high = (s64)mem_read(cpu, iop_ea(cpu, &upper, op->size, false), op->size);
	if (op->size == 4) {
		low = (s32)low;
		high = (s32)high;
		v = (s32)cpu->gpr[op->dst];
	} else {
		low = (s16)low;
		high = (s16)high;
		v = (s16)cpu->gpr[op->dst];
	}
	if (v < low || v > high)
		cpu_raise(cpu, EXC_BR);
	NEXT(cpu, op);
}

/* Reads first, and writes only what changes. */
static void arpl(struct vcpu *cpu, const struct iop *op)
{
	gva_t a = op->aux[0] ? iop_ea(cpu, op, 2, false) : 0;
	u16 d = op->aux[0] ? mem_read(cpu, a, 2) : RD16(cpu, op->dst), s = RD16(cpu, op->src);
	bool raise_rpl = (d & 3) < (s & 3);

	if (raise_rpl && op->aux[0])
		mem_write(cpu, iop_ea(cpu, op, 2, true), (d & ~3u) | (s & 3), 2);
	else if (raise_rpl)
		WR16(cpu, op->dst, (d & ~3u) | (s & 3));
	cpu->rflags = (cpu->rflags & ~(u64)FL_ZF) | (raise_rpl ? FL_ZF : 0);
	NEXT(cpu, op);
}

bool compile_legacy(struct vcpu *cpu, const struct insn *in, struct iop *op)
{
	op->size = in->opsize;
	op->imm = in->imm;
	switch (in->id) {
	case INSN_DAA:
		op->fn = daa;
		break;
	case INSN_DAS:
		op->fn = das;
		break;
	case INSN_AAA:
	case INSN_AAS:
		op->aux[0] = in->id == INSN_AAS;
		op->fn = ascii_adjust;
		break;
	case INSN_AAM:
		op->fn = aam;
		break;
	case INSN_AAD:
		op->fn = aad;
		break;
	case INSN_BOUND:
		op->dst = in->op[0].reg;
		op->fn = bound;
		break;
	default:
		op->aux[0] = in->op[0].kind == OPK_MEM;
		op->dst = in->op[0].reg;
		op->src = in->op[1].reg;
		op->fn = arpl;
		break;
	}
	return true;
}
