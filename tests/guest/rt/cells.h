/*
 * User code as a Linux kernel runs it: its selectors, FSGSBASE, interrupts on, a window of pages of its own. The engine may run such code
 * on the host's CPU as it is. User code starts with known registers and ends with its first event that nobody resumes.
 */
#ifndef CELLS_H
#define CELLS_H

#include "rt.h"

#define WINDOW 0x10000000000ul /* pml4[2] */
#define CODE   (WINDOW + 0x10000)
#define STACK  (WINDOW + 0x80000) /* four pages */
#define TOP    (STACK + 0x4000 - 256)
#define DATA   (WINDOW + 0x100000)
#define FRAME(n) (PAGE_OF_TESTS + (n) * 0x1000ul)
#define DATA_FRAME FRAME(16)      /* of DATA */
#define SYSCALL 0xfe              /* its vector, for handlers */
#define DONE    3                 /* U() ends with it, in one byte */
#define UCS 0x33
#define USS 0x2b
#define RF 0x10000ul
#define ARITH 0x8d5ul

/* U(name, asm): user code on pages that have nothing special. V: on pages with instructions that must not run as they are. */
#define U_IN(section, name, code)                                                                                \
	extern u8 name[];                                                                                        \
	__asm__(".pushsection " section ", \"ax\"\n.balign 16\n" #name ":\n" code "\nint3\n.popsection\n")
#define U(name, code) U_IN(".text.user", name, code)
#define V(name, code) U_IN(".text.userv", name, code)
__asm__(".pushsection .text.user, \"ax\"\n.balign 4096\nuser_text:\n.popsection\n"
	".pushsection .text.userv, \"ax\"\n.balign 4096\n.popsection\n");
extern u8 user_text[], user_text_end[];
#define U_END __asm__(".pushsection .text.userv, \"ax\"\n.balign 4096\nuser_text_end:\n.popsection\n")

/* Of a frame, and behind them RSP. */
enum { R15, R14, R13, R12, R11, R10, R9, R8, BP, DI, SI, DX, CX, BX, AX, SP };
#define M(n) (1ul << (n))
#define ANY_ARITH (1ul << 16) /* of what changed: also these flags, whatever they are */

static u64 wpdpt[512] __attribute__((aligned(4096))), wpd[512] __attribute__((aligned(4096)));
static u64 wpt[512] __attribute__((aligned(4096)));
struct frame in __attribute__((aligned(16))), out;
u64 k_rsp, sc_rsp;
static u64 out_cr2;
static int (*resume)(struct frame *f); /* whether user code goes on; NULL: never */
static int has_avx, has_fsgsbase;
void enter_user(struct frame *f);
extern u8 k_back[], lstar[];

#define SAVE "push %rax; push %rbx; push %rcx; push %rdx; push %rsi; push %rdi; push %rbp; push %r8; push %r9; push %r10; push %r11;"  \
	     "push %r12; push %r13; push %r14; push %r15;"
#define LOAD "pop %r15; pop %r14; pop %r13; pop %r12; pop %r11; pop %r10; pop %r9; pop %r8; pop %rbp; pop %rdi; pop %rsi; pop %rdx;"  \
	     "pop %rcx; pop %rbx; pop %rax; add $16, %rsp;"
__asm__(".text\n"
	"enter_user: push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15; mov %rsp, k_rsp(%rip); mov %rdi, %rsp\n"
	LOAD "iretq\n"
	"k_back: mov k_rsp(%rip), %rsp; pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx; ret\n"
	"lstar: mov %rsp, sc_rsp(%rip); lea trap_stack_top(%rip), %rsp\n"
	"pushq $0x2b; pushq sc_rsp(%rip); push %r11; pushq $0x33; push %rcx; pushq $0; pushq $0xfe\n"
	SAVE "mov %rsp, %rdi; cld; call rt_trap\n"
	LOAD "cmpq $0x33, 8(%rsp); jne 1f; mov (%rsp), %rcx; mov 16(%rsp), %r11; mov 24(%rsp), %rsp; sysretq\n"
	"1: iretq\n");

static int on_user(struct frame *f)
{
	const u64 *from = (const u64 *)f;
	u64 *to = (u64 *)&out;

	if ((f->cs & 3) != 3)
		return 0;
	out_cr2 = READ_CR(2);
	if (resume && resume(f))
		return 1;
	for (unsigned i = 0; i < sizeof(out) / 8; i++)
		to[i] = from[i];
	f->rip = (u64)k_back;
	f->cs = SEL_CODE;
	f->ss = SEL_DATA;
	f->rflags = 2;
	return 1;
}

static void flush(void)
{
	WRITE_CR(3, READ_CR(3));
}

static u64 *wpte(u64 a)
{
	return &wpt[a >> 12 & 511];
}

/* Where user code finds what is linked at p. */
static u64 at(const u8 *p)
{
	return CODE + (u64)(p - user_text);
}

static u64 user_flags = 0x202 | 0x845; /* arithmetic flags that no accident leaves */

static void fresh(void)
{
	for (unsigned i = 0; i < 15; i++)
		in.r[i] = 0x8101010101010101ul * (i + 3) + i;
	in.cs = UCS;
	in.ss = USS;
	in.rsp = TOP;
	in.rflags = user_flags;
}

/* From there to the event: its vector. The registers are those of in, which fresh() has set; they may differ from that. */
static u64 run_at(u64 rip)
{
	out.vector = 0xff;
	in.rip = rip;
	enter_user(&in);
	return out.vector;
}

static u64 run(const u8 *code)
{
	return run_at(at(code));
}

static u64 changed(void)
{
	u64 m = out.rsp != in.rsp ? M(SP) : 0;

	for (unsigned i = 0; i < 15; i++)
		m |= out.r[i] != in.r[i] ? M(i) : 0;
	return m;
}

/* A fault leaves RF in the flags that it pushes (SDM 3B 18.3.1.1). */
static u64 flags_of(u64 vector)
{
	u64 faults = 1ul << 0 | 1ul << 6 | 1ul << 7 | 1ul << 12 | 1ul << 13 | 1ul << 14 | 1ul << 16 | 1ul << 17 | 1ul << 19;

	return in.rflags | (vector < 32 && faults >> vector & 1 ? RF : 0);
}

/* Everything about the event; then the registers are fresh again. */
static void event_at(const char *name, u64 rip, u64 vector, u64 error, u64 offset, u64 what)
{
	u64 mask = what & ANY_ARITH ? ~ARITH : ~0ul;

	check(name, run_at(rip), vector);
	check("  error", out.error, error);
	check("  rip", out.rip - rip, offset);
	check("  changed", changed(), what & ~ANY_ARITH);
	check("  flags", out.rflags & mask, flags_of(vector) & mask);
	check("  cs, ss", out.cs << 16 | out.ss, UCS << 16 | USS);
	fresh();
}

static void event(const char *name, const u8 *code, u64 vector, u64 error, u64 offset, u64 what)
{
	event_at(name, at(code), vector, error, offset, what);
}

static void user_tables(void)
{
	rt_pml4[2] = (u64)wpdpt | 7;
	wpdpt[0] = (u64)wpd | 7;
	wpd[0] = (u64)wpt | 7;
	for (u8 *p = user_text; p < user_text_end; p += 4096)
		*wpte(at(p)) = (u64)p | 5;
	for (u64 i = 0; i < 4; i++)
		*wpte(STACK + i * 4096) = FRAME(8 + i) | 7 | 1ul << 63;
	*wpte(DATA) = DATA_FRAME | 7 | 1ul << 63;
	flush();
}

static void user_segments(void)
{
	u64 t = (u64)&tss;

	gdt[4] = 0x00cffa000000ffff; /* as Linux has them */
	gdt[5] = 0x00cff2000000ffff;
	gdt[6] = 0x00affa000000ffff;
	gdt[7] = 0;
	gdt[8] = (sizeof(tss) - 1) | (t & 0xffffff) << 16 | 0x890000000000 | (t >> 24 & 0xff) << 56;
	gdt[9] = t >> 32;
	__asm__ volatile("ltr %w0; mov %w1, %%ds; mov %w1, %%es; mov %w1, %%fs; mov %w1, %%gs" ::"r"(SEL_FREE), "r"(0));
	wrmsr(0xc0000100, 0);
	wrmsr(0xc0000101, 0);
	wrmsr(0xc0000081, (u64)SEL_CODE << 32 | 0x23ul << 48);
	wrmsr(0xc0000082, (u64)lstar);
	wrmsr(0xc0000084, 0x47700);
}

/* False: user code of this machine runs in no cell, but all must hold all the same. */
static int user_begin(void)
{
	outb(0x21, 0xff);
	outb(0xa1, 0xff);
	user_segments();
	user_tables();
	for (unsigned v = 0; v < 256; v++)
		if (v != 0x81)
			handlers[v] = on_user;
	if (cpuid(1, 0).c >> 26 & 1) {
		WRITE_CR(4, READ_CR(4) | 0x40000);
		has_avx = cpuid(1, 0).c >> 28 & 1;
		__asm__ volatile("xsetbv" ::"a"(has_avx ? 7 : 3), "d"(0), "c"(0));
	}
	has_fsgsbase = cpuid(7, 0).b & 1;
	if (has_fsgsbase)
		WRITE_CR(4, READ_CR(4) | 0x10000);
	fresh();
	put(has_fsgsbase ? "needs cells\n" : "lacks FSGSBASE\n");
	return has_fsgsbase;
}

#endif
