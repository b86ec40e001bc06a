/*
 * From 64-bit mode down to real mode and back: compatibility mode, PAE paging of 32 bits, no paging, two-level paging, 16-bit protected
 * mode, real mode, a hardware task switch, virtual-8086 mode. Each stage leaves its findings in seen[].
 */
#include "rt.h"

volatile u32 seen[32];
u32 pae_pdpt[8] __attribute__((aligned(32))), dir[1024] __attribute__((aligned(4096)));
u64 pae_pd[512] __attribute__((aligned(4096)));
u32 low_save;
u8 tss_a[104] __attribute__((aligned(16))), tss_b[104] __attribute__((aligned(16)));
u8 stack_b[1024] __attribute__((aligned(16))), stack_v86[1024] __attribute__((aligned(16)));
struct { u16 limit; u32 base; } __attribute__((packed)) real_idt = {0x3ff, 0}, idt32p, gdt32p;
u64 idt32[32] __attribute__((aligned(8)));
extern u8 run_modes[], real_code[], real_code_end[], task_b[], v86_gp[], v86_code[], v86_code_end[];

/* Selectors: 64 code 32, 72 data 32, 80 code 16, 88 data 16, 96 TSS A, 104 TSS B, 8 code 64 */
__asm__(".text\n"
	"run_modes: push %rbx; push %rbp; push %r12; pushq $64; pushq $1f; lretq\n"
	".code32\n"
	"1: mov $72, %eax; mov %eax, %ds; mov %eax, %es; mov %eax, %ss; incl seen\n" /* compatibility mode */
	"mov $-1, %eax; inc %eax; .byte 0x48; mov %eax, seen+4\n"		      /* 0x48 is DEC here */
	"mov %cr0, %eax; and $0x7fffffff, %eax; mov %eax, %cr0\n"	      /* leaves long mode */
	"mov $0xc0000080, %ecx; rdmsr; mov %eax, seen+8; and $~0x100, %eax; wrmsr\n"
	"mov $pae_pdpt, %eax; mov %eax, %cr3; mov %cr0, %eax; or $0x80000000, %eax; mov %eax, %cr0\n"
	"mov 0x800000, %eax; mov %eax, seen+12\n"				      /* PAE, 32-bit */
	"mov 0xa00000, %eax; mov %eax, seen+16\n"
	"mov %cr0, %eax; and $0x7fffffff, %eax; mov %eax, %cr0; mov %cr4, %eax; and $~0x20, %eax; or $0x10, %eax; mov %eax, %cr4\n"
	"mov 0x800000, %eax; mov %eax, seen+20\n"				      /* no paging */
	"mov $dir, %eax; mov %eax, %cr3; mov %cr0, %eax; or $0x80000000, %eax; mov %eax, %cr0\n"
	"mov 0xc00000, %eax; mov %eax, seen+24\n"				      /* two levels, 4 MiB pages */
	"testb $0x20, dir+12; setnz %al; movzbl %al, %eax; mov %eax, seen+28\n"
	/* a hardware task switch, by call and IRET */
	"lidtl idt32p; mov $96, %eax; ltr %ax; lcall $104, $0; incl seen+36\n"
	"str %eax; mov %eax, seen+40; mov %cr0, %eax; shr $3, %eax; and $1, %eax; mov %eax, seen+44; clts\n"
	/* virtual-8086 mode, until its INT comes back as #GP */
	"mov %esp, low_save; pushl $0; pushl $0; pushl $0; pushl $0x900; pushl $0x900; pushl $0x100; pushl $0x20002; pushl $0x900; pushl $0x100; iret\n"
	"v86_gp: pop %ebx; mov $72, %eax; mov %ds, %ecx; mov %eax, %ds; mov %ecx, seen+88; mov %ebx, seen+48; mov (%esp), %eax; mov %eax, seen+52; mov 8(%esp), %eax; shr $17, %eax; and $1, %eax; mov %eax, seen+56\n"
	"mov $72, %eax; mov %eax, %es; mov low_save, %esp\n"
	/* 16-bit protected mode, then real mode */
	"mov %cr0, %eax; and $0x7fffffff, %eax; mov %eax, %cr0\n"
	"ljmp $80, $(2f - real_code)\n"
	".code16\n"
	"real_code: 2: mov $88, %ax; mov %ax, %ds; mov %ax, %ss; mov %ax, %es\n"
	"mov $0xffff, %ax; inc %ax; pushf; pop %bx; and $0x40, %bx; addr32 mov %bx, 0x700\n" /* 16-bit: ZF */
	"mov %cr0, %eax; and $~1, %eax; mov %eax, %cr0; ljmp $0x900, $(3f - real_code)\n"
	"3: xor %ax, %ax; mov %ax, %ds; mov %ax, %ss; mov %ax, %es; mov $0x7000, %sp; addr32 lidtl 0x720\n"
	"movw $0x1234, 0x702; int $0x60; mov $0x900, %ax; mov %ax, %fs; mov %fs, 0x706\n"
	"mov $0xffff, %si; mov $0x6000, %bp; movw $0x55, -2(%bp); push $0x77; pop 0x708; mov %sp, 0x70a\n"
	"addr32 lgdtl 0x730; mov %cr0, %eax; or $1, %eax; mov %eax, %cr0; ljmpl $64, $4f\n"
	"5: movw $0x4321, %cs:(real_mark - real_code); movw $0xbeef, 0x704; iret\n"
	"real_mark: .word 0\n"
	"real_code_end:\n"
	".code32\n"
	"4: mov $72, %eax; mov %eax, %ds; mov %eax, %es; mov %eax, %ss; mov low_save, %esp\n"
	"mov %cr4, %eax; or $0x20, %eax; and $~0x10, %eax; mov %eax, %cr4; mov $rt_pml4, %eax; mov %eax, %cr3\n"
	"mov $0xc0000080, %ecx; rdmsr; or $0x100, %eax; wrmsr; mov %cr0, %eax; or $0x80000000, %eax; mov %eax, %cr0\n"
	"rdmsr; mov %eax, seen+60; ljmp $8, $6f\n"
	".code64\n"
	"6: pop %r12; pop %rbp; pop %rbx; ret\n"
	".code32\n"
	"task_b: incl seen+32; mov %edx, seen+64; str %eax; mov %eax, seen+68; pushfl; pop %eax; shr $14, %eax; and $1, %eax; mov %eax, seen+72\n"
	"clts; iret; jmp task_b\n"
	".code16\n"
	"v86_code: mov $0x1111, %ax; mov %ax, %ss; mov %ss, %bx; int $0x60\n"
	"v86_code_end:\n"
	".code64\n");

