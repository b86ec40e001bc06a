/* Direct calls and jumps between pages: where they led before must not decide where they go when the mapping is another. */
#include "spaces.h"

#define CALLER 0x20000ul /* in a window: the page of the calls, one frame for all spaces */
#define ROUNDS 40

/* Functions before and behind the caller: two in each of two pages. */
static const u64 offsets[] = {0x10000, 0x10120, 0x30000, 0x30120};
#define PLACES (sizeof(offsets) / sizeof(offsets[0]))

static u64 caller_frame(void)
{
	return PAGE_OF_TESTS + 64 * 4096;
}

static u64 frame(unsigned s, u64 offset)
{
	return PAGE_OF_TESTS + (s * 2 + (offset >> 17 & 1)) * 4096;
}

static u32 value(unsigned s, u64 offset)
{
	return (s + 1) * 0x1000 + (u32)(offset >> 12) + (offset & 0xfff ? 1 : 0);
}

static void write_function(u64 at, u32 v)
{
	volatile u8 *p = (u8 *)at;

	p[0] = 0xb8;
	*(volatile u32 *)(p + 1) = v;
	p[5] = 0xc3;
}

static u8 *put_rel32(u8 *p, u8 op, u64 target)
{
	*p = op;
	*(u32 *)(p + 1) = (u32)(target - (CALLER + (((u64)p + 5) & 0xfff)));
	return p + 5;
}

/* xor edx, edx; mov esi, ROUNDS; 1: (call f; add rdx, rax) ...; dec esi; jnz 1b; mov rax, rdx; ret */
static void write_caller(void)
{
	u8 *p = (u8 *)caller_frame(), *loop;

	*p++ = 0x31, *p++ = 0xd2, *p++ = 0xbe;
	*(u32 *)p = ROUNDS;
	loop = p += 4;
	for (unsigned i = 0; i < PLACES; i++) {
		p = put_rel32(p, 0xe8, offsets[i]);
		*p++ = 0x48, *p++ = 0x01, *p++ = 0xc2;
	}
	*p++ = 0xff, *p++ = 0xce, *p++ = 0x75;
	*p = (u8)(loop - (p + 1));
	p++;
	*p++ = 0x48, *p++ = 0x89, *p++ = 0xd0, *p++ = 0xc3;
	put_rel32((u8 *)caller_frame() + 0x800, 0xe9, CALLER + 0x1000); /* jmp to the next page */
	/* 1: mov ecx, 3; 2: dec ecx; jnz 2b (through the next page); a conditional jump to a far place */
	p = (u8 *)caller_frame() + 0x900;
	*p++ = 0x85, *p++ = 0xff; /* test edi, edi */
	*p++ = 0x0f;
	p = put_rel32(p, 0x84, 0x30000); /* jz */
	p = put_rel32(p, 0xe9, 0x10000);
}

static void make(unsigned s)
{
	struct space *sp = &space[s];

	space_tables(sp);
	sp->pml4[255] = sp->pml4[2]; /* the end of the lower half */
	sp->pdpt[511] = sp->pdpt[0];
	sp->pd[511] = sp->pd[0];
	sp->pt[CALLER >> 12] = sp->pt[511] = caller_frame() | 7;
	sp->pt[(CALLER >> 12) + 1] = sp->pt[0x30] = frame(s, 0x30000) | 7;
	sp->pt[0x10] = frame(s, 0x10000) | 7;
	for (unsigned i = 0; i < PLACES; i++)
		write_function(frame(s, offsets[i]) + (offsets[i] & 0xfff), value(s, offsets[i]));
}

static u64 sum_of(unsigned s)
{
	u64 sum = 0;

	for (unsigned i = 0; i < PLACES; i++)
		sum += value(s, offsets[i]);
	return sum * ROUNDS;
}

u64 where, edi; /* what u_go and k_go call, and with what */
#define GO "mov where(%rip), %rcx; mov edi(%rip), %edi; call *%rcx"
USER(u_go, GO);
extern void k_go(void);
__asm__(".text\nk_go:\n" GO "\nret");

static u64 wrong(u64 at, u64 arg, u64 want)
{
	u64 bad;

	where = at, edi = arg;
	bad = user(u_go) != 0xff || rt_ret != want;
	return bad + (TRAP("call k_go; mov %%rax, rt_ret(%%rip)", "i"(0)) != 0xff || rt_ret != want);
}

