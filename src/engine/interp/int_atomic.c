/* XCHG XADD CMPXCHG CMPXCHG8B CMPXCHG16B. */
#include "engine/interp/hostop.h"
#include "engine/interp/interp_int.h"

#define SIZES(M) M(8) M(16) M(32) M(64)

/* XCHG with memory is locked always. */
#define XCHG_FORMS(bits)                                                                                         \
	static void xchg##bits##_r(struct vcpu *cpu, const struct iop *op)                                       \
	{                                                                                                        \
		u##bits a = RD##bits(cpu, op->dst), b = RD##bits(cpu, op->src);                                  \
		WR##bits(cpu, op->dst, b);                                                                       \
		WR##bits(cpu, op->src, a);                                                                       \
		NEXT(cpu, op);                                                                                   \
	}                                                                                                        \
	static void xchg##bits##_m(struct vcpu *cpu, const struct iop *op)                                       \
	{                                                                                                        \
		gva_t a = iop_ea(cpu, op, bits / 8, true);                                                       \
		u##bits *p = mmu_rmw_ptr(cpu, a, bits / 8), v = RD##bits(cpu, op->src);                          \
		if (likely(p)) {                                                                                 \
			v = __atomic_exchange_n(p, v, __ATOMIC_SEQ_CST);                                         \
		} else {                                                                                         \
			u##bits old = rmw_begin(cpu, a, bits / 8, true);                                         \
			rmw_end(cpu, a, v, bits / 8, true);                                                      \
			v = old;                                                                                 \
		}                                                                                                \
		WR##bits(cpu, op->src, v);                                                                       \
		NEXT(cpu, op);                                                                             \
	}
SIZES(XCHG_FORMS)

