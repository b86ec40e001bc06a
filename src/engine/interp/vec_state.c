/*
 * Instructions that move whole state: FXSAVE, FXRSTOR, the XSAVE family, LDMXCSR, STMXCSR. The host does the
 * work on a private area limited to the guest's components; what may be stored, and what must fault, is
 * decided here (SDM 1 10.5, 13.7 - 13.12). AVX is the only extended component and the first, so the compacted
 * layout is the standard one.
 */
#include "engine/interp/vec_int.h"
#include "engine/lib/lib.h"

#define CR0_EM        BIT(2)
#define CR0_TS        BIT(3)
#define CR4_OSFXSR    BIT(9)
#define CR4_OSXSAVE   BIT(18)
#define XCOMP_COMPACT BIT64(63)
#define FSW_ES        BIT(7)

enum save_kind { SK_XSAVE, SK_XSAVEOPT, SK_XSAVEC };

static bool is64(const struct vcpu *cpu)
{
	return cpu->mode.code == INSN_MODE_64;
}

/* The area of the host's FXSAVE64 with the guest's x87 pointers, in the form of the operand size. */
static void patch_pointers(struct vcpu *cpu, struct fx_area *fx, bool wide)
{
	const struct vec_state *vs = vs_of(cpu);
	bool kept = vs->fx_pointers || (fx->fsw & FSW_ES);

	fx->fop = kept ? vs->fop : 0;
	fx->fip = kept ? vs->fip : 0;
	fx->fdp = kept ? vs->fdp : 0;
	if (wide)
		return;
	fx->fip = kept ? (u32)vs->fip | (u64)(vs->saves_selectors ? vs->fcs : 0) << 32 : 0;
	fx->fdp = kept ? (u32)vs->fdp | (u64)(vs->saves_selectors ? vs->fds : 0) << 32 : 0;
}

/* Loaded whether an exception is pending or not; only the stores depend on it. */
static void adopt_pointers(struct vcpu *cpu, const struct fx_area *fx, bool wide)
{
	struct vec_state *vs = vs_of(cpu);

	vs->fop = fx->fop & 0x7ff;
	vs->fip = wide ? fx->fip : fx->fip32;
	vs->fdp = wide ? fx->fdp : fx->fdp32;
	vs->fcs = wide ? 0 : fx->fcs;
	vs->fds = wide ? 0 : fx->fds;
}

static void host_xsave(struct xsave_area *xs, u64 mask)
{
	memset(&xs->xstate_bv, 0, XSAVE_HEADER);
	__asm__ volatile("xsave64 %0" : "+m"(*xs) : "a"((u32)mask), "d"(0) : "memory");
}

/* ---- FXSAVE, FXRSTOR ---- */
static void check_fx(struct vcpu *cpu)
{
	if (cpu->cr0 & (CR0_EM | CR0_TS))
		cpu_raise(cpu, EXC_NM);
}

static gva_t aligned_area(struct vcpu *cpu, const struct iop *op, unsigned size, unsigned align, bool write)
{
	gva_t a = iop_ea(cpu, op, size, write);

	if (a & (align - 1)) {
		if (align == 16) /* #AC or #GP: SDM leaves it open, AMD has #AC for FXSAVE and FXRSTOR if not
				    on 4 bytes */
			vec_check_align(cpu, a, 4);
		cpu_raise_gp(cpu, 0);
	}
	return a;
}

/* Bytes 464-511 are the program's own; outside 64-bit mode XMM8-15 are not stored. */
static __attribute__((noinline)) void do_fxsave(struct vcpu *cpu, const struct iop *op)
{
	struct fx_area *fx = &vs_of(cpu)->xs.fx;
	unsigned size = is64(cpu) ? offsetof(struct fx_area, unused) : offsetof(struct fx_area, xmm[8]);
	gva_t a = 0;

	check_fx(cpu);
	a = aligned_area(cpu, op, XSAVE_LEGACY, 16, true);
	mmu_probe(cpu, a, XSAVE_LEGACY, ACC_WRITE, cpu->mode.mmu_idx);
	__asm__ volatile("fxsave64 %0" : "=m"(*fx));
	patch_pointers(cpu, fx, op->aux[AUX_VL]);
	vec_copy_out(cpu, a, fx, size);
}

