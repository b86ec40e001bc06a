/* Paging: accessed and dirty bits, large pages, protection, error codes, PCID, and what flushes what. */
#include "rt.h"

#define WINDOW 0x10000000000ul /* pml4[2]: tables made here */
#define PA1    PAGE_OF_TESTS
#define PA2    (PAGE_OF_TESTS + 0x200000)
static u64 pdpt[512] __attribute__((aligned(4096))), pd[512] __attribute__((aligned(4096)));
static u64 pt[512] __attribute__((aligned(4096)));

static void flush(void)
{
	WRITE_CR(3, READ_CR(3));
}

static void map_small(u64 pte)
{
	rt_pml4[2] = (u64)pdpt | 7;
	pdpt[0] = (u64)pd | 7;
	pd[0] = (u64)pt | 7;
	pt[0] = pte;
	flush();
}

static u64 rd(u64 a)
{
	rt_arg = a;
	return TRAP("mov rt_arg(%%rip), %%rcx; mov (%%rcx), %%rax; mov %%rax, rt_ret(%%rip)", "i"(0));
}

static u64 wr(u64 a)
{
	rt_arg = a;
	return TRAP("mov rt_arg(%%rip), %%rcx; movq $77, (%%rcx)", "i"(0));
}

static u64 ex(u64 a)
{
	rt_arg = a;
	return TRAP("call *rt_arg(%%rip)", "i"(0));
}

static void fault_is(const char *name, u64 vector, u64 error)
{
	check(name, vector, 14);
	check("  error", trap.error, error);
}

static void accessed_dirty(void)
{
	map_small(PA1 | 7);
	rd(WINDOW);
	check("read sets A", pt[0] & 0x60, 0x20);
	check("  of the PDE", pd[0] & 0x60, 0x20);
	check("  of the PDPTE", pdpt[0] & 0x60, 0x20);
	check("  of the PML4E", rt_pml4[2] & 0x60, 0x20);
	wr(WINDOW);
	check("write sets D after a read", pt[0] & 0x60, 0x60);
	check("  not in the PDE", pd[0] & 0x40, 0);
	map_small(PA1 | 7);
	wr(WINDOW);
	check("write sets A and D", pt[0] & 0x60, 0x60);
	map_small(PA1 | 5);
	fault_is("write to read-only", wr(WINDOW), 3);
	check("  sets no D", pt[0] & 0x40, 0);
	map_small(PA1 | 7);
	rt_arg = WINDOW;
	*(u64 *)PA1 = 1;
	TRAP("mov rt_arg(%%rip), %%rcx; mov $5, %%eax; mov $6, %%edx; lock cmpxchg %%rdx, (%%rcx)", "i"(0));
	check("failing cmpxchg sets D", pt[0] & 0x60, 0x60);
	pd[1] = PA2 | 0x87;
	flush();
	rd(WINDOW + 0x212345);
	check("2 MiB page: A", pd[1] & 0x60, 0x20);
	wr(WINDOW + 0x212345);
	check("2 MiB page: A and D", pd[1] & 0x60, 0x60);
	if (cpuid(0x80000001, 0).d >> 26 & 1) {
		pdpt[1] = 0x87;
		flush();
		rd(WINDOW + 0x40000000 + PA1);
		check("1 GiB page: A", pdpt[1] & 0x60, 0x20);
		wr(WINDOW + 0x40000000 + PA1);
		check("1 GiB page: A and D", pdpt[1] & 0x60, 0x60);
		check("1 GiB page: data", *(u64 *)PA1, 77);
		pdpt[1] = 0x2087;
		flush();
		fault_is("1 GiB page: reserved bit 13", rd(WINDOW + 0x40000000), 9);
		pdpt[1] = 0;
	} else {
		lacks("1 GiB pages");
	}
}

USER(u_read, "mov $0x10000000000, %rcx; mov (%rcx), %rax");
USER(u_write, "mov $0x10000000000, %rcx; mov %rax, (%rcx)");
USER(u_exec, "mov $0x10000000000, %rcx; jmp *%rcx");

