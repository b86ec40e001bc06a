/* Traps, the interrupt stack table, single step, and faults on the way to a handler up to the double fault. */
#include "rt.h"

static u8 ist_stack[4096] __attribute__((aligned(16)));

static int resume_flag_seen;
static int on_debug(struct frame *f)
{
	resume_flag_seen++;
	f->rflags &= ~0x100ul;
	return 1;
}

static int after_ist(struct frame *f)
{
	note("ist frame inside its stack", (u64)f > (u64)ist_stack && (u64)f < (u64)ist_stack + sizeof(ist_stack));
	return 0;
}

static void software_interrupts(void)
{
	check("int3", TRAP("int3", "i"(0)), 3);
	check("int 0x80", TRAP("int $0x80", "i"(0)), 0x80);
	check("icebp", TRAP(".byte 0xf1", "i"(0)), 1);
	idt[12].ist = 1; /* the stack it faults on is no place for the frame */
	tss.ist[0] = (u64)ist_stack + sizeof(ist_stack);
	check("non-canonical stack", TRAP("mov $0x8000000000000000, %%rbx; xchg %%rbx, %%rsp; push %%rax; xchg %%rbx, %%rsp",
					  "i"(0)), 12);
	check("17-byte instruction", TRAP(".fill 15, 1, 0x66; nop", "i"(0)), 13);
}

static void debug_traps(void)
{
	handlers[1] = on_debug;
	__asm__ volatile("pushfq; orq $0x100, (%%rsp); popfq; nop; nop" ::: "memory", "cc");
	check("single step trapped", resume_flag_seen > 0, 1);
	__asm__ volatile("mov %0, %%dr0; mov %1, %%dr7" ::"r"(PAGE_OF_TESTS + 64), "r"(0x000d0402ul));
	resume_flag_seen = 0;
	*(volatile u32 *)(PAGE_OF_TESTS + 64) = 1;
	check("data breakpoint", resume_flag_seen, 1);
	*(volatile u32 *)(PAGE_OF_TESTS + 68) = 1;
	check("not its neighbour", resume_flag_seen, 1);
	__asm__ volatile("mov %0, %%dr7" ::"r"(0x400ul));
	handlers[1] = 0;
}

static void double_fault(void)
{
	u8 type = idt[6].type;

	idt[8].ist = 1;
	tss.ist[0] = (u64)ist_stack + sizeof(ist_stack);
	handlers[8] = after_ist;
	idt[13].type = 0; /* #GP's gate absent: #GP while delivering ... */
	idt[6].type = 0;
	check("ud2 with absent gates", TRAP("ud2", "i"(0)), 8);
	check("  error", trap.error, 0);
	idt[6].type = type;
	check("gp with absent gate", TRAP("mov $0x8000000000000000, %%rax; mov (%%rax), %%ecx", "i"(0)), 8);
	idt[13].type = type;
	idt[6].type = 0;
	check("absent gate type 0", TRAP("ud2", "i"(0)), 13);
	check("  error", trap.error, 6 * 8 + 3); /* IDT and EXT: met while delivering another (SDM 3A 6.13) */
	idt[6].type = type;
}

static void write_across_pages(void)
{
	u64 a = PAGE_OF_TESTS, *p = pte_of(a + 4096);

	*p = 0;
	invlpg(a + 4096);
	*(volatile u32 *)(a + 4092) = 0x11223344;
	rt_arg = a + 4094;
	check("write across into absent", TRAP("mov rt_arg(%%rip), %%rcx; movl $0x55667788, (%%rcx)", "i"(0)), 14);
	check("  cr2", trap.cr2, a + 4096);
	check("  nothing written", *(volatile u32 *)(a + 4092), 0x11223344);
	*p = (a + 4096) | 7;
	invlpg(a + 4096);
}

void guest_main(void)
{
	write_across_pages();
	software_interrupts();
	debug_traps();
	double_fault();
}