static __attribute__((noinline)) void do_fxrstor(struct vcpu *cpu, const struct iop *op)
{
	struct vec_state *vs = vs_of(cpu);
	struct fx_area *fx = &vs->xs.fx;
	bool wide = op->aux[AUX_VL];
	gva_t a = 0;

	check_fx(cpu);
	a = aligned_area(cpu, op, XSAVE_LEGACY, 16, false);
	if (!is64(cpu)) /* XMM8-15 keep their values */
		__asm__ volatile("fxsave64 %0" : "=m"(*fx));
	vec_copy_in(cpu, a, fx, is64(cpu) ? XSAVE_LEGACY : offsetof(struct fx_area, xmm[8]));
	if (fx->mxcsr & ~vs->mxcsr_mask)
		cpu_raise_gp(cpu, 0);
	adopt_pointers(cpu, fx, wide);
	__asm__ volatile("fxrstor64 %0" : : "m"(*fx) : "memory");
}

/* ---- XSAVE ---- */
static u64 check_xsave(struct vcpu *cpu, const struct iop *op)
{
	if (!(cpu->cr4 & CR4_OSXSAVE))
		cpu_raise(cpu, EXC_UD);
	if (cpu->cr0 & CR0_TS)
		cpu_raise(cpu, EXC_NM);
	if ((op->desc->attr & IA_PRIV) && cpu->mode.cpl != 0)
		cpu_raise_gp(cpu, 0);
	return cpu->xcr0 & ((u32)cpu->gpr[R_AX] | cpu->gpr[R_DX] << 32); /* IA32_XSS is 0 */
}

static unsigned area_size(u64 rfbm)
{
	return rfbm & XS_AVX ? XSAVE_SIZE : XSAVE_LEGACY + XSAVE_HEADER;
}

/* Pieces of the area that a component owns. */
static void store_components(struct vcpu *cpu, gva_t a, const struct xsave_area *xs, u64 parts, bool mxcsr)
{
	unsigned regs = is64(cpu) ? 16 : 8;

	if (parts & XS_X87) {
		vec_copy_out(cpu, a, xs, offsetof(struct fx_area, mxcsr));
		vec_copy_out(cpu, a + offsetof(struct fx_area, st), xs->fx.st, sizeof(xs->fx.st));
	}
	if (mxcsr)
		vec_copy_out(cpu, a + offsetof(struct fx_area, mxcsr), &xs->fx.mxcsr, 8);
	if (parts & XS_SSE)
		vec_copy_out(cpu, a + offsetof(struct fx_area, xmm), xs->fx.xmm, 16 * regs);
	if (parts & XS_AVX)
		vec_copy_out(cpu, a + XSAVE_AVX, xs->ymm_high, 16 * regs);
}

static __attribute__((noinline)) void do_xsave(struct vcpu *cpu, const struct iop *op)
{
	struct xsave_area *xs = &vs_of(cpu)->xs;
	u64 rfbm = check_xsave(cpu, op), parts = rfbm, header[2] = {0, rfbm | XCOMP_COMPACT};
	unsigned kind = op->aux[AUX_ELEM], size = area_size(rfbm);
	bool mxcsr = false;
	gva_t a = aligned_area(cpu, op, size, 64, true);

	mmu_probe(cpu, a, size, ACC_WRITE, cpu->mode.mmu_idx);
	if (kind != SK_XSAVEC) {
		vec_copy_in(cpu, a + XSAVE_LEGACY, header, 8);
		header[0] &= ~rfbm; /* bits of components not asked for stay */
	}
	host_xsave(xs, rfbm);
	if (rfbm & XS_X87)
		patch_pointers(cpu, &xs->fx, op->aux[AUX_VL]);
	header[0] |= xs->xstate_bv & rfbm;
	if (kind == SK_XSAVEC && (rfbm & XS_SSE) && xs->fx.mxcsr != MXCSR_DEFAULT)
		header[0] |= XS_SSE; /* SDM 1 13.10 */
	if (kind != SK_XSAVE)
		parts &= header[0];
	mxcsr = kind == SK_XSAVEC ? parts & XS_SSE : rfbm & (XS_SSE | XS_AVX);
	store_components(cpu, a, xs, parts, mxcsr);
	vec_copy_out(cpu, a + XSAVE_LEGACY, header, kind == SK_XSAVEC ? 16 : 8);
}

