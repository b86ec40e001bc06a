/* Where an indirect jump went before must not decide where it goes after the mapping changed, in any address space. */
#include "spaces.h"

#define FAR    0x10000000ul /* bits above all that a jump cache could index by */
#define ROUNDS 40

static const u64 offsets[] = {0, 0x10000, 0x10120, 0x20000, 0x20120, FAR, FAR + 0x10120};
#define PLACES (sizeof(offsets) / sizeof(offsets[0]))

u64 targets[PLACES + 1];

/* Calls all targets, ROUNDS times; the sum of what they return. */
#define SUM                                                                                                      \
	"xor %edx, %edx; mov $40, %esi\n1: lea targets(%rip), %rdi\n2: mov (%rdi), %rcx; test %rcx, %rcx; jz 3f\n"   \
	"call *%rcx; add %rax, %rdx; add $8, %rdi; jmp 2b\n3: dec %esi; jnz 1b; mov %rdx, %rax"
USER(u_sum, SUM);
extern void k_sum(void);
__asm__(".text\nk_sum:\n" SUM "\nret");

/* Three pages of each space, at offsets 0, 64 KiB, 128 KiB, and again from FAR on; functions that return a number at 0 and 0x120 of each. */
static u64 code_page(unsigned s, unsigned page)
{
	return PAGE_OF_TESTS + (s * 3 + page) * 4096;
}

static void write_function(u64 at, u32 value)
{
	u8 *p = (u8 *)at;

	p[0] = 0xb8;
	*(u32 *)(p + 1) = value;
	p[5] = 0xc3;
}

static u32 value(unsigned s, unsigned page, u64 offset)
{
	return (s + 1) * 0x1000 + page * 0x10 + (offset & 0xfff ? 1 : 0);
}

static unsigned page_of(u64 offset)
{
	return (unsigned)(offset >> 16 & 3);
}

static void make(unsigned s)
{
	struct space *sp = &space[s];

	space_tables(sp);
	sp->pd[FAR >> 21] = sp->pd[0];
	for (unsigned page = 0; page < 3; page++)
		sp->pt[page * 16] = code_page(s, page) | 7;
	for (unsigned page = 0; page < 3; page++) {
		write_function(code_page(s, page), value(s, page, 0));
		write_function(code_page(s, page) + 0x120, value(s, page, 0x120));
	}
}

static u32 value_at(unsigned s, u64 offset)
{
	return value(s, page_of(offset), offset);
}

static u64 aim(u64 base, unsigned s)
{
	u64 sum = 0;

	for (unsigned i = 0; i < PLACES; i++) {
		targets[i] = base + offsets[i];
		sum += value_at(s, offsets[i]);
	}
	return sum * ROUNDS;
}

static void everywhere(const char *name)
{
	u64 bad = 0;

	for (unsigned round = 0; round < 12; round++) {
		for (unsigned i = 0; i < SPACES; i++) {
			unsigned s = round & 1 ? SPACES - 1 - i : i;
			u64 want = aim(WINDOW, s);

			go(s);
			bad += user(u_sum) != 0xff || rt_ret != want;
			bad += TRAP("call k_sum; mov %%rax, rt_ret(%%rip)", "i"(0)) != 0xff || rt_ret != want;
		}
	}
	check(name, bad, 0);
}

