/* The faults a program can cause: vector and error code. */
#include "rt.h"

static void simple_faults(void)
{
	check("div by zero", TRAP("xor %%ecx, %%ecx; div %%ecx", "i"(0)), 0);
	check("div overflow", TRAP("mov $1, %%edx; xor %%eax,%%eax; mov $1, %%ecx; div %%ecx", "i"(0)), 0);
	check("idiv min by -1", TRAP("mov $0x80000000, %%eax; cltd; mov $-1, %%ecx; idiv %%ecx", "i"(0)), 0);
	check("ud2", TRAP("ud2", "i"(0)), 6);
	check("lock on register form", TRAP(".byte 0xf0, 0x01, 0xc0", "i"(0)), 6);
	check("non-canonical", TRAP("mov $0x8000000000000000, %%rax; mov (%%rax), %%ecx", "i"(0)), 13);
	check("non-canonical error", trap.error, 0);
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
}

void guest_main(void)
{
	simple_faults();
	page_errors();
}