/* ---- XRSTOR ---- */
/* #GP(0) for a header that the instruction refuses (SDM 1 13.8). */
static void check_header(struct vcpu *cpu, const struct iop *op, const struct xsave_area *xs)
{
	u64 bad = 0;
	bool compact = xs->xcomp_bv & XCOMP_COMPACT;

	if (compact && cpu_has(cpu, FEAT_XSAVEC)) {
		bad = (xs->xcomp_bv & ~XCOMP_COMPACT & ~cpu->xcr0) | (xs->xstate_bv & ~xs->xcomp_bv) |
		      (xs->xstate_bv & XCOMP_COMPACT);
		for (unsigned i = 0; i < ARRAY_SIZE(xs->header_rsvd); i++)
			bad |= xs->header_rsvd[i];
	} else {
		bad = xs->xcomp_bv | xs->header_rsvd[0] | (xs->xstate_bv & ~cpu->xcr0);
	}
	if (bad || (op->aux[AUX_INDEX] && !compact))
		cpu_raise_gp(cpu, 0);
}

/* Outside 64-bit mode registers 8-15 keep their values: they are put where the host instruction will take
 * them from. */
static void keep_high_registers(struct xsave_area *xs, struct xsave_area *live, u64 rfbm)
{
	host_xsave(live, XS_SSE | XS_AVX);
	if (!(live->xstate_bv & XS_SSE))
		memset(live->fx.xmm, 0, sizeof(live->fx.xmm));
	if (!(live->xstate_bv & XS_AVX))
		memset(live->ymm_high, 0, sizeof(live->ymm_high));
	if ((rfbm & XS_SSE) && (xs->xstate_bv | live->xstate_bv) & XS_SSE) {
		if (!(xs->xstate_bv & XS_SSE)) {
			memset(xs->fx.xmm, 0, 16 * 8);
			if (xs->xcomp_bv)
				xs->fx.mxcsr = MXCSR_DEFAULT;
		}
		memcpy(xs->fx.xmm[8], live->fx.xmm[8], 16 * 8);
		xs->xstate_bv |= XS_SSE;
	}
	if ((rfbm & XS_AVX) && (xs->xstate_bv | live->xstate_bv) & XS_AVX) {
		if (!(xs->xstate_bv & XS_AVX))
			memset(xs->ymm_high, 0, 16 * 8);
		memcpy(xs->ymm_high[8], live->ymm_high[8], 16 * 8);
		xs->xstate_bv |= XS_AVX;
	}
	if (xs->xcomp_bv)
		xs->xcomp_bv |= xs->xstate_bv;
}

static __attribute__((noinline)) void do_xrstor(struct vcpu *cpu, const struct iop *op)
{
	struct vec_state *vs = vs_of(cpu);
	struct xsave_area *xs = &vs->xs;
	u64 rfbm = check_xsave(cpu, op);
	bool compact = false, mxcsr = false;
	gva_t a = aligned_area(cpu, op, XSAVE_LEGACY + XSAVE_HEADER, 64, false);

	vec_copy_in(cpu, a, xs, XSAVE_LEGACY + XSAVE_HEADER);
	check_header(cpu, op, xs);
	compact = xs->xcomp_bv & XCOMP_COMPACT;
	if (rfbm & xs->xstate_bv & XS_AVX)
		vec_copy_in(cpu, a + XSAVE_AVX, xs->ymm_high, sizeof(xs->ymm_high));
	mxcsr = compact ? rfbm & xs->xstate_bv & XS_SSE : rfbm & (XS_SSE | XS_AVX);
	if (mxcsr && (xs->fx.mxcsr & ~vs->mxcsr_mask))
		cpu_raise_gp(cpu, 0);
	if (rfbm & XS_X87) {
		if (xs->xstate_bv & XS_X87)
			adopt_pointers(cpu, &xs->fx, op->aux[AUX_VL]);
		else
			vs->fip = vs->fdp = vs->fop = vs->fcs = vs->fds = 0;
	}
	if (!is64(cpu))
		keep_high_registers(xs, (struct xsave_area *)(vs->bounce + 2048), rfbm);
	__asm__ volatile("xrstor64 %0" : : "m"(*xs), "a"((u32)rfbm), "d"(0) : "memory");
}

