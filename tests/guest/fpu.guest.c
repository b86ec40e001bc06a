/* x87, SSE and AVX as state: who faults when, headers of XSAVE areas, XCR0, survival across traps. */
#include "rt.h"

u8 area[4096] __attribute__((aligned(64)));

static void clear(void)
{
	for (u32 i = 0; i < sizeof(area); i++)
		area[i] = 0;
}

static void availability(void)
{
	u64 cr0 = READ_CR(0);

	WRITE_CR(0, cr0 | 8);
	check("TS: fld", TRAP("fld1", "i"(0)), 7);
	check("TS: movaps", TRAP("movaps %%xmm0, %%xmm1", "i"(0)), 7);
	check("TS: fwait with MP", TRAP("fwait", "i"(0)), 7);
	check("TS: fxsave", TRAP("fxsave area(%%rip)", "i"(0)), 7);
	WRITE_CR(0, (cr0 | 8) & ~2ul);
	check("TS: fwait without MP", TRAP("fwait", "i"(0)), 0xff);
	WRITE_CR(0, cr0 | 4);
	check("EM: fld", TRAP("fld1", "i"(0)), 7);
	check("EM: movaps", TRAP("movaps %%xmm0, %%xmm1", "i"(0)), 6);
	WRITE_CR(0, cr0);
	WRITE_CR(4, READ_CR(4) & ~0x200ul);
	check("no OSFXSR: movaps", TRAP("movaps %%xmm0, %%xmm1", "i"(0)), 6);
	check("no OSFXSR: fld", TRAP("fninit; fld1", "i"(0)), 0xff);
	WRITE_CR(4, READ_CR(4) | 0x200);
	__asm__ volatile("clts");
}

static void numeric_exceptions(void)
{
	static const u16 unmasked = 0x360; /* IM, ZM, DM and so on off but precision */
	u16 sw;

	check("unmasked division by zero: the next waits and faults",
	      TRAP("fninit; fldcw %2; fld1; fldz; fdivrp; nop; fwait", "m"(unmasked)), 16);
	check("fnstsw does not fault", TRAP("fnstsw %%ax; mov %%rax, rt_ret(%%rip)", "i"(0)), 0xff);
	check("  ZE and ES", rt_ret & 0x84, 0x84);
	check("fnclex does not fault", TRAP("fnclex; fwait", "i"(0)), 0xff);
	check("masked", TRAP("fninit; fld1; fldz; fdivrp; fwait", "i"(0)), 0xff);
	__asm__ volatile("fnstsw %0" : "=m"(sw));
	check("  ZE", sw & 0xff, 4);
	check("SSE unmasked division by zero", TRAP("mov $0x1d80, %%eax; push %%rax; ldmxcsr (%%rsp); pop %%rax; mov $0x3f800000, %%eax;"
						     "movd %%eax, %%xmm0; xorps %%xmm1, %%xmm1; divss %%xmm1, %%xmm0", "i"(0)), 19);
	__asm__ volatile("stmxcsr rt_ret(%%rip)" ::: "memory");
	check("  MXCSR.ZE", rt_ret & 0x3f, 4);
	WRITE_CR(4, READ_CR(4) & ~0x400ul);
	check("  without OSXMMEXCPT #UD", TRAP("mov $0x3f800000, %%eax; movd %%eax, %%xmm0; xorps %%xmm1, %%xmm1; divss %%xmm1, %%xmm0",
					       "i"(0)), 6);
	WRITE_CR(4, READ_CR(4) | 0x400);
	check("ldmxcsr reserved", TRAP("mov $0x10000, %%eax; push %%rax; ldmxcsr (%%rsp)", "i"(0)), 13);
	rt_arg = 0x1f80;
	__asm__ volatile("ldmxcsr rt_arg(%rip)");
}

static void fxsave(void)
{
	clear();
	__asm__ volatile("fninit; fld1; pcmpeqd %%xmm3, %%xmm3; fxsave area(%%rip)" ::: "memory");
	check("FCW", *(u16 *)area, 0x37f);
	check("abridged tag", area[4], 0x80);
	check("ST0", *(u64 *)(area + 32), 0x8000000000000000);
	check("XMM3", *(u64 *)(area + 160 + 48), ~0ul);
	check("MXCSR mask has DAZ", *(u32 *)(area + 28) & 0xffbf, 0xffbf);
	*(u64 *)(area + 160 + 48) = 0x1234;
	__asm__ volatile("fxrstor area(%%rip); movq %%xmm3, %0" : "=r"(rt_ret)::"memory");
	check("fxrstor", rt_ret, 0x1234);
	*(u32 *)(area + 24) = 0x10000;
	check("fxrstor with reserved MXCSR", TRAP("fxrstor area(%%rip)", "i"(0)), 13);
	check("fxsave unaligned", TRAP("fxsave area+8(%%rip)", "i"(0)), 13);
}

static u64 restore(void)
{
	return TRAP("mov $7, %%eax; xor %%edx, %%edx; xrstor area(%%rip)", "i"(0));
}

static u64 xsetbv(u64 v)
{
	rt_arg = v;
	return TRAP("xor %%ecx, %%ecx; mov rt_arg(%%rip), %%eax; mov rt_arg+4(%%rip), %%edx; xsetbv", "i"(0));
}

