/* Vector and x87 state: host registers <-> cpu->xsave <-> the KVM structures. See fpu.h. */
#include <errno.h>
#include <cpuid.h>
#include "engine/cpu/fpu.h"
#include "engine/interp/stub.h"
#include "engine/lib/lib.h"

#define STUB_WORD_FWAIT 0xccccccccccccc39bull

static struct xsave_area *saved(struct vcpu *cpu)
{
	return (struct xsave_area *)cpu->xsave;
}

/* Host facts. The FPU is left initialised. */
static void probe_host(struct vec_state *vs)
{
	u32 a = 0, b = 0, c = 0, d = 0;
	u64 one = 0x3ff0000000000000ull;

	memset(vs->bounce, 0, XSAVE_LEGACY);
	__asm__ volatile("fninit\n\tfldl %1\n\tfxsave64 %0\n\tfninit" : "=m"(vs->xs.fx) : "m"(one));
	vs->fx_pointers = vs->xs.fx.fip != 0;
	vs->mxcsr_mask = vs->xs.fx.mxcsr_mask ? vs->xs.fx.mxcsr_mask : 0xffbf;
	__cpuid_count(7, 0, a, b, c, d);
	vs->saves_selectors = !(b & BIT(13));
	__cpuid(0, a, b, c, d);
	vs->amd = b == signature_AMD_ebx;
	vs->has_avx = xstate_supported() & XS_AVX;
}

struct vec_state *vec_state(struct vcpu *cpu)
{
	struct vec_state *vs = cpu->vecexec;

	if (likely(vs))
		return vs;
	if (!(xstate_supported() & XS_SSE))
		eng_panic("host CPU or kernel without XSAVE: the engine cannot keep vector state");
	vs = vm_alloc(sizeof(*vs));
	if (!vs)
		eng_panic("no memory for the vector state of vCPU %u", cpu->id);
	/* May be called with the guest's state live: put it by. */
	__asm__ volatile("xsave64 %0"
			 : "+m"(vs->bounce[2048])
			 : "a"(XS_X87 | XS_SSE | XS_AVX), "d"(0)
			 : "memory");
	probe_host(vs);
	__asm__ volatile("xrstor64 %0" : : "m"(vs->bounce[2048]), "a"(XS_X87 | XS_SSE), "d"(0) : "memory");
	vs->fwait = stub_get(STUB_WORD_FWAIT);
	eng_assert(vs->fwait);
	cpu->vecexec = vs;
	return vs;
}

/* All user components are loaded, those the guest does not have with their initial values, so that nothing of
 * the host is in the registers (AMX tiles: never touched by the engine). */
#define HOST_COMPONENTS 0x2ffu

void vcpu_fpu_load(struct vcpu *cpu)
{
	struct vec_state *vs = vec_state(cpu);
	struct xsave_area *xs = saved(cpu);
	bool x87 = xs->xstate_bv & XS_X87;

	vs->fop = x87 ? xs->fx.fop : 0;
	vs->fip = x87 ? xs->fx.fip : 0;
	vs->fdp = x87 ? xs->fx.fdp : 0;
	/* The area has the 64-bit form, without selectors: those of the last run stay. */
	__asm__ volatile("xrstor64 %0" : : "m"(cpu->xsave), "a"(HOST_COMPONENTS), "d"(0) : "memory");
}

void vcpu_fpu_save(struct vcpu *cpu)
{
	struct vec_state *vs = cpu->vecexec;
	struct xsave_area *xs = saved(cpu);
	u32 mxcsr = MXCSR_DEFAULT;

	__asm__ volatile("xsave64 %0" : "+m"(cpu->xsave) : "a"(XS_X87 | XS_SSE | XS_AVX), "d"(0) : "memory");
	xs->fx.fop = vs->fop;
	xs->fx.fip = vs->fip;
	xs->fx.fdp = vs->fdp;
	if (!(xs->xstate_bv & XS_X87)) {
		xs->fx.fop = 0;
		xs->fx.fip = 0;
		xs->fx.fdp = 0;
	}
	__asm__ volatile("fninit\n\tldmxcsr %0" : : "m"(mxcsr)); /* what C code of the process expects */
	if (vs->has_avx)
		__asm__ volatile("vzeroupper");
}