static void protection(void)
{
	map_small(PA1 | 5);
	WRITE_CR(0, READ_CR(0) & ~0x10000ul);
	check("supervisor write, WP clear", wr(WINDOW), 0xff);
	check("  D", pt[0] & 0x40, 0x40);
	fault_is("user write, WP clear", user(u_write), 7);
	WRITE_CR(0, READ_CR(0) | 0x10000);
	fault_is("supervisor write, WP set again", wr(WINDOW), 3);
	map_small(PA1 | 7);
	pd[0] &= ~2ul;
	flush();
	fault_is("read-only by the PDE", wr(WINDOW), 3);
	map_small(PA1 | 3);
	fault_is("user reads supervisor page", user(u_read), 5);
	check("  cr2", trap.cr2, WINDOW);
	fault_is("user writes supervisor page", user(u_write), 7);
	fault_is("user executes supervisor page", user(u_exec), 0x15);
	map_small(PA1 | 7);
	pdpt[0] &= ~4ul;
	flush();
	fault_is("supervisor by the PDPTE", user(u_read), 5);
	map_small(0);
	fault_is("user reads absent", user(u_read), 4);
	fault_is("user writes absent", user(u_write), 6);
	fault_is("user executes absent", user(u_exec), 0x14);
	map_small(PA1 | 7);
	check("user reads", user(u_read), 0xff);
	pd[0] |= 1ul << 63;
	flush();
	*(u8 *)PA1 = 0xc3;
	fault_is("NX by the PDE", ex(WINDOW), 0x11);
	wrmsr(0xc0000080, rdmsr(0xc0000080) & ~0x800ul);
	flush();
	fault_is("NX bit without NXE is reserved", rd(WINDOW), 9);
	fault_is("  write", wr(WINDOW), 0xb);
	pd[0] &= ~(1ul << 63);
	flush();
	check("exec without NX", ex(WINDOW), 0xff);
	wrmsr(0xc0000080, rdmsr(0xc0000080) | 0x800);
	map_small(PA1 | 7 | 1ul << 50);
	fault_is("reserved address bit", rd(WINDOW), 9);
	map_small(PA1 | 7);
	pdpt[0] |= 0x80;
	pd[1] = PA2 | 0x2087;
	flush();
	pdpt[0] = (u64)pd | 7;
	flush();
	fault_is("2 MiB page: reserved bit 13", rd(WINDOW + 0x200000), 9);
	rt_pml4[2] |= 0x80;
	flush();
	fault_is("PML4E with PS", rd(WINDOW), 9);
}

static void smep_smap(void)
{
	map_small(PA1 | 7);
	*(u8 *)PA1 = 0xc3;
	rt_pml4[0] &= ~4ul; /* our own code and data: supervisor */
	flush();
	if (cpuid(7, 0).b >> 7 & 1) {
		WRITE_CR(4, READ_CR(4) | 0x100000);
		fault_is("SMEP", ex(WINDOW), 0x11);
		check("SMEP: reading goes", rd(WINDOW), 0xff);
		WRITE_CR(4, READ_CR(4) & ~0x100000ul);
		check("without SMEP", ex(WINDOW), 0xff);
	} else {
		lacks("SMEP");
	}
	if (cpuid(7, 0).b >> 20 & 1) {
		check("clac", TRAP("pushfq; orl $0x40000, (%%rsp); popfq; clac; pushfq; pop rt_ret(%%rip)", "i"(0)), 0xff);
		check("  AC", rt_ret & 0x40000, 0);
		WRITE_CR(4, READ_CR(4) | 0x200000);
		fault_is("SMAP read", rd(WINDOW), 1);
		fault_is("SMAP write", wr(WINDOW), 3);
		rt_arg = WINDOW;
		check("stac", TRAP("stac; mov rt_arg(%%rip), %%rcx; mov (%%rcx), %%rax; clac", "i"(0)), 0xff);
		fault_is("after clac", TRAP("stac; mov rt_arg(%%rip), %%rcx; mov (%%rcx), %%rax; clac; mov (%%rcx), %%rax", "i"(0)), 1);
		check("SMAP: execution goes", ex(WINDOW), 0xff);
		map_small(PA1 | 3);
		check("SMAP: supervisor page", rd(WINDOW), 0xff);
		WRITE_CR(4, READ_CR(4) & ~0x200000ul);
	} else {
		lacks("SMAP");
	}
	rt_pml4[0] |= 4;
	flush();
}