static void everywhere(const char *name)
{
	u64 bad = 0;

	for (unsigned round = 0; round < 12; round++) {
		for (unsigned i = 0; i < SPACES; i++) {
			unsigned s = round & 1 ? SPACES - 1 - i : i;

			go(s);
			bad += wrong(WINDOW + CALLER, 0, sum_of(s));
			bad += wrong(WINDOW + CALLER + 0x800, 0, value(s, 0x30000));
			bad += wrong(WINDOW + CALLER + 0x900, 0, value(s, 0x30000));
			bad += wrong(WINDOW + CALLER + 0x900, 1, value(s, 0x10000));
			bad += wrong(HIGH + CALLER, 0, sum_of(0));
		}
	}
	check(name, bad, 0);
}

static void remapped(void)
{
	const u64 more = ROUNDS * 2 * 0x1000ul; /* of two places: those of the space with the next number */

	go(1);
	check("before INVLPG", wrong(WINDOW + CALLER, 0, sum_of(1)), 0);
	space[1].pt[0x30] = frame(2, 0x30000) | 7;
	invlpg(WINDOW + 0x30000);
	check("after INVLPG", wrong(WINDOW + CALLER, 0, sum_of(1) + more), 0);
	go(2);
	check("another space", wrong(WINDOW + CALLER, 0, sum_of(2)), 0);
	go(1);
	check("and back", wrong(WINDOW + CALLER, 0, sum_of(1) + more), 0);
	space[1].pt[0x30] = frame(1, 0x30000) | 7;
	WRITE_CR(3, (u64)space[1].pml4 | (pcid_on ? 2 : 0));
	check("after CR3", wrong(WINDOW + CALLER, 0, sum_of(1)), 0);
	space[1].pt[0x30] = 0;
	invlpg(WINDOW + 0x30000);
	where = WINDOW + CALLER;
	check("page gone", user(u_go), 14);
	check("  error", trap.error, 0x14);
	check("  cr2", trap.cr2, WINDOW + 0x30000);
	check("  at the target", trap.rip, WINDOW + 0x30000);
	space[1].pt[0x30] = frame(1, 0x30000) | 5 | 1ul << 63;
	if (rdmsr(0xc0000080) >> 11 & 1) {
		invlpg(WINDOW + 0x30000);
		check("page not executable", user(u_go), 14);
		check("  error", trap.error, 0x15);
	}
	space[1].pt[0x30] = frame(1, 0x30000) | 7;
	invlpg(WINDOW + 0x30000);
}

/* The target is written anew: what led to the old code leads to the new one, and so on. */
static void rewritten(void)
{
	u64 bad = 0;

	go(3);
	for (u32 i = 1; i < 60; i++) {
		write_function(frame(3, 0x10000), value(3, 0x10000) + i);
		for (unsigned k = 0; k < 4; k++)
			bad += wrong(WINDOW + CALLER, 0, sum_of(3) + ROUNDS * (u64)i);
	}
	write_function(frame(3, 0x10000), value(3, 0x10000));
	check("rewritten", bad, 0);
}

/*
 * An instruction that begins in a page all spaces share and goes on in one that each has for itself, where it is another: add edx, imm32 of
 * 6 bytes, or of a register with a displacement in its place.
 */
static void in_two_pages(void)
{
	volatile u8 *p = (u8 *)caller_frame() + 0xffd;
	u64 bad = 0;

	p[0] = 0x31, p[1] = 0xc0, p[2] = 0x83; /* xor eax, eax; 83 ... */
	for (unsigned s = 0; s < SPACES; s++) {
		volatile u8 *q = (u8 *)frame(s, 0x30000);

		if (s & 1) /* add eax, s; ret */
			q[0] = 0xc0, q[1] = (u8)s, q[2] = 0xc3;
		else /* add dword [rip + 9], 5; mov eax, [rip + 3]; ret */
			q[0] = 0x05, *(volatile u32 *)(q + 1) = 0x20 - 6, q[5] = 5, q[6] = 0x8b, q[7] = 0x05, *(volatile u32 *)(q + 8) = 0x20 - 12,
			q[12] = 0xc3, *(volatile u32 *)(q + 0x20) = 0;
	}
	for (u32 round = 0; round < 30; round++)
		for (unsigned s = 0; s < SPACES; s++) {
			go(s);
			bad += wrong(WINDOW + CALLER + 0xffd, 0, s & 1 ? s : round * 10 + 5) != (s & 1 ? 0 : 1);
		}
	check("an instruction in two pages", bad, 0);
	for (unsigned s = 0; s < SPACES; s++)
		for (unsigned i = 0; i < PLACES; i++)
			write_function(frame(s, offsets[i]) + (offsets[i] & 0xfff), value(s, offsets[i]));
}

