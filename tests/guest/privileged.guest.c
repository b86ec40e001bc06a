/* Privileged instructions in loops, so that every engine tier has its turn: flags, bases, selectors, time, SMAP. */
#include "rt.h"

#define ROUNDS 6

static u64 pushed(void)
{
	u64 v;

	__asm__ volatile("pushfq; pop %0" : "=r"(v));
	return v;
}

static void flags(void)
{
	for (int i = 0; i < ROUNDS; i++) {
		u64 a, b, c;

		__asm__ volatile("cli; pushfq; pop %0; sti; nop; pushfq; pop %1; cli; pushfq; pop %2" : "=r"(a), "=r"(b), "=r"(c));
		check("cli", a & 0x200, 0);
		check("sti", b & 0x200, 0x200);
		check("cli again", c & 0x200, 0);
		__asm__ volatile("std; pushfq; pop %0; cld; pushfq; pop %1" : "=r"(a), "=r"(b));
		check("std", a & 0x400, 0x400);
		check("cld", b & 0x400, 0);
		__asm__ volatile("mov $0x7f, %%al; add $1, %%al; cli; pushfq; pop %0" : "=r"(a)::"rax", "cc");
		check("cli keeps OF SF AF", a & 0xad5, 0x890);
		__asm__ volatile("xor %%eax, %%eax; stc; sti; nop; cli; pushfq; pop %0" : "=r"(a)::"rax", "cc");
		check("sti keeps CF ZF PF", a & 0xad5, 0x45);
		check("bit 1", pushed() & 2, 2);
	}
}

static void bases(void)
{
	u64 r15 = 0;

	if (!(cpuid(7, 0).b & 1)) {
		lacks("FSGSBASE");
		return;
	}
	for (int i = 0; i < ROUNDS; i++) {
		u64 v = 0x7f0000001000ul + (u64)i;

		WRITE_CR(4, READ_CR(4) & ~0x10000ul);
		check("without CR4.FSGSBASE", TRAP("rdfsbase %%rax", "i"(0)), 6);
		WRITE_CR(4, READ_CR(4) | 0x10000);
		__asm__ volatile("wrfsbase %1; rdfsbase %%r15; mov %%r15, %0" : "=r"(r15) : "r"(v) : "r15");
		check("wrfsbase", r15, v);
		check("the MSR says so", rdmsr(0xc0000100), v);
		__asm__ volatile("wrgsbase %1; rdgsbase %0" : "=r"(r15) : "r"(v + 8));
		check("wrgsbase", r15, v + 8);
		__asm__ volatile("wrfsbase %k1; rdfsbase %0" : "=r"(r15) : "r"(~0ul));
		check("wrfsbase of 32 bits", r15, 0xffffffff);
		check("not canonical", TRAP("mov $1, %%rax; shl $47, %%rax; wrfsbase %%rax", "i"(0)), 13);
		wrmsr(0xc0000102, v + 16);
		__asm__ volatile("swapgs; rdgsbase %0; swapgs" : "=r"(r15));
		check("swapgs", r15, v + 16);
		check("swapgs back", rdmsr(0xc0000101), v + 8);
	}
	wrmsr(0xc0000100, 0);
	wrmsr(0xc0000101, 0);
}

static void selectors(void)
{
	u64 ds, v;

	__asm__ volatile("mov %%ds, %k0" : "=r"(ds));
	for (int i = 0; i < ROUNDS; i++) {
		u64 word = ~0ul;

		__asm__ volatile("mov %1, %%ds; mov %%ds, %k0" : "=r"(v) : "r"(0));
		check("null DS", v, 0);
		__asm__ volatile("mov %1, %%ds; mov %%ds, %k0" : "=r"(v) : "r"(0));
		check("null DS over null DS", v, 0);
		__asm__ volatile("mov %1, %%ds; mov %%ds, %0" : "=m"(word), "=r"(v) : "1"(ds));
		check("to memory", word, ~0xfffful | ds);
		v = ~0ul;
		__asm__ volatile("mov %%ds, %w0" : "+r"(v));
		check("to 16 bits", v, ~0xfffful | ds);
	}
}

static void time_stamps(void)
{
	u64 before = 0;

	for (int i = 0; i < ROUNDS; i++) {
		u64 a = ~0ul, d = ~0ul;

		__asm__ volatile("rdtsc" : "=a"(a), "=d"(d));
		check("upper halves", (a | d) >> 32, 0);
		check("goes up", (d << 32 | a) > before, 1);
		before = d << 32 | a;
		wrmsr(0x10, 0x100000000ul * (u64)(i + 1) + 0xfff00000);
		__asm__ volatile("rdtsc" : "=a"(a), "=d"(d));
		check("written", d == (u64)i + 1 || d == (u64)i + 2, 1);
		before = 0;
	}
}

/* Words around the middle one, by bit numbers of either sign. */
static void bits(void)
{
	static u64 words[5];

	for (long i = -128; i < 192; i += 13) {
		u64 *w = &words[2 + (i >> 6)];
		u8 cf = 0;

		*w = 0;
		__asm__ volatile("lock bts %2, %1; setc %0" : "=q"(cf), "+m"(words[2]) : "r"(i) : "cc", "memory");
		check("bts: was 0", cf, 0);
		check("bts", *w, 1ul << (i & 63));
		__asm__ volatile("bt %2, %1; setc %0" : "=q"(cf), "+m"(words[2]) : "r"(i) : "cc", "memory");
		check("bt", cf, 1);
		__asm__ volatile("btcl %k2, %1; setc %0" : "=q"(cf), "+m"(words[2]) : "r"(i) : "cc", "memory");
		check("btc", *w, 0);
	}
}

void guest_main(void)
{
	flags();
	bases();
	selectors();
	time_stamps();
	bits();
	guest_exit(0);
}