/* Each leaves stale entries behind and checks that the flush in question removes them. */
static void flushes(void)
{
	u64 desc[2] = {0, WINDOW};

	for (u64 i = 0; i < 512; i++)
		*(u64 *)(PA1 + i * 4096) = 1, *(u64 *)(PA2 + i * 4096) = 2;
	map_small(PA1 | 7);
	rd(WINDOW);
	pt[0] = PA2 | 7;
	invlpg(WINDOW + 0x7ff);
	rd(WINDOW);
	check("invlpg", rt_ret, 2);
	pd[1] = PA1 | 0x87;
	for (u64 a = 0; a < 0x200000; a += 4096 * 37)
		rd(WINDOW + 0x200000 + a);
	pd[1] = PA2 | 0x87;
	invlpg(WINDOW + 0x200000 + 0x155000);
	for (u64 a = 0, n = 0; a < 0x200000; a += 4096 * 37) {
		rd(WINDOW + 0x200000 + a);
		n += rt_ret;
		if (a + 4096 * 37 >= 0x200000)
			check("invlpg of a large page flushes all of it", n, 2 * 14);
	}
	WRITE_CR(4, READ_CR(4) | 0x80);
	map_small(PA1 | 0x107);
	rd(WINDOW);
	pt[0] = PA2 | 0x107;
	flush();
	rd(WINDOW); /* may be stale */
	WRITE_CR(4, READ_CR(4) & ~0x80ul);
	rd(WINDOW);
	check("PGE cleared", rt_ret, 2);
	WRITE_CR(4, READ_CR(4) | 0x80);
	rd(WINDOW);
	pt[0] = PA1 | 0x107;
	invlpg(WINDOW);
	rd(WINDOW);
	check("invlpg of a global page", rt_ret, 1);
	pt[0] = PA2 | 7;
	WRITE_CR(4, READ_CR(4) & ~0x80ul);
	rd(WINDOW);
	check("global no more", rt_ret, 2);
	check("CR3 bit 63 without PCID", TRAP("mov %%cr3, %%rax; bts $63, %%rax; mov %%rax, %%cr3", "i"(0)), 13);
	if (!(cpuid(1, 0).c >> 17 & 1)) {
		lacks("PCID");
		return;
	}
	WRITE_CR(3, READ_CR(3) | 0x18);
	check("PCIDE with a low bit in CR3", TRAP("mov %%cr4, %%rax; bts $17, %%rax; mov %%rax, %%cr4", "i"(0)), 13);
	WRITE_CR(3, READ_CR(3) & ~0x18ul);
	WRITE_CR(4, READ_CR(4) | 0x20000);
	check("PCIDE", READ_CR(4) >> 17 & 1, 1);
	pt[0] = PA1 | 7;
	WRITE_CR(3, (u64)rt_pml4 | 1);
	rd(WINDOW);
	check("PCID 1", rt_ret, 1);
	WRITE_CR(3, (u64)rt_pml4 | 2);
	rd(WINDOW);
	pt[0] = PA2 | 7;
	WRITE_CR(3, (u64)rt_pml4 | 1);
	rd(WINDOW);
	check("CR3 with its PCID flushes", rt_ret, 2);
	WRITE_CR(3, (u64)rt_pml4 | 1 | 1ul << 63);
	check("CR3 as read has no bit 63", READ_CR(3), (u64)rt_pml4 | 1);
	WRITE_CR(3, (u64)rt_pml4 | 2);
	rd(WINDOW);
	check("and that of the other", rt_ret, 2);
	if (cpuid(7, 0).b >> 10 & 1) {
		for (u64 type = 0; type < 4; type++) {
			desc[0] = type >= 2 ? 0 : 2;
			pt[0] = (type & 1 ? PA2 : PA1) | 7;
			__asm__ volatile("invpcid %0, %1" ::"m"(desc), "r"(type) : "memory");
			rd(WINDOW);
			check("invpcid", rt_ret, type & 1 ? 2 : 1);
		}
		check("invpcid type 4", TRAP("mov $4, %%eax; invpcid %0, %%rax", "m"(desc)), 13);
		desc[0] = 0x1000;
		check("invpcid reserved bits", TRAP("xor %%eax, %%eax; invpcid %0, %%rax", "m"(desc)), 13);
		desc[0] = 2, desc[1] = 1ul << 63;
		check("invpcid not canonical", TRAP("xor %%eax, %%eax; invpcid %0, %%rax", "m"(desc)), 13);
	} else {
		lacks("INVPCID");
	}
	WRITE_CR(4, READ_CR(4) & ~0x20000ul);
	check("CR3 keeps its low bits", READ_CR(3) & 0xfff, 2);
	WRITE_CR(3, rt_pml4);
}

static void permissions_change(void)
{
	map_small(PA1 | 7);
	wr(WINDOW);
	pt[0] = PA1 | 5;
	invlpg(WINDOW);
	fault_is("made read-only", wr(WINDOW), 3);
	pt[0] = PA1 | 7;
	check("made writable after its fault", wr(WINDOW), 0xff);
	pt[0] = PA1 | 0x67;
	invlpg(WINDOW);
	rd(WINDOW);
	pt[0] = PA1 | 7; /* D and A taken away */
	invlpg(WINDOW);
	wr(WINDOW);
	check("D set again", pt[0] & 0x60, 0x60);
	pd[0] = PA1 | 0x87; /* small becomes large and back */
	flush();
	*(u64 *)(PA1 + 0x5000) = 0x55;
	rd(WINDOW + 0x5000);
	check("small to large", rt_ret, 0x55);
	pt[5] = (PA1 + 0x6000) | 7;
	*(u64 *)(PA1 + 0x6000) = 0x66;
	pd[0] = (u64)pt | 7;
	invlpg(WINDOW + 0x5000);
	rd(WINDOW + 0x5000);
	check("large to small", rt_ret, 0x66);
}

void guest_main(void)
{
	accessed_dirty();
	protection();
	smep_smap();
	flushes();
	permissions_change();
}
