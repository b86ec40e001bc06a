/* String instructions: direction, restart at a fault, ports and MMIO on either side. */
#include "rt.h"

#define MMIO 0xd0000000ul
static u8 *const a = (u8 *)PAGE_OF_TESTS, *const b = (u8 *)PAGE_OF_TESTS + 0x3000;
static u64 rcx, rsi, rdi;

static void fill(u8 *p, u8 first, u64 n)
{
	for (u64 i = 0; i < n; i++)
		p[i] = (u8)(first + i);
}

static u64 differ(const u8 *p, const u8 *q, u64 n)
{
	u64 d = 0;

	for (u64 i = 0; i < n; i++)
		d += p[i] != q[i];
	return d;
}

static int keep(struct frame *f)
{
	rdi = f->r[9], rsi = f->r[10], rcx = f->r[12];
	return 0;
}

#define RUN(code, di, si, cx)                                                                                    \
	({                                                                                                       \
		u64 di_ = (u64)(di), si_ = (u64)(si), cx_ = (cx), ax_ = 0x5a5a5a5a;                              \
		__asm__ volatile(code "; cld" : "+D"(di_), "+S"(si_), "+c"(cx_), "+a"(ax_)::"memory", "cc", "rdx");      \
		rdi = di_, rsi = si_, rcx = cx_, rt_ret = ax_;                                                   \
	})
static void regs(u64 di, u64 si, u64 cx)
{
	check("  rdi", rdi, di);
	check("  rsi", rsi, si);
	check("  rcx", rcx, cx);
}

static void moves(void)
{
	fill(a, 1, 256);
	RUN("rep movsb", b, a, 100);
	check("movsb differing", differ(a, b, 100), 0);
	regs((u64)b + 100, (u64)a + 100, 0);
	RUN("rep movsq", b + 1, a + 3, 9);
	check("movsq differing", differ(a + 3, b + 1, 72), 0);
	regs((u64)b + 73, (u64)a + 75, 0);
	RUN("std; rep movsl", b + 96, a + 96, 10);
	check("movsl backwards", differ(a + 60, b + 60, 40), 0);
	regs((u64)b + 56, (u64)a + 56, 0);
	RUN("rep movsb", a + 1, a, 64); /* overlap: spreads the first byte */
	check("overlapping movsb", a[64], 1);
	fill(a, 1, 256);
	RUN("rep movsq", a + 4, a, 4);
	check("overlapping movsq", *(u32 *)(a + 32), 0x201f1e1d);
	fill(a, 1, 256);
	RUN("std; rep movsb", a + 40, a + 39, 39);
	check("overlapping backwards moves up", a[40] == 40 && a[2] == 2, 1);
	RUN("rep movsb", b, a, 0);
	regs((u64)b, (u64)a, 0);
	RUN("movsw", b, a, 7);
	regs((u64)b + 2, (u64)a + 2, 7);
	RUN("addr32 rep movsb", (u64)b | 0x100000000, a, 0x100000003);
	check("addr32 movsb: rcx", rcx, 0);
	check("  rdi", rdi, (u64)b + 3);
}

static void stores_scans(void)
{
	RUN("rep stosl", b, a, 5);
	check("stosl", *(u64 *)(b + 12), 0x5a5a5a5a5a5a5a5a);
	regs((u64)b + 20, (u64)a, 0);
	RUN("std; rep stosw", b + 8, a, 3);
	regs((u64)b + 2, (u64)a, 0);
	fill(a, 0, 256);
	RUN("repne scasb", a, b, 200);
	check("scasb found at", rdi, (u64)a + 0x5b);
	check("  rcx", rcx, 200 - 0x5b);
	RUN("repne scasb", a, b, 20);
	check("scasb not found: rcx", rcx, 0);
	RUN("mov $0, %%al; repe scasb", a, b, 20);
	check("repe scasb stops at", rdi, (u64)a + 2);
	for (u64 i = 0; i < 64; i++)
		a[i] = b[i] = (u8)i;
	b[33]++;
	RUN("repe cmpsb; sete %%al", b, a, 64);
	regs((u64)b + 34, (u64)a + 34, 30);
	check("  ZF", rt_ret & 0xff, 0);
	RUN("repe cmpsl; setb %%al", b, a, 16);
	regs((u64)b + 36, (u64)a + 36, 7);
	check("  CF", rt_ret & 0xff, 1);
	RUN("std; repe cmpsb", b + 63, a + 63, 64);
	regs((u64)b + 32, (u64)a + 32, 33);
	RUN("xor %%edx, %%edx; stc; repe cmpsb; setc %%al", b, a, 0);
	check("cmpsb of none keeps the flags", rt_ret & 0xff, 1);
	RUN("lodsb", b, a + 9, 3);
	check("lodsb", rt_ret, 0x5a5a5a09);
	RUN("rep lodsl", b, a, 3);
	check("rep lodsl", rt_ret, 0x0b0a0908);
	regs((u64)b, (u64)a + 12, 0);
}

