/* MUL IMUL DIV IDIV. Division is checked first: the host's own #DE would be a signal. */
#include "engine/interp/hostop.h"
#include "engine/interp/interp_int.h"

/* rDX:rAX (AX for bytes) = rAX * src */
#define HOST_WIDEMUL(name, bits, insn)                                                                           \
	static inline void host_##name##bits(u64 *fl, u##bits *lo, u##bits *hi, u##bits src)                     \
	{                                                                                                        \
		u64 ax = *lo, f = flags_to_ax(*fl);                                                              \
		u##bits dx = 0;                                                                                  \
		__asm__("xchg %%rax, %2\n\t" LOAD_FLAGS "mov %2, %%rax\n\t" insn " %3\n\t"                       \
			"mov %%rax, %2\n\t" SAVE_FLAGS                                                           \
			: "+&a"(ax), "=&d"(dx), "+&r"(f) : "r"(src) : "cc");                                     \
		*fl = flags_merge(*fl, (u32)ax);                                                                 \
		*lo = (u##bits)f;                                                                                \
		*hi = dx;                                                                                        \
	}
HOST_WIDEMUL(mul, 16, "mulw")
HOST_WIDEMUL(mul, 32, "mull")
HOST_WIDEMUL(mul, 64, "mulq")
HOST_WIDEMUL(imul, 16, "imulw")
HOST_WIDEMUL(imul, 32, "imull")
HOST_WIDEMUL(imul, 64, "imulq")

#define HOST_BYTEMUL(name, insn)                                                                                 \
	static inline u16 host_##name##8(u64 *fl, u8 a, u8 src)                                                  \
	{                                                                                                        \
		u64 ax = a, f = flags_to_ax(*fl);                                                                \
		__asm__("xchg %%rax, %1\n\t" LOAD_FLAGS "mov %1, %%rax\n\t" insn " %2\n\t"                       \
			"mov %%rax, %1\n\t" SAVE_FLAGS : "+&a"(ax), "+&r"(f) : "r"(src) : "cc");                 \
		*fl = flags_merge(*fl, (u32)ax);                                                                 \
		return (u16)f;                                                                                   \
	}
HOST_BYTEMUL(mul, "mulb")
HOST_BYTEMUL(imul, "imulb")

#define HOST_IMUL2(bits, insn)                                                                                   \
	static inline u##bits host_imul2_##bits(u64 *fl, u##bits a, u##bits b)                                   \
	{                                                                                                        \
		u32 ax = flags_to_ax(*fl);                                                                       \
		__asm__(LOAD_FLAGS insn " %2, %1\n\t" SAVE_FLAGS : "+&a"(ax), "+r"(a) : "r"(b) : "cc");          \
		*fl = flags_merge(*fl, ax);                                                                      \
		return a;                                                                                        \
	}
HOST_IMUL2(16, "imulw")
HOST_IMUL2(32, "imull")
HOST_IMUL2(64, "imulq")

/* Source of the one-operand forms: aux[0] memory. */
#define SOURCE(bits) (op->aux[0] ? mmu_read##bits(cpu, iop_ea(cpu, op, bits / 8, false)) : RD##bits(cpu, op->src))

#define WIDEMUL(name, bits)                                                                                      \
	static void name##bits(struct vcpu *cpu, const struct iop *op)                                           \
	{                                                                                                        \
		u##bits s = SOURCE(bits), lo = RD##bits(cpu, R_AX), hi;                                          \
		host_##name##bits(&cpu->rflags, &lo, &hi, s);                                                    \
		WR##bits(cpu, R_AX, lo);                                                                         \
		WR##bits(cpu, R_DX, hi);                                                                         \
		NEXT(cpu, op);                                                                                   \
	}
#define BYTEMUL(name)                                                                                            \
	static void name##8(struct vcpu *cpu, const struct iop *op)                                              \
	{                                                                                                        \
		u8 s = SOURCE(8);                                                                                \
		WR16(cpu, R_AX, host_##name##8(&cpu->rflags, RD8(cpu, R_AX), s));                                \
		NEXT(cpu, op);                                                                                   \
	}
BYTEMUL(mul)
WIDEMUL(mul, 16)
WIDEMUL(mul, 32)
WIDEMUL(mul, 64)
BYTEMUL(imul)
WIDEMUL(imul, 16)
WIDEMUL(imul, 32)
WIDEMUL(imul, 64)

/* ---- division; the flags are undefined and stay ---- */

static void div8(struct vcpu *cpu, const struct iop *op)
{
	u8 s = SOURCE(8);
	u16 n = RD16(cpu, R_AX);

	if (!s || n / s > 0xff)
		cpu_raise(cpu, EXC_DE);
	WR16(cpu, R_AX, n / s | n % s << 8);
	NEXT(cpu, op);
}

static void idiv8(struct vcpu *cpu, const struct iop *op)
{
	int s = (s8)SOURCE(8), n = (s16)RD16(cpu, R_AX);

	if (!s || n / s != (s8)(n / s))
		cpu_raise(cpu, EXC_DE);
	WR16(cpu, R_AX, (u8)(n / s) | (u8)(n % s) << 8);
	NEXT(cpu, op);
}

static void div16(struct vcpu *cpu, const struct iop *op)
{
	u16 s = SOURCE(16);
	u32 n = (u32)RD16(cpu, R_DX) << 16 | RD16(cpu, R_AX);

	if (!s || n / s > 0xffff)
		cpu_raise(cpu, EXC_DE);
	WR16(cpu, R_AX, n / s);
	WR16(cpu, R_DX, n % s);
	NEXT(cpu, op);
}

static void idiv16(struct vcpu *cpu, const struct iop *op)
{
	s64 s = (s16)SOURCE(16), n = (s32)((u32)RD16(cpu, R_DX) << 16 | RD16(cpu, R_AX));

	if (!s || n / s != (s16)(n / s))
		cpu_raise(cpu, EXC_DE);
	WR16(cpu, R_AX, n / s);
	WR16(cpu, R_DX, n % s);
	NEXT(cpu, op);
}

static void div32(struct vcpu *cpu, const struct iop *op)
{
	u32 s = SOURCE(32);
	u64 n = (u64)RD32(cpu, R_DX) << 32 | RD32(cpu, R_AX);

	if (!s || n / s > 0xffffffff)
		cpu_raise(cpu, EXC_DE);
	WR32(cpu, R_AX, n / s);
	WR32(cpu, R_DX, n % s);
	NEXT(cpu, op);
}

static void idiv32(struct vcpu *cpu, const struct iop *op)
{
	s64 s = (s32)SOURCE(32), n = (u64)RD32(cpu, R_DX) << 32 | RD32(cpu, R_AX);

	if (!s || (n == INT64_MIN && s == -1) || n / s != (s32)(n / s))
		cpu_raise(cpu, EXC_DE);
	WR32(cpu, R_AX, n / s);
	WR32(cpu, R_DX, n % s);
	NEXT(cpu, op);
}

/* hi < s, so the quotient fits */
static u64 divide128(u64 hi, u64 lo, u64 s, u64 *rem)
{
	__asm__("divq %4" : "=a"(lo), "=d"(hi) : "0"(lo), "1"(hi), "r"(s) : "cc");
	*rem = hi;
	return lo;
}

static void div64(struct vcpu *cpu, const struct iop *op)
{
	u64 s = SOURCE(64), hi = cpu->gpr[R_DX], q, r;

	if (hi >= s) /* also s == 0 */
		cpu_raise(cpu, EXC_DE);
	q = divide128(hi, cpu->gpr[R_AX], s, &r);
	cpu->gpr[R_AX] = q;
	cpu->gpr[R_DX] = r;
	NEXT(cpu, op);
}

static void idiv64(struct vcpu *cpu, const struct iop *op)
{
	s64 s = SOURCE(64);
	unsigned __int128 n = (unsigned __int128)cpu->gpr[R_DX] << 64 | cpu->gpr[R_AX];
	bool neg = n >> 127, qneg = neg != (s < 0);
	u64 us = s < 0 ? -(u64)s : (u64)s, q, r;

	if (neg)
		n = -n;
	if ((u64)(n >> 64) >= us)
		cpu_raise(cpu, EXC_DE);
	q = divide128(n >> 64, (u64)n, us, &r);
	if (q > (qneg ? 1ull << 63 : (1ull << 63) - 1))
		cpu_raise(cpu, EXC_DE);
	cpu->gpr[R_AX] = qneg ? -q : q;
	cpu->gpr[R_DX] = neg ? -r : r;
	NEXT(cpu, op);
}

/* IMUL r, r/m and r, r/m, imm */
#define IMUL_FORMS(bits)                                                                                         \
	static void imul2_##bits(struct vcpu *cpu, const struct iop *op)                                         \
	{                                                                                                        \
		u##bits s = SOURCE(bits);                                                                        \
		u##bits r = host_imul2_##bits(&cpu->rflags, RD##bits(cpu, op->dst), s);                          \
		WR##bits(cpu, op->dst, r);                                                                       \
		NEXT(cpu, op);                                                                                   \
	}                                                                                                        \
	static void imul3_##bits(struct vcpu *cpu, const struct iop *op)                                         \
	{                                                                                                        \
		u##bits s = SOURCE(bits);                                                                        \
		u##bits r = host_imul2_##bits(&cpu->rflags, s, (u##bits)op->imm);                                \
		WR##bits(cpu, op->dst, r);                                                                       \
		NEXT(cpu, op);                                                                                   \
	}
IMUL_FORMS(16)
IMUL_FORMS(32)
IMUL_FORMS(64)

static iop_fn *const one_operand[4][4] = {
	{mul8, mul16, mul32, mul64},
	{imul8, imul16, imul32, imul64},
	{div8, div16, div32, div64},
	{idiv8, idiv16, idiv32, idiv64},
};
static iop_fn *const more_operands[2][3] = {{imul2_16, imul2_32, imul2_64}, {imul3_16, imul3_32, imul3_64}};

bool compile_muldiv(struct vcpu *cpu, const struct insn *in, struct iop *op)
{
	const struct insn_operand *s = &in->op[in->nops > 1];
	unsigned n = in->id == INSN_MUL ? 0 : in->id == INSN_IMUL ? 1 : in->id == INSN_DIV ? 2 : 3;

	op->size = s->size;
	op->aux[0] = s->kind == OPK_MEM;
	if (s->kind == OPK_GPR)
		op->src = reg_code(s);
	if (in->nops < 2) {
		op->fn = one_operand[n][size_row(s->size)];
		return true;
	}
	op->dst = in->op[0].reg;
	op->imm = in->imm;
	op->fn = more_operands[in->nops > 2][size_row(s->size) - 1];
	return true;
}
