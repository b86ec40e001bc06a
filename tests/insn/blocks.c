/*
 * insn_blocks: what single instructions cannot show: code that writes code, instructions across pages, faults in the middle
 * of blocks, repeated strings over many pages, exact counts of retired instructions.
 */
#include <stdio.h>
#include <string.h>

#include "tests/insn/harness.h"

/* bench_guest.c: runs until a fault, returns the instructions retired. Code at T_CODE_VA + at; RSI, RDI at the data. */
u64 bench_run_at(const void *code, unsigned len, unsigned at);
u64 guest_gpr(unsigned n);
u64 guest_rip(void);

#define PROGRAM(name, text)                                                                                      \
	__asm__(".section .rodata\n" #name ": " text " hlt\n" #name "_end:\n.text\n");                           \
	extern const u8 name[], name##_end[]

/* Writes the immediate of the next instruction, in the same block. */
PROGRAM(smc_next, "movl $7, 1+1f(%rip)\n1: mov $1, %eax\n inc %eax\n");
/* A loop that rewrites its own body each time: eax = 0 + 1 + ... + 99 */
PROGRAM(smc_loop, "xor %ecx, %ecx\n xor %eax, %eax\n1: mov %ecx, 2f+1(%rip)\n2: add $0x12345678, %eax\n inc %ecx\n"
		  "cmp $100, %ecx\n jne 1b\n");
/* The first instruction of the block is overwritten through a jump back to it. */
PROGRAM(smc_back, "xor %ebx, %ebx\n1: mov $5, %eax\n add %eax, %ebx\n cmp $9, %eax\n je 2f\n movl $9, 1b+1(%rip)\n"
		  "jmp 1b\n2:");
/* Data beside code in one page, written often. */
PROGRAM(ping_pong, "mov $5000, %ecx\n1: incl 3f(%rip)\n dec %ecx\n jnz 1b\n mov 3f(%rip), %eax\n jmp 4f\n .balign 64\n"
		   "3: .long 0\n4:");
PROGRAM(fault_mid, "nop\n nop\n mov $1, %eax\n mov 0x7000000, %ebx\n nop\n");
PROGRAM(count_rep, "mov $3000, %ecx\n mov $0xab, %al\n rep stosb\n lea -3000(%rdi), %rsi\n mov $3000, %ecx\n rep movsb\n"
		   "dec %rdi\n movzbl (%rdi), %eax\n");
/* Overlapping copy spreads a pattern of three bytes. */
PROGRAM(overlap, "movl $0x00636261, (%rsi)\n lea 3(%rsi), %rdi\n mov $5000, %ecx\n rep movsb\n mov -3(%rdi), %eax\n"
		 "and $0xffffff, %eax\n");
PROGRAM(straight, "mov $3, %eax\n add $4, %eax\n imul %eax, %eax\n lea 1(%rax,%rax,2), %ebx\n mov %ebx, %eax\n");

static unsigned passed, failed;

static void check(const char *name, u64 got, u64 want)
{
	if (got == want) {
		passed++;
		return;
	}
	failed++;
	printf("%s: %llu, not %llu\n", name, (unsigned long long)got, (unsigned long long)want);
}

static void run(const char *name, const u8 *code, const u8 *end, unsigned at, u64 eax, u64 count)
{
	u64 n = bench_run_at(code, (unsigned)(end - code), at);

	check(name, (u32)guest_gpr(R_AX), eax);
	if (count)
		check(name, n, count);
}
#define RUN(name, at, eax, count) run(#name, name, name##_end, at, eax, count)

int main(void)
{
	if (!harness_init())
		return 1;
	RUN(smc_next, 0, 8, 3);
	RUN(smc_loop, 0, 4950, 2 + 5 * 100);
	RUN(smc_back, 0, 9, 1 + 6 + 4);
	check("smc_back sum", guest_gpr(R_BX), 14);
	RUN(ping_pong, 0, 5000, 1 + 3 * 5000 + 2);
	RUN(fault_mid, 0, 1, 3);
	check("fault_mid rip", guest_rip(), T_CODE_VA + 7);
	RUN(count_rep, 0, 0xab, 8);
	RUN(overlap, 0, 0x626163, 6);
	for (unsigned i = 0; i < sizeof("straight"); i++)
		RUN(straight, 4096 - 16 + i, 148, 5); /* each place of the page boundary */
	printf("%u passed, %u failed\n", passed, failed);
	return failed != 0;
}