/* ---- MXCSR ---- */
static void check_sse(struct vcpu *cpu)
{
	if ((cpu->cr0 & CR0_EM) || !(cpu->cr4 & CR4_OSFXSR))
		cpu_raise(cpu, EXC_UD);
	if (cpu->cr0 & CR0_TS)
		cpu_raise(cpu, EXC_NM);
}

static void check_avx(struct vcpu *cpu)
{
	if (!(cpu->cr4 & CR4_OSXSAVE) || (cpu->xcr0 & (XS_SSE | XS_AVX)) != (XS_SSE | XS_AVX))
		cpu_raise(cpu, EXC_UD);
	if (cpu->cr0 & CR0_TS)
		cpu_raise(cpu, EXC_NM);
}

static __attribute__((noinline)) void do_ldmxcsr(struct vcpu *cpu, const struct iop *op)
{
	u32 v = 0;
	gva_t a = 0;

	op->aux[AUX_VL] ? check_avx(cpu) : check_sse(cpu);
	a = iop_ea(cpu, op, 4, false);
	vec_check_align(cpu, a, 4);
	v = mmu_read32(cpu, a);
	if (v & ~vs_of(cpu)->mxcsr_mask)
		cpu_raise_gp(cpu, 0);
	__asm__ volatile("ldmxcsr %0" : : "m"(v));
}

static __attribute__((noinline)) void do_stmxcsr(struct vcpu *cpu, const struct iop *op)
{
	u32 v = 0;
	gva_t a = 0;

	op->aux[AUX_VL] ? check_avx(cpu) : check_sse(cpu);
	a = iop_ea(cpu, op, 4, true);
	vec_check_align(cpu, a, 4);
	__asm__ volatile("stmxcsr %0" : "=m"(v));
	mmu_write32(cpu, a, v);
}

/* Handlers proper: the work above has locals whose address is taken, which would keep NEXT from being a tail
 * call. */
static void h_fxsave(struct vcpu *cpu, const struct iop *op)
{
	do_fxsave(cpu, op);
	NEXT(cpu, op);
}

static void h_fxrstor(struct vcpu *cpu, const struct iop *op)
{
	do_fxrstor(cpu, op);
	NEXT(cpu, op);
}

static void h_xsave(struct vcpu *cpu, const struct iop *op)
{
	do_xsave(cpu, op);
	NEXT(cpu, op);
}

static void h_xrstor(struct vcpu *cpu, const struct iop *op)
{
	do_xrstor(cpu, op);
	NEXT(cpu, op);
}

static void h_ldmxcsr(struct vcpu *cpu, const struct iop *op)
{
	do_ldmxcsr(cpu, op);
	NEXT(cpu, op);
}

static void h_stmxcsr(struct vcpu *cpu, const struct iop *op)
{
	do_stmxcsr(cpu, op);
	NEXT(cpu, op);
}

static const struct {
	u16 id;
	u8 kind;
	iop_fn *fn;
} handlers[] = {
    {INSN_FXSAVE, 0, h_fxsave},        {INSN_FXRSTOR, 0, h_fxrstor},
    {INSN_XSAVE, SK_XSAVE, h_xsave},   {INSN_XSAVEOPT, SK_XSAVEOPT, h_xsave},
    {INSN_XSAVEC, SK_XSAVEC, h_xsave}, {INSN_XSAVES, SK_XSAVEC, h_xsave},
    {INSN_XRSTOR, 0, h_xrstor},        {INSN_XRSTORS, 0, h_xrstor},
    {INSN_LDMXCSR, 0, h_ldmxcsr},      {INSN_STMXCSR, 0, h_stmxcsr},
};

bool vec_compile_state(struct vcpu *cpu, const struct insn *in, struct iop *op)
{
	bool mxcsr = in->id == INSN_LDMXCSR || in->id == INSN_STMXCSR;

	for (unsigned i = 0; i < ARRAY_SIZE(handlers); i++) {
		if (handlers[i].id != in->id)
			continue;
		op->fn = handlers[i].fn;
		op->aux[AUX_ELEM] = handlers[i].kind;
		op->aux[AUX_VL] =
		    mxcsr ? (in->prefixes & PFX_VEX) != 0 : is64(cpu) && (in->rex & 8); /* 64-bit pointers */
		op->aux[AUX_INDEX] = in->id == INSN_XRSTORS;
		return true;
	}
	return false;
}