static void xsave(void)
{
	int avx = cpuid(1, 0).c >> 28 & 1;

	if (!(cpuid(1, 0).c >> 26 & 1)) {
		lacks("XSAVE");
		return;
	}
	check("xgetbv without OSXSAVE", TRAP("xor %%ecx, %%ecx; xgetbv", "i"(0)), 6);
	check("CPUID.OSXSAVE", cpuid(1, 0).c >> 27 & 1, 0);
	WRITE_CR(4, READ_CR(4) | 0x40000);
	check("CPUID.OSXSAVE set", cpuid(1, 0).c >> 27 & 1, 1);
	check("XCR0 without x87", xsetbv(6), 13);
	check("XCR0 with AVX without SSE", xsetbv(5), 13);
	check("XCR0 unknown", xsetbv(1ul << 62 | 7), 13);
	check("XCR1", TRAP("mov $1, %%ecx; mov $1, %%eax; xor %%edx, %%edx; xsetbv", "i"(0)), 13);
	check("XCR0 = 3", xsetbv(3), 0xff);
	check("size of it", cpuid(0xd, 0).b, 576);
	clear();
	check("xsave", TRAP("mov $3, %%eax; xor %%edx, %%edx; xsave area(%%rip)", "i"(0)), 0xff);
	check("  unaligned", TRAP("mov $3, %%eax; xor %%edx, %%edx; xsave area+16(%%rip)", "i"(0)), 13);
	check("xrstor", restore(), 0xff);
	area[512 + 7] = 0x40;
	check("XSTATE_BV beyond XCR0", restore(), 13);
	area[512 + 7] = 0;
	area[512 + 8] = 1;
	check("XCOMP_BV without compaction", restore(), 13);
	area[512 + 8] = 0;
	area[512 + 16] = 1;
	check("reserved byte 16 of the header", restore(), 13);
	area[512 + 16] = 0;
	*(u32 *)(area + 24) = 0x80000000;
	check("MXCSR reserved", restore(), 13);
	*(u32 *)(area + 24) = 0x1f80;
	*(u64 *)(area + 512) = 1;
	__asm__ volatile("pcmpeqd %%xmm5, %%xmm5" :::);
	check("SSE not in XSTATE_BV", restore(), 0xff);
	__asm__ volatile("movq %%xmm5, %0" : "=r"(rt_ret));
	check("  is zeroed", rt_ret, 0);
	if (!avx) {
		lacks("AVX");
		return;
	}
	check("AVX with XCR0 = 3", TRAP("vxorps %%ymm0, %%ymm0, %%ymm0", "i"(0)), 6);
	check("XCR0 = 7", xsetbv(7), 0xff);
	check("size of it", cpuid(0xd, 0).b, 832);
	check("AVX", TRAP("vxorps %%ymm0, %%ymm0, %%ymm0; vcmpeqps %%ymm0, %%ymm0, %%ymm7", "i"(0)), 0xff);
	clear();
	check("traps, CPUID, port I/O between", (TRAP("ud2", "i"(0)), cpuid(0, 0), outb(0x80, 0), inb(0x80),
						 TRAP("mov $7, %%eax; xor %%edx, %%edx; xsave area(%%rip)", "i"(0))), 0xff);
	check("  YMM7 has survived: low", *(u64 *)(area + 160 + 7 * 16), ~0ul);
	check("  high", *(u64 *)(area + 576 + 7 * 16 + 8), ~0ul);
	check("  XSTATE_BV", area[512] & 6, 6);
	WRITE_CR(0, READ_CR(0) | 8);
	check("TS: AVX", TRAP("vxorps %%ymm0, %%ymm0, %%ymm0", "i"(0)), 7);
	check("TS: xsave", TRAP("mov $7, %%eax; xor %%edx, %%edx; xsave area(%%rip)", "i"(0)), 7);
	__asm__ volatile("clts");
	check("XCR0 = 1 while YMM is in use", xsetbv(1), 0xff);
	check("XCR0 = 7 again", xsetbv(7), 0xff);
	check("YMM7 is still there", TRAP("mov $7, %%eax; xor %%edx, %%edx; xsave area(%%rip)", "i"(0)), 0xff);
	check("  high", *(u64 *)(area + 576 + 7 * 16 + 8), ~0ul);
	check("vzeroupper", TRAP("vzeroupper; mov $7, %%eax; xor %%edx, %%edx; xsave area(%%rip)", "i"(0)), 0xff);
	if (cpuid(0xd, 1).a >> 1 & 1) {
		clear();
		check("xsavec", TRAP("mov $7, %%eax; xor %%edx, %%edx; xsavec area(%%rip)", "i"(0)), 0xff);
		check("  XCOMP_BV", *(u64 *)(area + 520), 1ul << 63 | 7);
		check("  xrstor", restore(), 0xff);
		area[512 + 8] = 3;
		area[512] = 4;
		check("  XSTATE_BV not in XCOMP_BV", restore(), 13);
	} else {
		lacks("XSAVEC");
	}
}

void guest_main(void)
{
	availability();
	numeric_exceptions();
	fxsave();
	xsave();
}