#define XADD_FORMS(bits)                                                                                         \
	static void xadd##bits##_r(struct vcpu *cpu, const struct iop *op)                                       \
	{                                                                                                        \
		u##bits d = RD##bits(cpu, op->dst), s = RD##bits(cpu, op->src);                                  \
		u##bits r = host_add##bits(&cpu->rflags, d, s);                                                  \
		WR##bits(cpu, op->src, d);                                                                       \
		WR##bits(cpu, op->dst, r);                                                                       \
		NEXT(cpu, op);                                                                                   \
	}                                                                                                        \
	static void xadd##bits##_m(struct vcpu *cpu, const struct iop *op)                                       \
	{                                                                                                        \
		gva_t a = iop_ea(cpu, op, bits / 8, true);                                                       \
		u##bits *p = mmu_rmw_ptr(cpu, a, bits / 8), s = RD##bits(cpu, op->src), d;                       \
		bool lock = op->flags & IOP_LOCK;                                                                \
		u64 fl = cpu->rflags;                                                                            \
		if (likely(p)) {                                                                                 \
			d = lock ? __atomic_fetch_add(p, s, __ATOMIC_SEQ_CST) : *p;                              \
			s = host_add##bits(&fl, d, s);                                                           \
			if (!lock)                                                                               \
				*p = s;                                                                          \
		} else {                                                                                         \
			d = rmw_begin(cpu, a, bits / 8, lock);                                                   \
			rmw_end(cpu, a, host_add##bits(&fl, d, s), bits / 8, lock);                              \
		}                                                                                                \
		cpu->rflags = fl;                                                                                \
		WR##bits(cpu, op->src, d);                                                                       \
		NEXT(cpu, op);                                                                             \
	}
SIZES(XADD_FORMS)

/* The destination is written in any case (with its old value if unequal), so it must be writable. */
#define CMPXCHG_FORMS(bits)                                                                                      \
	static void cmpxchg##bits##_r(struct vcpu *cpu, const struct iop *op)                                    \
	{                                                                                                        \
		u##bits acc = RD##bits(cpu, R_AX), d = RD##bits(cpu, op->dst);                                   \
		host_cmp##bits(&cpu->rflags, acc, d);                                                            \
		if (acc == d)                                                                                    \
			WR##bits(cpu, op->dst, RD##bits(cpu, op->src));                                          \
		else                                                                                             \
			WR##bits(cpu, R_AX, d);                                                                  \
		NEXT(cpu, op);                                                                                   \
	}                                                                                                        \
	static void cmpxchg##bits##_m(struct vcpu *cpu, const struct iop *op)                                    \
	{                                                                                                        \
		gva_t a = iop_ea(cpu, op, bits / 8, true);                                                       \
		u##bits *p = mmu_rmw_ptr(cpu, a, bits / 8);                                                      \
		u##bits acc = RD##bits(cpu, R_AX), s = RD##bits(cpu, op->src), d = acc;                          \
		bool lock = op->flags & IOP_LOCK;                                                                \
		if (likely(p && lock)) {                                                                         \
			__atomic_compare_exchange_n(p, &d, s, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);        \
		} else if (likely(p)) {                                                                          \
			d = *p;                                                                                  \
			if (d == acc)                                                                            \
				*p = s;                                                                          \
		} else {                                                                                         \
			d = rmw_begin(cpu, a, bits / 8, lock);                                                   \
			rmw_end(cpu, a, d == acc ? s : d, bits / 8, lock);                                       \
		}                                                                                                \
		host_cmp##bits(&cpu->rflags, acc, d);                                                            \
		if (acc != d)                                                                                    \
			WR##bits(cpu, R_AX, d);                                                                  \
		NEXT(cpu, op);                                                                             \
	}
SIZES(CMPXCHG_FORMS)

#define ROW(bits)                                                                                                \
	{ {xchg##bits##_r, xchg##bits##_m}, {xadd##bits##_r, xadd##bits##_m}, {cmpxchg##bits##_r, cmpxchg##bits##_m} },
static iop_fn *const atomic_table[4][3][2] = {SIZES(ROW)};

static void set_zf(struct vcpu *cpu, bool zf)
{
	cpu->rflags = (cpu->rflags & ~(u64)FL_ZF) | (zf ? FL_ZF : 0);
}

static void cmpxchg8b(struct vcpu *cpu, const struct iop *op)
{
	gva_t a = iop_ea(cpu, op, 8, true);
	u64 *p = mmu_rmw_ptr(cpu, a, 8);
	u64 want = RD32(cpu, R_AX) | (u64)RD32(cpu, R_DX) << 32;
	u64 with = RD32(cpu, R_BX) | (u64)RD32(cpu, R_CX) << 32, old = want;

	if (likely(p)) {
		__atomic_compare_exchange_n(p, &old, with, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
	} else {
		old = rmw_begin(cpu, a, 8, true);
		rmw_end(cpu, a, old == want ? with : old, 8, true);
	}
	set_zf(cpu, old == want);
	if (old != want) {
		WR32(cpu, R_AX, old);
		WR32(cpu, R_DX, old >> 32);
	}
	NEXT(cpu, op);
}

/* Aligned, so never page-crossing; a NULL pointer means MMIO or a page without memory behind it. */
static void cmpxchg16b(struct vcpu *cpu, const struct iop *op)
{
	gva_t a = iop_ea(cpu, op, 16, true);
	u64 lo = cpu->gpr[R_AX], hi = cpu->gpr[R_DX], nlo = cpu->gpr[R_BX], nhi = cpu->gpr[R_CX];
	u64 *p;
	bool zf = false;

	if (a & 15)
		cpu_raise_gp(cpu, 0);
	p = mmu_rmw_ptr(cpu, a, 16);
	if (likely(p)) {
		__asm__ volatile("lock cmpxchg16b %1\n\tsete %0"
				 : "=q"(zf), "+m"(*(unsigned __int128 *)p), "+a"(lo), "+d"(hi)
				 : "b"(nlo), "c"(nhi)
				 : "cc", "memory");
	} else {
		u64 olo = rmw_begin(cpu, a, 8, false), ohi = mem_read(cpu, a + 8, 8);

		zf = olo == lo && ohi == hi;
		mem_write(cpu, a, zf ? nlo : olo, 8);
		mem_write(cpu, a + 8, zf ? nhi : ohi, 8);
		lo = olo;
		hi = ohi;
	}
	set_zf(cpu, zf);
	if (!zf) {
		cpu->gpr[R_AX] = lo;
		cpu->gpr[R_DX] = hi;
	}
	NEXT(cpu, op);
}

bool compile_atomic(struct vcpu *cpu, const struct insn *in, struct iop *op)
{
	const struct insn_operand *d = &in->op[0], *s = &in->op[1];
	unsigned n = in->id == INSN_XCHG ? 0 : in->id == INSN_XADD ? 1 : 2;

	if (in->id == INSN_CMPXCHG8B || in->id == INSN_CMPXCHG16B) {
		op->fn = in->id == INSN_CMPXCHG8B ? cmpxchg8b : cmpxchg16b;
		return true;
	}
	op->size = d->size;
	if (d->kind == OPK_GPR)
		op->dst = reg_code(d);
	op->src = reg_code(s);
	op->fn = atomic_table[size_row(d->size)][n][d->kind == OPK_MEM];
	return true;
}
