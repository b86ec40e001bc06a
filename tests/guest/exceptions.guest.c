/* Every exception a program can cause: vector, error code, saved RIP, and what happens on the way (IST, nesting, double fault). */
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

static void simple_faults(void)
{
	check("div by zero", TRAP("xor %%ecx, %%ecx; div %%ecx", "i"(0)), 0);
	check("div overflow", TRAP("mov $1, %%edx; xor %%eax,%%eax; mov $1, %%ecx; div %%ecx", "i"(0)), 0);
	check("idiv min by -1", TRAP("mov $0x80000000, %%eax; cltd; mov $-1, %%ecx; idiv %%ecx", "i"(0)), 0);
	check("ud2", TRAP("ud2", "i"(0)), 6);
	check("lock on register form", TRAP(".byte 0xf0, 0x01, 0xc0", "i"(0)), 6);
	check("int3", TRAP("int3", "i"(0)), 3);
	check("int 0x80", TRAP("int $0x80", "i"(0)), 0x80);
	check("icebp", TRAP(".byte 0xf1", "i"(0)), 1);
	check("non-canonical", TRAP("mov $0x8000000000000000, %%rax; mov (%%rax), %%ecx", "i"(0)), 13);
	check("non-canonical error", trap.error, 0);
	idt[12].ist = 1; /* the stack it faults on is no place for the frame */
	tss.ist[0] = (u64)ist_stack + sizeof(ist_stack);
	check("non-canonical stack", TRAP("mov $0x8000000000000000, %%rbx; xchg %%rbx, %%rsp; push %%rax; xchg %%rbx, %%rsp",
					  "i"(0)), 12);
	check("wrmsr reserved", TRAP("mov $0xc0000080, %%ecx; xor %%eax,%%eax; mov $-1, %%edx; wrmsr", "i"(0)), 13);
	check("unknown msr", TRAP("mov $0x12345, %%ecx; rdmsr", "i"(0)), 13);
	check("mov cr0 PG without PE", TRAP("mov $0x80000000, %%eax; mov %%rax, %%cr0", "i"(0)), 13);
	check("mov cr4 reserved", TRAP("mov $-1, %%rax; mov %%rax, %%cr4", "i"(0)), 13);
	check("mov ds not present", (gdt[SEL_FREE / 8] = 0x00cf12000000ffff, TRAP("mov $64, %%eax; mov %%eax, %%ds", "i"(0))), 11);
	check("its error", trap.error, 64);
	check("mov ds beyond gdt", TRAP("mov $0xff8, %%eax; mov %%eax, %%ds", "i"(0)), 13);
	check("its error", trap.error, 0xff8);
	check("mov ss null", TRAP("xor %%eax, %%eax; mov %%eax, %%ss", "i"(0)), 0xff);
	TRAP("mov $16, %%eax; mov %%eax, %%ss", "i"(0));
	check("17-byte instruction", TRAP(".fill 15, 1, 0x66; nop", "i"(0)), 13);
	check("movaps unaligned", TRAP("lea 1(%%rsp), %%rax; movaps (%%rax), %%xmm0", "i"(0)), 13);
}

static u64 fault_at(u64 a, int write)
{
	rt_arg = a;
	if (write)
		return TRAP("mov rt_arg(%%rip), %%rcx; movb $1, (%%rcx)", "i"(0));
	return TRAP("mov rt_arg(%%rip), %%rcx; movb (%%rcx), %%al", "i"(0));
}

static void page_errors(void)
{
	u64 a = PAGE_OF_TESTS, *p = pte_of(a);
	static const struct {
		const char *name;
		u64 pte;
		int write;
		u64 vector, error;
	} t[] = {
		{"read absent", 0, 0, 14, 0},
		{"write absent", 0, 1, 14, 2},
		{"write read-only", 5, 1, 14, 3},
		{"read read-only", 5, 0, 0xff, 0},
		{"reserved bit", 0x0008000000000007, 0, 14, 9},
	};

	for (unsigned i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
		*p = t[i].pte ? a | t[i].pte : 0;
		invlpg(a + 0x123);
		check(t[i].name, fault_at(a + 0x123, t[i].write), t[i].vector);
		if (t[i].vector == 14) {
			check("  error", trap.error, t[i].error);
			check("  cr2", trap.cr2, a + 0x123);
		}
	}
	*p = a | 0x8000000000000007;
	invlpg(a);
	*(volatile u8 *)a = 0xc3;
	rt_arg = a;
	check("fetch NX", TRAP("call *rt_arg(%%rip)", "i"(0)), 14);
	check("  error", trap.error, 0x11);
	*p = a | 7;
	invlpg(a);
	p = pte_of(a + 4096);
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

void guest_main(void)
{
	simple_faults();
	page_errors();
	debug_traps();
	double_fault();
}