static void remapped(void)
{
	u64 want = 0;

	go(1);
	want = aim(WINDOW, 1);
	check("before INVLPG", user(u_sum), 0xff);
	check("  sum", rt_ret, want);
	space[1].pt[16] = code_page(1, 2) | 7;
	invlpg(WINDOW + 0x10000);
	invlpg(WINDOW + FAR + 0x10000);
	want += ROUNDS * (u64)(3 * 0x10); /* three of the places lie in that page */
	check("after INVLPG", user(u_sum), 0xff);
	check("  sum", rt_ret, want);
	go(2);
	aim(WINDOW, 2);
	check("another space", user(u_sum), 0xff);
	check("  sum", rt_ret, aim(WINDOW, 2));
	go(1);
	check("and back", user(u_sum), 0xff);
	check("  sum", rt_ret, want);
	space[1].pt[16] = code_page(1, 1) | 7;
	WRITE_CR(3, (u64)space[1].pml4 | (pcid_on ? 2 : 0));
	check("after CR3", user(u_sum), 0xff);
	check("  sum", rt_ret, aim(WINDOW, 1));
	space[1].pt[16] = 0;
	invlpg(WINDOW + 0x10000);
	invlpg(WINDOW + FAR + 0x10000);
	check("page gone", user(u_sum), 14);
	check("  error", trap.error, 0x14);
	check("  cr2", trap.cr2, WINDOW + 0x10000);
	space[1].pt[16] = code_page(1, 1) | 7;
}

/* The upper half is the same in all spaces: the table of the first one's window. */
static void high_half(void)
{
	u64 want = aim(HIGH, 0);

	for (unsigned s = 0; s < SPACES; s++) {
		go(s);
		check("upper half", TRAP("call k_sum; mov %%rax, rt_ret(%%rip)", "i"(0)), 0xff);
		check("  sum", rt_ret, want);
		check("  CPL 3", user(u_sum), 0xff);
		check("  sum", rt_ret, want);
	}
	space[0].pt[16] = code_page(0, 2) | 7;
	invlpg(HIGH + 0x10000);
	invlpg(HIGH + FAR + 0x10000);
	want += ROUNDS * (u64)(3 * 0x10);
	check("upper half after INVLPG", TRAP("call k_sum; mov %%rax, rt_ret(%%rip)", "i"(0)), 0xff);
	check("  sum", rt_ret, want);
	check("  CPL 3", user(u_sum), 0xff);
	check("  sum", rt_ret, want);
	space[0].pt[16] = code_page(0, 1) | 7;
	WRITE_CR(4, READ_CR(4) ^ 0x80);
	WRITE_CR(4, READ_CR(4) ^ 0x80);
	check("upper half after CR4", TRAP("call k_sum; mov %%rax, rt_ret(%%rip)", "i"(0)), 0xff);
	check("  sum", rt_ret, aim(HIGH, 0));
	check("  CPL 3", user(u_sum), 0xff);
	check("  sum", rt_ret, aim(HIGH, 0));
}

/* A jump to an address that is not canonical is the jump's fault, wherever a cache has such an address. */
static void not_canonical(void)
{
	check("jump, not canonical",
	      TRAP("lea 1f(%%rip), %%rdx; mov %%rdx, rt_ret(%%rip); mov $0x8000000000010120, %%rax\n1: jmp *%%rax", "i"(0)), 13);
	check("  at the jump", trap.rip - rt_ret, 0);
	check("push and ret, not canonical",
	      TRAP("lea 1f(%%rip), %%rdx; mov %%rdx, rt_ret(%%rip); mov $0x8000000000010000, %%rax; push %%rax\n1: ret", "i"(0)), 13);
	check("  at the ret", trap.rip - rt_ret, 0);
}

void guest_main(void)
{
	for (unsigned s = 0; s < SPACES; s++)
		make(s);
	everywhere("spaces");
	remapped();
	high_half();
	not_canonical();
	if (cpuid(1, 0).c >> 17 & 1) {
		WRITE_CR(3, (u64)space[0].pml4);
		WRITE_CR(4, READ_CR(4) | 0x20000);
		pcid_on = 1;
		everywhere("spaces with PCIDs");
		remapped();
		high_half();
		WRITE_CR(3, (u64)space[0].pml4);
		WRITE_CR(4, READ_CR(4) & ~0x20000ul);
	} else {
		lacks("PCID");
	}
	WRITE_CR(3, rt_pml4);
	guest_exit(0);
}