static u64 segment(u64 base, u64 limit, u64 access, u64 flags)
{
	return (limit & 0xffff) | (base & 0xffffff) << 16 | access << 40 | (limit >> 16 & 15) << 48 | flags << 52 | (base >> 24 & 0xff) << 56;
}

static void copy(u64 to, const u8 *p, const u8 *end)
{
	while (p < end)
		*(volatile u8 *)to++ = *p++;
}

static void prepare(void)
{
	u32 *b = (u32 *)(u64)tss_b, *a = (u32 *)(u64)tss_a;

	gdt[8] = segment(0, 0xfffff, 0x9a, 0xc);
	gdt[9] = segment(0, 0xfffff, 0x92, 0xc);
	gdt[10] = segment(0x9000, 0xffff, 0x9a, 0);
	gdt[11] = segment(0, 0xffff, 0x92, 0);
	gdt[12] = segment((u64)tss_a, 103, 0x89, 0);
	gdt[13] = segment((u64)tss_b, 103, 0x89, 0);
	a[1] = (u32)(u64)(stack_v86 + sizeof(stack_v86));
	a[2] = 72;
	a[7] = (u32)(u64)dir;
	b[7] = (u32)(u64)dir;
	b[8] = (u32)(u64)task_b;
	b[9] = 2;
	b[12] = 0xbbbb; /* EDX */
	b[14] = (u32)(u64)(stack_b + sizeof(stack_b));
	b[18] = b[20] = b[21] = 72;
	b[19] = 64;
	a[25] = b[25] = 104 << 16;
	idt32[13] = ((u64)v86_gp & 0xffff) | 64 << 16 | 0x8e0000000000 | ((u64)v86_gp >> 16) << 48;
	idt32p.limit = sizeof(idt32) - 1;
	idt32p.base = (u32)(u64)idt32;
	gdt32p.limit = 32 * 8 - 1;
	gdt32p.base = (u32)(u64)gdt;
	for (u64 i = 0; i < 512; i++)
		pae_pd[i] = i << 21 | 0x83;
	pae_pd[5] = PAGE_OF_TESTS | 0x83; /* 0xa00000 is another name of 0x800000 */
	pae_pdpt[0] = (u32)(u64)pae_pd | 1;
	for (u32 i = 0; i < 1024; i++)
		dir[i] = i << 22 | 0x87;
	dir[3] = PAGE_OF_TESTS | 0x87;
	*(volatile u32 *)PAGE_OF_TESTS = 0xfeed;
	*(volatile u32 *)0xa00000 = 1;
	*(volatile u32 *)0xc00000 = 2;
}