/* The page behind a window is absent; after the fault the registers say how far it came, and it goes on. */
static u64 fault_run(const char *name, u64 di, u64 si, u64 cx)
{
	u64 v;

	(void)name;
	handlers[14] = keep;
	v = TRAP("mov %2, %%rdi; mov %3, %%rsi; mov %4, %%rcx; rep movsb", "m"(di), "m"(si), "m"(cx));
	handlers[14] = 0;
	return v;
}

static void across_faults(void)
{
	u64 *absent = pte_of((u64)a + 0x1000), old = *absent;

	fill(a, 0, 0x1000);
	*absent = 0;
	invlpg((u64)a + 0x1000);
	check("source absent", fault_run("src", (u64)b, (u64)a + 0xff0, 64), 14);
	check("  cr2", trap.cr2, (u64)a + 0x1000);
	regs((u64)b + 16, (u64)a + 0x1000, 48);
	check("  differing", differ(b, a + 0xff0, 16), 0);
	*absent = old;
	invlpg((u64)a + 0x1000);
	fill(a + 0x1000, 77, 0x100);
	RUN("rep movsb", rdi, rsi, rcx);
	check("  after restart", differ(b, a + 0xff0, 64), 0);
	*absent = 0;
	invlpg((u64)a + 0x1000);
	check("destination absent", fault_run("dst", (u64)a + 0xff8, (u64)b, 64), 14);
	check("  error", trap.error, 2);
	regs((u64)a + 0x1000, (u64)b + 8, 56);
	handlers[14] = keep;
	check("stosl across", TRAP("lea 0xffe(%2), %%rdi; mov $4, %%ecx; mov $7, %%esi; rep stosl", "r"(a)), 14);
	check("  cr2", trap.cr2, (u64)a + 0x1000);
	check("  rdi", rdi, (u64)a + 0xffe);
	check("  rcx", rcx, 4);
	check("scasb into absent", TRAP("lea 0xff0(%2), %%rdi; mov $100, %%ecx; mov $0xaa, %%eax; repne scasb", "r"(a)), 14);
	check("  rcx", rcx, 84);
	check("lodsb backwards into absent", TRAP("std; lea 0x1000(%2), %%rsi; mov $3, %%ecx; rep lodsb", "r"(a)), 14);
	check("  rsi", rsi, (u64)a + 0x1000);
	check("count 0 touches nothing", TRAP("lea 0x1000(%2), %%rsi; xor %%ecx, %%ecx; rep movsb", "r"(a)), 0xff);
	handlers[14] = 0;
	*absent = old;
	invlpg((u64)a + 0x1000);
}

static u64 move_up(u8 *di, const u8 *si, u64 cx)
{
	__asm__ volatile("rep movsb" : "+D"(di), "+S"(si), "+c"(cx)::"memory");
	return cx + ((u64)di << 16) + ((u64)si << 32);
}

/* Often enough that translated code does them by itself: all counts and places about a page's end. */
static void small_ones(void)
{
	u64 bad = 0, left = 0;

	fill(a, 3, 0x2000);
	for (u64 n = 0; n < 40; n++)
		for (u64 i = 0; i < 40; i++) {
			u8 *to = b + 0xfe0 + i, *from = a + 0x1000 - i;

			to[n] = 0xee;
			left += move_up(to, from, n) != ((u64)(to + n) << 16) + ((u64)(from + n) << 32);
			bad += differ(from, to, n) + (to[n] != 0xee);
		}
	check("small moves: differing", bad, 0);
	check("  registers", left, 0);
	for (u64 n = 1; n < 5000; n += 7) {
		u8 *to = b + (n & 63);

		to[n] = 0x77, to[n - 1] = 0;
		RUN("rep stosb", to, a, n);
		bad += to[n] != 0x77 || to[0] != 0x5a || to[n - 1] != 0x5a || rdi != (u64)(to + n) || rcx;
	}
	check("stores up to and beyond a page", bad, 0);
}

/* One page of memory at two addresses: the order of the bytes is what counts. */
static void at_two_addresses(void)
{
	u64 *other = pte_of((u64)a + 0x5000), old = *other, bad = 0;

	*other = (old & 0xfff) | (u64)a;
	invlpg((u64)a + 0x5000);
	for (u64 d = 1; d < 20; d++) {
		u8 v[64];

		fill(a, (u8)d, 128);
		for (u64 i = 0; i < 64; i++)
			v[i] = (u8)(d + i % d);
		move_up(a + 0x5000 + d, a, 64);
		bad += differ(a + d, v, 64);
		fill(a, (u8)d, 128);
		move_up(a, a + 0x5000 + d, 64);
		for (u64 i = 0; i < 64; i++)
			bad += a[i] != (u8)(2 * d + i);
	}
	check("overlap that the addresses do not show", bad, 0);
	*other = old;
	invlpg((u64)a + 0x5000);
	fill(a, 1, 64);
	fill(a + 0x5000, 0, 64);
	move_up(a + 0x5000 + 4, a, 16);
	check("  and none after a remapping", a[4] == 5 && a[0x5004] == 1, 1);
}