/* Power-on: everything initial. INIT leaves x87, SSE and AVX as they are (SDM 3A table 10-1). */
void fpu_reset(struct vcpu *cpu, bool init)
{
	struct xsave_area *xs = saved(cpu);

	cpu->xcr0 = init ? cpu->xcr0 : XS_X87;
	if (init)
		return;
	memset(cpu->xsave, 0, sizeof(cpu->xsave));
	xs->fx.fcw = FCW_DEFAULT; /* as KVM has it (real silicon: 0x40 and full tags until FNINIT) */
	xs->fx.mxcsr = MXCSR_DEFAULT;
	xs->xstate_bv = XS_X87 | XS_SSE;
}

static u32 host_mxcsr_mask(void)
{
	struct fx_area fx __attribute__((aligned(16)));

	__asm__ volatile("fxsave64 %0" : "=m"(fx));
	return fx.mxcsr_mask ? fx.mxcsr_mask : 0xffbf;
}

/* A component in its initial state may be absent from the area: put the values there, for readers. */
static void make_explicit(struct xsave_area *xs)
{
	if (!(xs->xstate_bv & XS_X87)) {
		u32 mxcsr = xs->fx.mxcsr;

		memset(&xs->fx, 0, offsetof(struct fx_area, xmm));
		xs->fx.fcw = FCW_DEFAULT;
		xs->fx.mxcsr = mxcsr;
	}
	if (!(xs->xstate_bv & XS_SSE))
		memset(xs->fx.xmm, 0, sizeof(xs->fx.xmm));
	if (!(xs->xstate_bv & XS_AVX))
		memset(xs->ymm_high, 0, sizeof(xs->ymm_high));
}

void fpu_get(struct vcpu *cpu, struct kvm_fpu *out)
{
	struct xsave_area *xs = saved(cpu);

	make_explicit(xs);
	memset(out, 0, sizeof(*out));
	memcpy(out->fpr, xs->fx.st, sizeof(out->fpr));
	memcpy(out->xmm, xs->fx.xmm, sizeof(out->xmm));
	out->fcw = xs->fx.fcw;
	out->fsw = xs->fx.fsw;
	out->ftwx = xs->fx.ftw;
	out->last_opcode = xs->fx.fop;
	out->last_ip = xs->fx.fip;
	out->last_dp = xs->fx.fdp;
	out->mxcsr = xs->fx.mxcsr;
}

int fpu_set(struct vcpu *cpu, const struct kvm_fpu *in)
{
	struct xsave_area *xs = saved(cpu);

	if (in->mxcsr & ~host_mxcsr_mask())
		return -EINVAL;
	make_explicit(xs);
	memcpy(xs->fx.st, in->fpr, sizeof(in->fpr));
	memcpy(xs->fx.xmm, in->xmm, sizeof(in->xmm));
	xs->fx.fcw = in->fcw;
	xs->fx.fsw = in->fsw;
	xs->fx.ftw = in->ftwx;
	xs->fx.fop = in->last_opcode;
	xs->fx.fip = in->last_ip;
	xs->fx.fdp = in->last_dp;
	xs->fx.mxcsr = in->mxcsr;
	xs->xstate_bv |= XS_X87 | XS_SSE;
	return 0;
}

void xsave_get(struct vcpu *cpu, void *area, unsigned size)
{
	struct xsave_area *xs = saved(cpu);

	make_explicit(xs);
	xs->fx.mxcsr_mask = host_mxcsr_mask();
	memset(area, 0, size);
	memcpy(area, xs, MIN(size, XSAVE_SIZE));
}

int xsave_set(struct vcpu *cpu, const void *area, unsigned size)
{
	struct xsave_area in __attribute__((aligned(64)));

	if (size < XSAVE_SIZE)
		return -EINVAL;
	memcpy(&in, area, sizeof(in));
	for (unsigned i = 0; i < ARRAY_SIZE(in.header_rsvd); i++)
		if (in.header_rsvd[i])
			return -EINVAL;
	if (in.xcomp_bv || (in.xstate_bv & ~xstate_supported()))
		return -EINVAL;
	/* MXCSR is loaded whenever SSE or AVX is asked for, whatever XSTATE_BV says (SDM 1 13.8.1). */
	if (in.fx.mxcsr & ~host_mxcsr_mask())
		return -EINVAL;
	memcpy(cpu->xsave, &in, sizeof(in));
	return 0;
}
