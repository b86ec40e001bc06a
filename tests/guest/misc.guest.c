/* CPUID against itself and the machine; RDTSCP, RDPID; faults of the compare-exchanges; time. */
#include "rt.h"

static void cpuid_and_xsave(void)
{
	u64 size = 576;
	struct cpuid_regs d;

	if (!(cpuid(1, 0).c >> 26 & 1)) {
		lacks("XSAVE");
		return;
	}
	WRITE_CR(4, READ_CR(4) | 0x40000);
	d = cpuid(0xd, 0);
	__asm__ volatile("xsetbv" ::"a"(d.a), "d"(d.d), "c"(0));
	check("XCR0 may be all of CPUID.D", (u32)({ u32 a, dx; __asm__ volatile("xgetbv" : "=a"(a), "=d"(dx) : "c"(0)); a; }) == d.a, 1);
	for (u32 i = 2; i < 63; i++) {
		struct cpuid_regs s = cpuid(0xd, i);

		if (((u64)d.d << 32 | d.a) >> i & 1) {
			if (s.a + s.b > size)
				size = s.a + s.b;
			check("component has a size", s.a > 0, 1);
		}
	}
	check("EBX is the size of XCR0's components", cpuid(0xd, 0).b == size, 1);
	check("ECX is the most", cpuid(0xd, 0).c >= size, 1);
}

static void identities(void)
{
	u32 aux = 0, lo, hi;

	if (cpuid(0x80000001, 0).d >> 27 & 1) {
		wrmsr(0xc0000103, 0x1234);
		__asm__ volatile("rdtscp" : "=a"(lo), "=d"(hi), "=c"(aux));
		check("rdtscp", aux, 0x1234);
	} else {
		lacks("RDTSCP");
	}
	if (cpuid(7, 0).c >> 22 & 1) {
		u64 v;

		wrmsr(0xc0000103, 0x4321);
		__asm__ volatile(".byte 0xf3, 0x0f, 0xc7, 0xf8" : "=a"(v));
		check("rdpid", v, 0x4321);
	} else {
		lacks("RDPID");
	}
	check("LAPIC ID and CPUID agree", apic_read(APIC_ID) >> 24, cpuid(1, 0).b >> 24);
	check("maximum leaf", cpuid(0, 0).a >= 7, 1);
	check("cpuid clears the upper halves", ({ u64 a = ~0ul, b = ~0ul, c = 0, dx = ~0ul;
		__asm__ volatile("cpuid" : "+a"(a), "+b"(b), "+c"(c), "+d"(dx)); (a | b | c | dx) >> 32; }), 0);
	check("MSR_EFER.LMA", rdmsr(0xc0000080) >> 10 & 1, 1);
	check("smsw is CR0", ({ u64 v; __asm__ volatile("smsw %0" : "=r"(v)); v & 0xffffffff; }), READ_CR(0));
}

static void compare_exchange(void)
{
	u64 *p = pte_of(PAGE_OF_TESTS);
	volatile u64 *m = (volatile u64 *)PAGE_OF_TESTS;

	m[0] = 5, m[1] = 6;
	*p = PAGE_OF_TESTS | 5;
	invlpg(PAGE_OF_TESTS);
	check("cmpxchg8b of a read-only page, unequal", TRAP("mov $0x800000, %%esi; xor %%eax, %%eax; xor %%edx, %%edx; lock cmpxchg8b (%%rsi)",
							      "i"(0)), 14);
	check("  error: a write", trap.error, 3);
	check("cmpxchg of it", TRAP("mov $0x800000, %%esi; xor %%eax, %%eax; lock cmpxchg %%ecx, (%%rsi)", "i"(0)), 14);
	check("xchg of it", TRAP("mov $0x800000, %%esi; xchg %%eax, (%%rsi)", "i"(0)), 14);
	*p = PAGE_OF_TESTS | 7;
	invlpg(PAGE_OF_TESTS);
	check("cmpxchg8b", TRAP("mov $0x800000, %%esi; mov $5, %%eax; xor %%edx, %%edx; mov $9, %%ebx; xor %%ecx, %%ecx; cmpxchg8b (%%rsi)",
				"i"(0)), 0xff);
	check("  value", m[0], 9);
	check("cmpxchg16b unaligned", TRAP("mov $0x800008, %%esi; cmpxchg16b (%%rsi)", "i"(0)), 13);
	check("cmpxchg8b of a register", TRAP(".byte 0x0f, 0xc7, 0xc9", "i"(0)), 6);
	m[0] = 1, m[1] = 2;
	__asm__ volatile("cmpxchg16b (%0); sete rt_ret(%%rip)" ::"S"(m), "a"(1ul), "d"(2ul), "b"(7ul), "c"(8ul) : "cc", "memory");
	check("cmpxchg16b", m[0] << 8 | m[1], 0x708);
	__asm__ volatile("lock addl $1, 62(%0)" ::"r"(m) : "memory", "cc");
	check("locked across cache lines", *(volatile u32 *)((u64)m + 62), 1);
}