/* A page that was written by strings becomes read-only. */
static void taken_away(void)
{
	u64 *pte = pte_of((u64)b);

	for (u64 i = 0; i < 5; i++)
		move_up(b, a, 8);
	*pte &= ~2ul;
	invlpg((u64)b);
	__asm__ volatile("mov %%cr0, %%rax; bts $16, %%rax; mov %%rax, %%cr0" ::: "rax", "cc"); /* WP */
	check("store to what is read-only now", fault_run("dst", (u64)b + 8, (u64)a, 4), 14);
	check("  error", trap.error, 3);
	regs((u64)b + 8, (u64)a, 4);
	*pte |= 2;
	invlpg((u64)b);
}

/* Port 0xe8 answers 1, 2, 3... per KVM_RUN: only what does not depend on how the items are grouped is checked. */
static void ports(void)
{
	RUN("mov $0xe8, %%edx; rep insb", b, a, 1);
	check("insb", b[0], 1);
	regs((u64)b + 1, (u64)a, 0);
	RUN("mov $0xe8, %%edx; insl", b, a, 9);
	check("insl", *(u32 *)b, 0x04030201);
	regs((u64)b + 4, (u64)a, 9);
	for (u64 i = 0; i < 3000; i++)
		b[i] = 0;
	RUN("mov $0xe8, %%edx; rep insw", b, a, 1000);
	regs((u64)b + 2000, (u64)a, 0);
	check("insw: none left out", b[0] && b[1998] && !b[2000], 1);
	RUN("std; mov $0xe8, %%edx; rep insb", b + 4, a, 3);
	regs((u64)b + 1, (u64)a, 0);
	fill(a, 'a', 8);
	a[8] = '\n';
	RUN("mov $0xe9, %%edx; rep outsb", b, a, 9); /* a line of the transcript */
	regs((u64)b, (u64)a + 9, 0);
	RUN("mov $0xeb, %%edx; rep outsl", b, a, 500);
	regs((u64)b, (u64)a + 2000, 0);
	RUN("std; mov $0xeb, %%edx; rep outsw", b, a + 100, 4);
	regs((u64)b, (u64)a + 92, 0);
}

static void mmio(void)
{
	fill(a, 0x30, 256);
	RUN("rep movsb", MMIO, a, 50);
	regs(MMIO + 50, (u64)a + 50, 0);
	RUN("rep movsb", b, MMIO, 50);
	check("movsb to and from mmio", differ(a, b, 50), 0);
	regs((u64)b + 50, MMIO + 50, 0);
	RUN("rep movsq", MMIO + 1, a, 5);
	RUN("rep movsl", b, MMIO + 1, 10);
	check("movsq to unaligned mmio, movsl back", differ(a, b, 40), 0);
	RUN("rep movsq", MMIO + 0x100, MMIO, 3);
	RUN("rep movsb", b, MMIO + 0x100, 24);
	check("mmio to mmio", differ(a, b + 1, 23), 0);
	RUN("rep stosl", MMIO, a, 4);
	check("stosl", *(volatile u64 *)(MMIO + 8), 0x5a5a5a5a5a5a5a5a);
	RUN("mov $0x5a, %%al; repe scasb", MMIO, a, 50);
	check("scasb of mmio", rdi, MMIO + 17);
	for (u64 i = 0; i < 16; i++)
		a[i] = 0x5a;
	RUN("repe cmpsb", MMIO, a, 30);
	check("cmpsb with mmio", rdi, MMIO + 17);
	*(volatile u32 *)MMIO = 10;
	__asm__ volatile("lock addl $5, (%0)" ::"r"(MMIO) : "memory");
	check("locked add to mmio", *(volatile u32 *)MMIO, 15);
	__asm__ volatile("push %0; popq 8(%0)" ::"r"(MMIO) : "memory");
	check("pop to mmio", *(volatile u64 *)(MMIO + 8), MMIO);
	__asm__ volatile("pushq 8(%1); pop %0" : "=r"(rt_ret) : "r"(MMIO) : "memory");
	check("push from mmio", rt_ret, MMIO);
	RUN("mov $0xe8, %%edx; rep insb", MMIO, a, 1);
	check("insb to mmio", *(volatile u8 *)MMIO, 1);
	*(volatile u8 *)MMIO = 'z';
	*(volatile u8 *)(MMIO + 1) = '\n';
	RUN("mov $0xe9, %%edx; rep outsb", a, MMIO, 2);
	regs((u64)a, MMIO + 2, 0);
}

void guest_main(void)
{
	moves();
	stores_scans();
	across_faults();
	small_ones();
	at_two_addresses();
	taken_away();
	ports();
	mmio();
}
