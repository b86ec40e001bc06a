/* XCR0 and the sizes of XSAVE areas (SDM 1 chapter 13). */
#include <cpuid.h>
#include "engine/cpu/cpu.h"
#include "engine/cpu/fpu.h"

static bool host_osxsave(void)
{
	u32 a = 0, b = 0, c = 0, d = 0;

	__cpuid(1, a, b, c, d);
	return c & BIT(27);
}

static u64 xgetbv(u32 index)
{
	u32 lo = 0, hi = 0;

	__asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(index));
	return (u64)hi << 32 | lo;
}

u64 xstate_supported(void)
{
	return host_osxsave() ? xgetbv(0) & (XS_X87 | XS_SSE | XS_AVX) : 0;
}

/* AVX is the only extended component, so the compacted form differs in nothing (SDM 1 13.4.3). */
unsigned xstate_size(u64 xcr0, bool compacted)
{
	return xcr0 & XS_AVX ? XSAVE_SIZE : XSAVE_LEGACY + XSAVE_HEADER;
}

static u64 guest_xcr0_mask(const struct vcpu *cpu)
{
	return cpu->xcr0_supported & (XS_X87 | XS_SSE | XS_AVX);
}

void cpu_xsetbv(struct vcpu *cpu, u32 index, u64 v)
{
	if (!(cpu->cr4 & BIT(18)))
		cpu_raise(cpu, EXC_UD);
	if (cpu->mode.cpl != 0 || index != 0 || !(v & XS_X87) || (v & ~guest_xcr0_mask(cpu)) ||
	    ((v & XS_AVX) && !(v & XS_SSE)))
		cpu_raise_gp(cpu, 0);
	cpu->xcr0 = v;
	cpu_update_mode(cpu);
}

/* Index 1: components in use, XCR0 & XINUSE (SDM 2D XGETBV); the live state is the host's. */
u64 cpu_xgetbv(struct vcpu *cpu, u32 index)
{
	if (!(cpu->cr4 & BIT(18)))
		cpu_raise(cpu, EXC_UD);
	if (index == 1 && cpu_has(cpu, FEAT_XSAVEC))
		return xgetbv(1) & cpu->xcr0;
	if (index != 0)
		cpu_raise_gp(cpu, 0);
	return cpu->xcr0;
}