struct pvclock {
	volatile u32 version;
	u32 pad;
	u64 tsc, ns;
	u32 mul;
	signed char shift;
	u8 flags, pad2[2];
} __attribute__((packed));

static u64 pv_ns(volatile struct pvclock *c)
{
	u64 delta = rdtsc() - c->tsc;

	delta = c->shift >= 0 ? delta << c->shift : delta >> -c->shift;
	return c->ns + (u64)((unsigned __int128)delta * c->mul >> 32);
}

static void time(void)
{
	u64 last = rdtsc(), back = 0;
	volatile struct pvclock *c = (volatile struct pvclock *)(PAGE_OF_TESTS + 0x1000);

	for (u32 i = 0; i < 5000; i++) {
		u64 now = rdtsc();

		back += now < last;
		last = now;
	}
	check("TSC goes back", back, 0);
	wrmsr(0x10, 1000);
	check("TSC written", rdtsc() < 30000000000, 1);
	if (cpuid(0x40000000, 0).b != 0x4b4d564b || !(cpuid(0x40000001, 0).a & 8)) {
		lacks("kvmclock");
		return;
	}
	wrmsr(0x4b564d01, (u64)c | 1);
	check("kvmclock: version is even, not zero", c->version && !(c->version & 1), 1);
	check("  multiplier", c->mul != 0, 1);
	back = 0;
	last = pv_ns(c);
	for (u32 i = 0; i < 2000; i++) {
		u64 now = pv_ns(c);

		back += now < last;
		last = now;
	}
	check("  goes back", back, 0);
	wrmsr(0x4b564d01, 0);
}

static void undecoded_ports(void)
{
	u8 buf[8] = {0};
	void *p = buf;
	u64 n = 3, v = 0x1234567800000000;

	__asm__ volatile("in $0x80, %%al" : "+a"(v));
	check("in al of a port that nobody decodes", v, 0x12345678000000ff);
	__asm__ volatile("mov $0xe6, %%edx; in %%dx, %%ax" : "+a"(v)::"edx");
	check("in ax", v, 0x123456780000ffff);
	__asm__ volatile("in $0x80, %%eax" : "+a"(v));
	check("in eax", v, 0xffffffff);
	__asm__ volatile("out %%eax, $0x80; rep insb" : "+D"(p), "+c"(n) : "d"(0x80), "a"(0) : "memory");
	check("rep insb", *(u64 *)buf, 0xffffff);
	check("in eax over a port that somebody decodes", ({ u32 x; __asm__ volatile("in $0xe5, %%eax" : "=a"(x)); x; }), 0xffffffff);
	__asm__ volatile("mov $0xffff, %%edx; in %%dx, %%al" : "=a"(v)::"edx");
	check("the last port", v & 0xff, 0xff);
}

void guest_main(void)
{
	undecoded_ports();
	cpuid_and_xsave();
	identities();
	compare_exchange();
	time();
}