/* The last page of the lower half: the jump that was good elsewhere leads to no address. */
static void not_canonical(void)
{
	go(0);
	check("jump, canonical", wrong(WINDOW + CALLER + 0x800, 0, value(0, 0x30000)), 0);
	where = 0x7ffffffff800;
	for (unsigned i = 0; i < 4; i++) {
		check("jump, not canonical", TRAP("call k_go", "i"(0)), 13);
		check("  at the jump", trap.rip, 0x7ffffffff800);
		check("the same, CPL 3", user(u_go), 13);
		check("  at the jump", trap.rip, 0x7ffffffff800);
	}
}

/*
 * Returns that go elsewhere than their call: each time around, the callee puts another address in place of its own. The places differ
 * in their pages, and in where they lie in the page by as much as the pages differ.
 */
#define RETURNS 64
u64 returns_to[RETURNS + 1];
#define RETURN                                                                                                   \
	"xor %edx, %edx; lea returns_to(%rip), %rdi; lea 2f(%rip), %rsi\n1: mov (%rdi), %rcx; test %rcx, %rcx; jz 4f\n"  \
	"call 3f\nud2\n2: add $8, %rdi; jmp 1b\n3: mov %rcx, (%rsp); ret\n4: mov %rdx, %rax"
USER(u_return, RETURN);
extern void k_return(void);
__asm__(".text\nk_return:\n" RETURN "\nret");

static u64 return_place(unsigned i)
{
	return (i & 1 ? 0x30000 : 0x10000) + 0x400 + (i >> 1) * 16 + (i >> 1 & 3);
}

static void returns_elsewhere(void)
{
	u64 bad = 0, want = 0;

	for (unsigned s = 0; s < 2; s++)
		for (unsigned i = 0; i < RETURNS; i++) {
			volatile u8 *p = (u8 *)frame(s, return_place(i)) + (return_place(i) & 0xfff);

			p[0] = 0x48, p[1] = 0x81, p[2] = 0xc2; /* add rdx, s * 1000 + i */
			*(volatile u32 *)(p + 3) = s * 1000 + i;
			p[7] = 0xff, p[8] = 0xe6; /* jmp rsi */
		}
	for (unsigned round = 0; round < 40; round++) {
		go(round & 1);
		want = 0;
		for (unsigned i = 0; i < RETURNS; i++) {
			unsigned k = (i * 7 + round) % RETURNS;

			returns_to[i] = WINDOW + return_place(k);
			want += (round & 1) * 1000 + k;
		}
		bad += user(u_return) != 0xff || rt_ret != want;
		bad += TRAP("call k_return; mov %%rax, rt_ret(%%rip)", "i"(0)) != 0xff || rt_ret != want;
	}
	check("returns elsewhere", bad, 0);
}

/* More calls than any table of returns holds, then all their returns; and calls that are never returned from. */
u8 deep_stack[32768];
static void deep(void)
{
	u64 bad = 0;

	for (unsigned i = 0; i < 4; i++) {
		bad += TRAP("mov $3000, %%ecx; xor %%eax, %%eax; mov %%rsp, %%rsi; lea deep_stack+32768(%%rip), %%rsp; call 1f; jmp 2f\n"
			    "1: inc %%eax; dec %%ecx; jz 3f; call 1b\n3: add $2, %%eax; ret\n2: mov %%rsi, %%rsp; mov %%rax, rt_ret(%%rip)",
			    "i"(0)) != 0xff;
		bad += rt_ret != 9000;
		bad += TRAP("mov $3000, %%ecx; mov %%rsp, %%rsi; lea deep_stack+32768(%%rip), %%rsp\n"
			    "1: call 2f\n2: dec %%ecx; jnz 1b; mov %%rsi, %%rsp", "i"(0)) != 0xff;
	}
	check("deep calls", bad, 0);
}

static void all(const char *name)
{
	everywhere(name);
	remapped();
	rewritten();
	not_canonical();
	in_two_pages();
	returns_elsewhere();
	deep();
}

void guest_main(void)
{
	for (unsigned s = 0; s < SPACES; s++)
		make(s);
	write_caller();
	all("spaces");
	if (cpuid(1, 0).c >> 17 & 1) {
		WRITE_CR(3, (u64)space[0].pml4);
		WRITE_CR(4, READ_CR(4) | 0x20000);
		pcid_on = 1;
		all("spaces with PCIDs");
		WRITE_CR(3, (u64)space[0].pml4);
		WRITE_CR(4, READ_CR(4) & ~0x20000ul);
	} else {
		lacks("PCID");
	}
	WRITE_CR(3, rt_pml4);
	guest_exit(0);
}
