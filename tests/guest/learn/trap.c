/* Trap and emulate: a small monitor in ring 0, and a program in ring 3 that believes it is a kernel. */
#include "learn.h"

static u64 virtual_if = 1, virtual_cr3 = 0x1000, emulated;

/* What a classic monitor does at #GP: look at the instruction, do it on the virtual machine's state, go on behind it. */
void learn_on_trap(struct frame *f)
{
	const u8 *code = (const u8 *)f->rip;

	emulated++;
	if (code[0] == 0xfa) { /* cli */
		virtual_if = 0;
		f->rip += 1;
	} else if (code[0] == 0xfb) { /* sti */
		virtual_if = 1;
		f->rip += 1;
	} else if (code[0] == 0x0f && code[1] == 0x20) { /* mov %cr3, %rax */
		f->rax = virtual_cr3;
		f->rip += 3;
	} else if (code[0] == 0x0f && code[1] == 0x22) { /* mov %rax, %cr3 */
		virtual_cr3 = f->rax;
		f->rip += 3;
	} else if (code[0] == 0xee) { /* out %al, %dx: its console is ours */
		out8(0x3f8, (u8)f->rax);
		f->rip += 1;
	} else { /* hlt: the virtual machine is done */
		f->rip += 1;
	}
}

static u64 seen_cr3;
static u32 seen_smsw;

static void guest_kernel(void)
{
	__asm__ volatile("cli\n\t"
			 "mov $0x2000, %%eax\n\t"
			 "mov %%rax, %%cr3\n\t"
			 "mov %%cr3, %%rax\n\t"
			 "mov %%rax, %0\n\t"
			 "smsw %%eax\n\t" /* does not trap: it sees the real CR0 */
			 "mov %%eax, %1\n\t"
			 "mov $0xe9, %%edx\n\t"
			 "mov $'!', %%al\n\t"
			 "out %%al, %%dx\n\t"
			 "mov $'\\n', %%al\n\t"
			 "out %%al, %%dx\n\t"
			 "sti\n\t"
			 "hlt\n\t"
			 "int $0x30" : "=m"(seen_cr3), "=m"(seen_smsw) : : "rax", "rdx", "memory");
}

void learn_main(void)
{
	learn_user(guest_kernel);
	say_hex("instructions that trapped and were emulated", emulated);
	say_hex("the guest sees CR3", seen_cr3);
	say_hex("the machine's CR3 ", READ_CR(3));
	say_hex("the guest sees CR0 by smsw, which does not trap", seen_smsw);
	say_hex("virtual IF", virtual_if);
}
