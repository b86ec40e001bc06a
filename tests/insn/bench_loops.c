/*
 * bench_loops [interp|translate]: loops of typical code on a whole engine, in guest instructions per second. Long mode, one vCPU,
 * nothing but the loop.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/base.h"
#include "kvm/kvm.h"

enum { RAM = 4 << 20, CODE = 0x100000, DATA = 0x200000, COUNT = 30000000 };

#define LOOP(name, text)                                                                                         \
	__asm__(".section .rodata\n" #name ": movl $30000000, %ecx\n1:" text "dec %ecx\n jnz 1b\n hlt\n" #name     \
		"_end:\n.text\n");                                                                               \
	extern const u8 name[], name##_end[]

LOOP(loop_alu, "add %rax, %rbx\n xor %rbx, %rdx\n lea 8(%rdx,%rax), %r8\n mov %r8, %r9\n and $0xff, %r9d\n");
LOOP(loop_mem, "mov (%rsi), %rax\n add $1, %rax\n mov %rax, 8(%rsi)\n mov 16(%rsi), %edx\n cmp %edx, %eax\n");
LOOP(loop_call, "call 2f\n jmp 3f\n 2: push %rbx\n mov %rsp, %rbx\n pop %rbx\n ret\n 3: test %rbx, %rbx\n je 4f\n nop\n 4:\n");

static const struct {
	const char *name;
	const u8 *code, *end;
	unsigned each; /* instructions a round */
} loops[] = {{"alu", loop_alu, loop_alu_end, 7}, {"memory", loop_mem, loop_mem_end, 7}, {"calls", loop_call, loop_call_end, 10}};

struct guest {
	struct kvm_obj *sys, *vm, *cpu;
	u8 *ram;
};

static void die(const char *what)
{
	fprintf(stderr, "bench_loops: %s\n", what);
	exit(1);
}

/* The low 4 MiB by 2 MiB pages. */
static void long_mode(struct guest *g)
{
	u64 *pml4 = (u64 *)(g->ram + 0x1000), *pdpt = (u64 *)(g->ram + 0x2000), *pd = (u64 *)(g->ram + 0x3000);
	struct kvm_segment cs = {.limit = ~0u, .selector = 8, .type = 11, .present = 1, .s = 1, .l = 1, .g = 1};
	struct kvm_segment ds = {.limit = ~0u, .selector = 16, .type = 3, .present = 1, .s = 1, .db = 1, .g = 1};
	struct kvm_sregs s;

	pml4[0] = 0x2003;
	pdpt[0] = 0x3003;
	pd[0] = 0x83;
	pd[1] = 0x200083;
	kvm_ioctl(g->cpu, KVM_GET_SREGS, &s);
	s.cs = cs;
	s.ds = s.es = s.ss = s.fs = s.gs = ds;
	s.cr0 = 0x80000011;
	s.cr3 = 0x1000;
	s.cr4 = 0x20;
	s.efer = 0x500;
	kvm_ioctl(g->cpu, KVM_SET_SREGS, &s);
}

static void start(struct guest *g, enum kvm_choice choice)
{
	struct kvm_open_result res;
	struct kvm_userspace_memory_region mem = {.memory_size = RAM};

	if (kvm_open(choice, &g->sys, &res) < 0)
		die(res.why);
	g->ram = kvm_ram_alloc(RAM, NULL);
	mem.userspace_addr = (u64)g->ram;
	if (!g->ram || kvm_create_vm(g->sys, 0, &g->vm) < 0 || kvm_ioctl(g->vm, KVM_SET_USER_MEMORY_REGION, &mem) < 0 ||
	    kvm_create_vcpu(g->vm, 0, &g->cpu) < 0)
		die("the engine cannot be set up");
	long_mode(g);
}

static void measure(struct guest *g, const char *tier, unsigned i)
{
	struct kvm_regs r = {.rip = CODE, .rflags = 2, .rsp = DATA + 0x2000, .rsi = DATA, .rdi = DATA};
	struct timespec a, b;
	double s, n;

	memcpy(g->ram + CODE, loops[i].code, (size_t)(loops[i].end - loops[i].code));
	kvm_dma_written(g->vm, CODE, 4096);
	kvm_ioctl(g->cpu, KVM_SET_REGS, &r);
	clock_gettime(CLOCK_MONOTONIC, &a);
	if (kvm_ioctl(g->cpu, KVM_RUN, 0) < 0 || kvm_vcpu_run_area(g->cpu)->exit_reason != KVM_EXIT_HLT)
		die("the guest did not come to its end");
	clock_gettime(CLOCK_MONOTONIC, &b);
	s = (double)(b.tv_sec - a.tv_sec) + (double)(b.tv_nsec - a.tv_nsec) / 1e9;
	n = (double)loops[i].each * COUNT;
	printf("%-9s %-6s %7.0f M insn/s (%.0f M in %.2f s)\n", tier, loops[i].name, n / s / 1e6, n / 1e6, s);
}

int main(int argc, char **argv)
{
	static const char *const all[] = {"interp", "translate"};

	for (unsigned t = 0; t < ARRAY_SIZE(all); t++) {
		struct guest g;

		if (argc > 1 && strcmp(argv[1], all[t]) != 0)
			continue;
		start(&g, t ? KVM_CHOICE_TRANSLATE : KVM_CHOICE_INTERP);
		for (unsigned i = 0; i < ARRAY_SIZE(loops); i++)
			measure(&g, all[t], i);
		kvm_close(g.cpu);
		kvm_close(g.vm);
		kvm_close(g.sys);
		kvm_ram_free(g.ram, RAM);
	}
	return 0;
}
