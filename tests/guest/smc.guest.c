/* Code that changes while it runs: in its own block, across pages, beside its data, through another mapping, by string stores. */
#include "rt.h"

static u8 *const c = (u8 *)PAGE_OF_TESTS;

static void put_bytes(u8 *p, const void *s, u64 n)
{
	for (u64 i = 0; i < n; i++)
		((volatile u8 *)p)[i] = ((const u8 *)s)[i];
}

/* mov $v, %eax; ret */
static void put_mov(u8 *p, u32 v)
{
	*(volatile u8 *)p = 0xb8;
	*(volatile u32 *)(p + 1) = v;
	*(volatile u8 *)(p + 5) = 0xc3;
}

static u64 run(u8 *p)
{
	u64 v;

	__asm__ volatile("call *%1" : "=a"(v) : "r"(p) : "memory", "cc", "rcx", "rdx", "rsi", "rdi");
	return v & 0xffffffff;
}

static void same_block(void)
{
	/* movb $2, 1f+1(%rip); 1: mov $1, %eax; ret: the store is to an instruction of its own block */
	static const u8 code[] = {0xc6, 0x05, 1, 0, 0, 0, 2, 0xb8, 1, 0, 0, 0, 0xc3};
	/* mov $3, %ecx; 1: incb 2f+1(%rip); 2: mov $0, %eax; dec %ecx; jnz 1b; ret */
	static const u8 loop[] = {0xb9, 3, 0, 0, 0, 0xfe, 0x05, 1, 0, 0, 0, 0xb8, 0, 0, 0, 0, 0xff, 0xc9, 0x75, 0xf1, 0xc3};

	put_bytes(c, code, sizeof(code));
	check("store to the next instruction", run(c), 2);
	check("and again", run(c), 2);
	put_bytes(c, loop, sizeof(loop));
	check("a loop that changes itself", run(c), 3);
	check("  goes on", run(c), 6);
}

static void rewriting(void)
{
	u64 bad = 0;

	for (u32 i = 0; i < 300; i++) {
		put_mov(c + 64, i * 3);
		bad += run(c + 64) != i * 3;
	}
	check("rewritten and called 300 times", bad, 0);
	bad = 0;
	for (u32 at = 4091; at < 4096; at++) /* the instruction crosses into the next page */
		for (u32 i = 1; i < 20; i++) {
			put_mov(c + at, i);
			bad += run(c + at) != i;
			*(volatile u8 *)(c + 4096) = i & 1 ? 0 : 0xff; /* now just one of its bytes */
			*(volatile u8 *)(c + 4096 + (at == 4091)) = 0xc3;
			put_mov(c + at, i + 100);
			bad += run(c + at) != i + 100;
		}
	check("instruction across pages", bad, 0);
	put_mov(c + 4094, 0x01010101);
	run(c + 4094);
	*(volatile u8 *)(c + 4096) = 7;
	check("its half in the second page", run(c + 4094), 0x01010701);
	*(volatile u8 *)(c + 4095) = 9;
	check("its half in the first", run(c + 4094), 0x01010709);
	bad = 0;
	for (u32 i = 0; i < 200; i++) { /* data beside code */
		*(volatile u32 *)(c + 1024) = i;
		bad += run(c + 4094) != 0x01010709 || *(volatile u32 *)(c + 1024) != i;
	}
	check("data in the page of code", bad, 0);
}

static void other_ways(void)
{
	u64 *alias = pte_of((u64)c + 0x100000);
	static const u8 two[] = {0xb8, 22, 0, 0, 0, 0xc3};
	u64 old = *alias;
	u8 *q = c + 0x100000;

	put_mov(c + 128, 1);
	run(c + 128);
	*alias = (u64)c | 7;
	invlpg((u64)q);
	*(volatile u32 *)(q + 129) = 55;
	check("through an alias", run(c + 128), 55);
	check("  run through the alias", run(q + 128), 55);
	*(volatile u32 *)(c + 129) = 56;
	check("  changed below the alias", run(q + 128), 56);
	*alias = old;
	invlpg((u64)q);
	__asm__ volatile("rep movsb" ::"D"(c + 128), "S"(two), "c"(6ul) : "memory");
	check("by rep movsb", run(c + 128), 22);
	{
		u64 d = (u64)(c + 129), n = 1, v = 33;

		__asm__ volatile("rep stosl" : "+D"(d), "+c"(n) : "a"(v) : "memory");
	}
	check("by rep stosl", run(c + 128), 33);
	__asm__ volatile("movd %0, %%xmm0; movd %%xmm0, (%1)" ::"r"(44), "r"(c + 129) : "memory");
	check("by movd from xmm", run(c + 128), 44);
	__asm__ volatile("lock xaddl %k0, (%1)" ::"r"(11ul), "r"(c + 129) : "memory");
	check("by lock xadd", run(c + 128), 55);
	__asm__ volatile("mov %%rsp, %%rdx; lea 8(%0), %%rsp; push %1; mov %%rdx, %%rsp" ::"r"(c + 129), "r"(0xc3ul << 32 | 66) : "rdx", "memory");
	check("by push", run(c + 128), 66);
	__asm__ volatile("btsl $7, (%0)" ::"r"(c + 129) : "memory");
	check("by bts", run(c + 128), 66 | 128);
	__asm__ volatile("fninit; fldz; fstps (%0)" ::"r"(c + 129) : "memory");
	check("by fstp", run(c + 128), 0);
}

static void remapped(void)
{
	u64 *p = pte_of((u64)c + 0x101000);
	u8 *q = c + 0x101000, *one = c + 0x110000, *two = c + 0x111000;

	put_mov(one, 1);
	put_mov(two, 2);
	*p = (u64)one | 7;
	invlpg((u64)q);
	check("first mapping", run(q), 1);
	*p = (u64)two | 7;
	invlpg((u64)q);
	check("second mapping", run(q), 2);
	put_mov(one, 3);
	*p = (u64)one | 7;
	invlpg((u64)q);
	check("first again, changed meanwhile", run(q), 3);
	*p = (u64)one | 7 | 1ul << 63;
	invlpg((u64)q);
	rt_arg = (u64)q;
	check("made NX", TRAP("call *rt_arg(%%rip)", "i"(0)), 14);
	*p = (u64)q | 7;
	invlpg((u64)q);
}

void guest_main(void)
{
	same_block();
	rewriting();
	other_ways();
	remapped();
}