void guest_main(void)
{
	struct {
		u16 limit;
		u64 base;
	} __attribute__((packed)) ip = {sizeof(idt) - 1, (u64)idt};
	extern u8 real_mark[];

	prepare();
	copy(0x9000, real_code, real_code_end);
	copy(0x9100, v86_code, v86_code_end);
	copy(0x720, (u8 *)&real_idt, (u8 *)(&real_idt + 1));
	copy(0x730, (u8 *)&gdt32p, (u8 *)(&gdt32p + 1));
	*(volatile u16 *)(0x60 * 4) = (u16)(real_mark - real_code - 14);
	*(volatile u16 *)(0x60 * 4 + 2) = 0x900;
	__asm__ volatile("mov $0, %%edx; call run_modes; lidt %0" ::"m"(ip) : "rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "memory", "cc");
	__asm__ volatile("mov %0, %%ds; mov %0, %%es; mov %0, %%ss; mov %1, %%fs" ::"r"(SEL_DATA), "r"(0));
	check("compatibility mode", seen[0], 1);
	check("  0x48 is DEC", seen[1], ~0u);
	check("EFER without LMA", seen[2] & 0x500, 0x100);
	check("PAE", seen[3], 0xfeed);
	check("  alias", seen[4], 0xfeed);
	check("no paging", seen[5], 0xfeed);
	check("two-level paging", seen[6], 0xfeed);
	check("  A in the directory", seen[7], 1);
	check("task B ran", seen[8], 1);
	check("  its EDX", seen[16], 0xbbbb);
	check("  TR", seen[17], 104);
	check("  NT", seen[18], 1);
	check("back in task A", seen[9], 1);
	check("  TR", seen[10], 96);
	check("  CR0.TS", seen[11], 1);
	check("  B is not busy", gdt[13] >> 40 & 0xff, 0x89);
	check("V86: INT with IOPL 0 is #GP", seen[12], 0);
	check("  IP", seen[13], 0x100 + (u64)(v86_code_end - v86_code) - 2);
	check("  VM in the saved flags", seen[14], 1);
	check("  DS is null in the handler", seen[22], 0);
	check("16-bit protected mode: ZF of INC AX", *(volatile u16 *)0x700, 0x40);
	check("real mode", *(volatile u16 *)0x702, 0x1234);
	check("  INT", *(volatile u16 *)0x704, 0xbeef);
	check("  segment register", *(volatile u16 *)0x706, 0x900);
	check("  PUSH and POP", *(volatile u16 *)0x708, 0x77);
	check("  SP", *(volatile u16 *)0x70a, 0x7000);
	check("  writes through CS", *(volatile u16 *)(0x9000 + (real_mark - real_code)), 0x4321);
	check("long mode again", seen[15] & 0x500, 0x500);
}
