/* insn_bench: see bench_guest.c */
#include <stdio.h>
#include <time.h>

#include "tests/insn/harness.h"

u64 bench_run(const void *code, unsigned len);

#define LOOP(name, text)                                                                                         \
	__asm__(".section .rodata\n" #name ": movl $20000000, %ecx\n1:" text "dec %ecx\n jnz 1b\n hlt\n" #name     \
		"_end:\n.text\n");                                                                               \
	extern const u8 name[], name##_end[]

LOOP(loop_alu, "add %rax, %rbx\n xor %rbx, %rdx\n lea 8(%rdx,%rax), %r8\n mov %r8, %r9\n and $0xff, %r9d\n");
LOOP(loop_mem, "mov (%rsi), %rax\n add $1, %rax\n mov %rax, 8(%rsi)\n mov 16(%rsi), %edx\n cmp %edx, %eax\n");
LOOP(loop_call, "call 2f\n jmp 3f\n 2: push %rbx\n mov %rsp, %rbx\n pop %rbx\n ret\n 3: test %rbx, %rbx\n je 4f\n nop\n 4:\n");

static void bench(const char *name, const u8 *code, const u8 *end)
{
	struct timespec a, b;
	double s, n;

	clock_gettime(CLOCK_MONOTONIC, &a);
	n = (double)bench_run(code, (unsigned)(end - code));
	clock_gettime(CLOCK_MONOTONIC, &b);
	s = (double)(b.tv_sec - a.tv_sec) + (double)(b.tv_nsec - a.tv_nsec) / 1e9;
	printf("%-6s %6.1f M insn/s (%.0f M in %.2f s)\n", name, n / s / 1e6, n / 1e6, s);
}

int main(void)
{
	if (!harness_init())
		return 1;
	bench("alu", loop_alu, loop_alu_end);
	bench("memory", loop_mem, loop_mem_end);
	bench("calls", loop_call, loop_call_end);
	return 0;
}
