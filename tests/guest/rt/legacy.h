/*
 * What only 32-bit protected mode has: virtual-8086 mode with and without its extensions (SDM 3B 20.2, 20.3), SYSENTER and SYSEXIT
 * (SDM 2B), a task switch to a 16-bit TSS and back (SDM 3A 7.6). One descent from 64-bit mode does it all; findings are left in
 * memory and judged afterwards. Two guests: not every KVM switches tasks, and one that stops there says nothing about the rest.
 */
#ifndef RT_LEGACY_H
#define RT_LEGACY_H

#include "rt.h"

#define VM   0x20000u
#define IOPL 0x3000u
#define IF   0x200u
#define VIF  0x80000u
#define VIP  0x100000u
#define VME  1u
#define V86_AT   0x1000u /* IP of the first program, in segment 0900h */
#define V86_STEP 32u
#define ANY      0xffffffffu

struct finding {
	u32 vector, error, ip, flags, ax, sp, cs, pad;
};
static const struct {
	const char *name;
	u8 code[16];
	u32 flags, cr4;
	u32 vector, error, ip, ax; /* ip: beyond the start of the program, or absolute from 0x1000 on; ax: ANY */
} cases[] = {
	{"cli, IOPL 0", {0xfa}, IF, 0, 13, 0, 0, ANY},
	{"sti, IOPL 0", {0xfb}, IF, 0, 13, 0, 0, ANY},
	{"pushf, IOPL 0", {0x9c}, IF, 0, 13, 0, 0, ANY},
	{"popf, IOPL 0", {0x9d}, IF, 0, 13, 0, 0, ANY},
	{"iret, IOPL 0", {0xcf}, IF, 0, 13, 0, 0, ANY},
	{"int, IOPL 0", {0xcd, 0x61}, IF, 0, 13, 0, 0, ANY},
	{"int3, IOPL 0", {0xcc}, IF, 0, 3, 0, 1, ANY},
	{"hlt", {0xf4}, IOPL | IF, 0, 13, 0, 0, ANY},
	{"cli; pushf, IOPL 3", {0xfa, 0x9c, 0x58, 0xf4}, IOPL | IF, 0, 13, 0, 3, 0x3002},
	{"sti; pushf, IOPL 3", {0xfb, 0x90, 0x9c, 0x58, 0xf4}, IOPL, 0, 13, 0, 4, 0x3202},
	{"popf keeps IOPL", {0x68, 0xd7, 0x0e, 0x9d, 0x9c, 0x58, 0xf4}, IOPL, 0, 13, 0, 6, 0x3ed7},
	{"int, IOPL 3", {0xcd, 0x61}, IOPL | IF, 0, 0x61, 0, 2, ANY},
	{"int through a gate of DPL 0", {0xcd, 0x62}, IOPL | IF, 0, 13, 0x62 * 8 + 2, 0, ANY},
	{"sldt", {0x0f, 0x00, 0xc0}, IOPL | IF, 0, 6, 0, 0, ANY},
	{"lar", {0x0f, 0x02, 0xc0}, IOPL | IF, 0, 6, 0, 0, ANY},
	{"arpl", {0x63, 0xc0}, IOPL | IF, 0, 6, 0, 0, ANY},
	{"mov from cr0", {0x0f, 0x20, 0xc0}, IOPL | IF, 0, 13, 0, 0, ANY},
	{"lmsw", {0x0f, 0x01, 0xf0}, IOPL | IF, 0, 13, 0, 0, ANY},
	{"smsw", {0x0f, 0x01, 0xe0, 0x24, 0x01, 0x30, 0xe4, 0xf4}, IOPL | IF, 0, 13, 0, 7, 1},
	{"in, bitmap set", {0xe4, 0x21}, IOPL | IF, 0, 13, 0, 0, ANY},
	{"in, bitmap clear", {0xe4, 0x41, 0xf4}, IF, 0, 13, 0, 2, ANY},
	{"segment load", {0xb8, 0x34, 0x12, 0x8e, 0xc0, 0x8c, 0xc0, 0xf4}, IF, 0, 13, 0, 7, 0x1234},
	{"beyond 64 KiB", {0x66, 0xbb, 0, 0, 1, 0, 0x67, 0x8a, 0x03}, IF, 0, 13, 0, 6, ANY},
	{"far jump", {0xea, 0x00, 0x1e, 0x00, 0x09}, IF, 0, 13, 0, 0x1e03, ANY},
	/* the extensions */
	{"VME: cli; pushf", {0xfa, 0x9c, 0x58, 0xf4}, IF | VIF, VME, 13, 0, 3, 0x3002},
	{"VME: pushf shows VIF", {0x9c, 0x58, 0xf4}, IF | VIF, VME, 13, 0, 2, 0x3202},
	{"VME: sti; pushf", {0xfb, 0x9c, 0x58, 0xf4}, IF, VME, 13, 0, 3, 0x3202},
	{"VME: sti with VIP", {0xfb}, IF | VIP, VME, 13, 0, 0, ANY},
	{"VME: popf sets VIF", {0x68, 0x00, 0x02, 0x9d, 0x9c, 0x58, 0xf4}, IF, VME, 13, 0, 6, 0x3202},
	{"VME: popf with VIP", {0x68, 0x00, 0x02, 0x9d}, IF | VIP, VME, 13, 0, 3, ANY},
	{"VME: popf without IF, VIP", {0x68, 0x01, 0x00, 0x9d, 0x9c, 0x58, 0xf4}, IF | VIP | VIF, VME, 13, 0, 6, 0x3003},
	{"VME: popf with TF", {0x68, 0x00, 0x01, 0x9d}, IF, VME, 13, 0, 3, ANY},
	{"VME: pushfd", {0x66, 0x9c}, IF, VME, 13, 0, 0, ANY},
	{"VME: popfd", {0x66, 0x9d}, IF, VME, 13, 0, 0, ANY},
	{"VME: iretd", {0x66, 0xcf}, IF, VME, 13, 0, 0, ANY},
	{"VME: iret", {0x68, 0x03, 0x02, 0x68, 0x00, 0x09, 0x68, 0x00, 0x1d, 0xcf}, IF, VME, 13, 0, 0x1d02, 0x3203},
	{"VME: redirected int", {0xcd, 0x60}, IF | VIF, VME, 13, 0, 0x1e03, 0x3202},
	{"VME: redirected int, VIF clear", {0xcd, 0x60}, IF, VME, 13, 0, 0x1e03, 0x3002},
	{"VME: redirected int, IOPL 3", {0xcd, 0x60}, IOPL | IF, VME, 13, 0, 0x1e03, 0x3202},
	{"VME: int not redirected, IOPL 0", {0xcd, 0x61}, IF, VME, 13, 0, 0, ANY},
	{"VME: int not redirected, IOPL 3", {0xcd, 0x61}, IOPL | IF, VME, 0x61, 0, 2, ANY},
	{"VME: cli, IOPL 3", {0xfa, 0x9c, 0x58, 0xf4}, IOPL | IF | VIF, VME, 13, 0, 3, 0x3002},
};
#define NCASES (sizeof(cases) / sizeof(cases[0]))

struct order {
	u32 ip, flags, cr4;
};
struct order orders[NCASES];
struct finding findings[NCASES + 8];
struct finding *volatile slot;
volatile u32 low_save, ncases = NCASES, seen[32], do_task;
u32 dir[1024] __attribute__((aligned(4096)));
u8 tss_a[104 + 32 + 24] __attribute__((aligned(16)));
u16 tss_b[22] __attribute__((aligned(16)));
u8 stack_a[1024] __attribute__((aligned(16))), stack_u[1024] __attribute__((aligned(16)));
struct { u16 limit; u32 base; } __attribute__((packed)) idt32p;
u64 idt32[128] __attribute__((aligned(8)));
extern u8 run_legacy[], stubs[], task16[], task16_end[], task16_ret[], on_sysenter[], back[];

/* Selectors: 64 code, 72 data, 80 user code, 88 user data, 96 TSS A, 104 TSS B (16 bits), 112 code of 16 bits at 0x9000 */
__asm__(".text\n"
	"run_legacy: push %rbx; push %rbp; push %r12; pushq $64; pushq $1f; lretq\n"
	".code32\n"
	"1: mov $72, %eax; mov %eax, %ds; mov %eax, %es; mov %eax, %ss\n"
	"mov %cr0, %eax; and $0x7fffffff, %eax; mov %eax, %cr0\n"
	"mov $0xc0000080, %ecx; rdmsr; and $~0x100, %eax; wrmsr\n"
	"mov %cr4, %eax; and $~0x20, %eax; or $0x10, %eax; mov %eax, %cr4; mov %eax, seen\n"
	"mov $dir, %eax; mov %eax, %cr3; mov %cr0, %eax; or $0x80000000, %eax; mov %eax, %cr0\n"
	"lidtl idt32p; mov $96, %eax; ltr %ax\n"
	/* virtual-8086 mode: each program ends with an event */
	"mov $orders, %ebx\n"
	"2: mov seen, %eax; or 8(%ebx), %eax; mov %eax, %cr4; mov (%ebx), %esi; mov 4(%ebx), %edi; call v86_run\n"
	"add $12, %ebx; decl ncases; jnz 2b\n"
	"mov seen, %eax; mov %eax, %cr4\n"
	/* SYSENTER with no CS, then properly, from CPL 0; SYSEXIT to CPL 3; there SYSEXIT is #GP; SYSENTER comes back */
	"mov $0x174, %ecx; xor %eax, %eax; xor %edx, %edx; wrmsr; call sysenter_once\n"
	"mov $0x174, %ecx; mov $64, %eax; wrmsr\n"
	"mov $0x175, %ecx; mov $0x7ff0, %eax; wrmsr; mov $0x176, %ecx; mov $on_sysenter, %eax; wrmsr\n"
	"call sysenter_once\n"
	"call sysexit_once\n"
	/* the task switch */
	"testl $1, do_task; jz 5f\n"
	"mov $0x5555, %edx; lcall $104, $0; back: mov %cr0, %eax; mov %eax, seen+32; clts; str %eax; mov %eax, seen+36; mov %edx, seen+40\n"
	"5: mov %cr0, %eax; and $0x7fffffff, %eax; mov %eax, %cr0\n"
	"mov %cr4, %eax; or $0x20, %eax; and $~0x10, %eax; mov %eax, %cr4; mov $rt_pml4, %eax; mov %eax, %cr3\n"
	"mov $0xc0000080, %ecx; rdmsr; or $0x100, %eax; wrmsr; mov %cr0, %eax; or $0x80000000, %eax; mov %eax, %cr0\n"
	"ljmp $8, $6f\n"
	"v86_run: pusha; mov %esp, low_save; pushl $0; pushl $0; pushl $0x900; pushl $0x900; pushl $0x900; pushl $0x1c00; push %edi\n"
	"pushl $0x900; push %esi; iret\n"
	"sysenter_once: pusha; mov %esp, low_save; sysenter\n"
	"sysexit_once: pusha; mov %esp, low_save; mov $7f, %edx; mov $stack_u+1024, %ecx; sysexit\n"
	"7: mov %cs, %eax; mov %eax, seen+4; mov %ss, %eax; mov %eax, seen+8; mov %esp, seen+12; mov $88, %eax; mov %eax, %ds; sysexit\n"
	/* second half of the stay at CPL 3, entered by IRET from the handler of that #GP */
	"8: sysenter\n"
	"on_sysenter: mov $72, %eax; mov %eax, %ds; mov %eax, %es; mov %cs, %eax; mov %eax, seen+16; mov %ss, %eax; mov %eax, seen+20; mov %esp, seen+24; incl seen+28; mov low_save, %esp\n"
	"popa; ret\n"
	/* vectors with an error code push it themselves; each stub is 8 bytes */
	".balign 8\nstubs:\n"
	".set n, 0\n.rept 128\n.if (n == 8) || (n >= 10 && n <= 14) || (n == 17)\n.byte 0x90, 0x90\n.else\npush $0\n.endif\n"
	"push $n\n.byte 0xe9\n.long common - . - 4\n.balign 16\n.set n, n + 1\n.endr\n"
	"common: push %eax; mov $72, %eax; mov %eax, %ds; mov %eax, %es; push %edi; mov slot, %edi\n"
	"mov 8(%esp), %eax; mov %eax, (%edi); mov 12(%esp), %eax; mov %eax, 4(%edi); mov 16(%esp), %eax; mov %eax, 8(%edi)\n"
	"mov 24(%esp), %eax; mov %eax, 12(%edi); mov 4(%esp), %eax; mov %eax, 16(%edi); mov 28(%esp), %eax; mov %eax, 20(%edi)\n"
	"mov 20(%esp), %eax; mov %eax, 24(%edi); addl $32, slot; pop %edi; pop %eax\n"
	"testl $0x20000, 16(%esp); jnz 9f; testb $3, 12(%esp); jz 9f\n" /* from CPL 3: go on with SYSENTER there */
	"add $8, %esp; movl $8b, (%esp); iret\n"
	"9: mov low_save, %esp; popa; ret\n"
	".code64\n"
	"6: pop %r12; pop %rbp; pop %rbx; ret\n"
	".code16\n"
	"task16: mov %cs, 0x710; str %ax; mov %ax, 0x712; pushf; pop 0x714; mov %dx, 0x716; mov %fs, 0x718; mov %sp, 0x71a; iret\n"
	"task16_ret: jmp task16\n"
	"task16_end:\n"
	".code64\n");

static u64 segment(u64 base, u64 limit, u64 access, u64 flags)
{
	return (limit & 0xffff) | (base & 0xffffff) << 16 | access << 40 | (limit >> 16 & 15) << 48 | flags << 52 |
	       (base >> 24 & 0xff) << 56;
}

static void copy(u64 to, const u8 *p, u64 n)
{
	while (n--)
		*(volatile u8 *)to++ = *p++;
}

static void prepare_tasks(void)
{
	u32 *a = (u32 *)(u64)tss_a;

	a[1] = (u32)(u64)(stack_a + sizeof(stack_a));
	a[2] = 72;
	a[7] = (u32)(u64)dir;
	a[25] = 136 << 16;
	tss_a[104 + 0x61 / 8] = 1 << (0x61 & 7) | 1 << (0x62 & 7);
	tss_a[136 + 0x21 / 8] = 1 << (0x21 & 7);
	tss_a[136 + 16] = 0xff;
	tss_b[7] = 0x800;        /* IP */
	tss_b[8] = 2;            /* FLAGS */
	tss_b[11] = 0xdddd;      /* DX */
	tss_b[13] = 0x7fe0;      /* SP */
	tss_b[17] = tss_b[19] = tss_b[20] = 72; /* ES SS DS */
	tss_b[18] = 112;
	gdt[12] = segment((u64)tss_a, 136 + 16, 0x89, 0);
	gdt[13] = segment((u64)tss_b, 43, 0x81, 0);
	gdt[14] = segment(0x9000, 0xffff, 0x9a, 0);
	copy(0x9800, task16, (u64)(task16_end - task16));
}

static void prepare(void)
{
	gdt[8] = segment(0, 0xfffff, 0x9a, 0xc);
	gdt[9] = segment(0, 0xfffff, 0x92, 0xc);
	gdt[10] = segment(0, 0xfffff, 0xfa, 0xc);
	gdt[11] = segment(0, 0xfffff, 0xf2, 0xc);
	prepare_tasks();
	for (u64 i = 0; i < 128; i++) {
		u64 at = (u64)stubs + i * 16;

		idt32[i] = (at & 0xffff) | 64 << 16 | (i == 0x62 ? 0x8e : 0xee) * 0x10000000000ul | at >> 16 << 48;
	}
	idt32p.limit = sizeof(idt32) - 1;
	idt32p.base = (u32)(u64)idt32;
	for (u32 i = 0; i < 1024; i++)
		dir[i] = i << 22 | 0x87;
	for (u32 i = 0; i < NCASES; i++) {
		orders[i] = (struct order){V86_AT + i * V86_STEP, cases[i].flags | VM | 2, cases[i].cr4};
		copy(0x9000 + V86_AT + i * V86_STEP, cases[i].code, sizeof(cases[i].code));
	}
	copy(0x9000 + 0x1e00, (const u8 *)"\x58\x58\x58\xf4", 4); /* pop ax three times: the flags of an INT */
	copy(0x9000 + 0x1d00, (const u8 *)"\x9c\x58\xf4", 3);
	*(volatile u16 *)(0x60 * 4) = 0x1e00;
	*(volatile u16 *)(0x60 * 4 + 2) = 0x900;
	slot = findings;
}

static void judge(u32 i)
{
	const struct finding *f = &findings[i];
	u32 ip = cases[i].ip < V86_AT ? V86_AT + i * V86_STEP + cases[i].ip : cases[i].ip;

	check(cases[i].name, f->vector, cases[i].vector);
	check("  error", f->error, cases[i].error);
	check("  ip", f->ip, ip);
	check("  VM, IOPL", f->flags & (VM | IOPL), VM | (cases[i].flags & IOPL));
	if (cases[i].ax != ANY)
		check("  ax", f->ax & 0xffff, cases[i].ax);
	if (cases[i].cr4)
		note("  VIF, VIP, IF", f->flags & (VIF | VIP | IF));
}

static void descend(u32 with_task)
{
	struct {
		u16 limit;
		u64 base;
	} __attribute__((packed)) ip = {sizeof(idt) - 1, (u64)idt};

	prepare();
	do_task = with_task;
	__asm__ volatile("call run_legacy; lidt %0" ::"m"(ip) : "rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "memory", "cc");
	__asm__ volatile("mov %0, %%ds; mov %0, %%es; mov %0, %%ss" ::"r"(SEL_DATA));
}

static inline void judge_v86(void)
{
	for (u32 i = 0; i < NCASES; i++)
		judge(i);
}

static inline void judge_sysenter(void)
{
	const struct finding *f = &findings[NCASES];

	check("sysenter without a CS", f[0].vector << 16 | f[0].error, 13 << 16);
	check("  CS", f[0].cs, 64);
	check("sysenter, twice", seen[7], 2);
	check("  CS", seen[4], 64);
	check("  SS", seen[5], 72);
	check("  ESP", seen[6], 0x7ff0);
	check("sysexit: CS", seen[1], 80 + 3);
	check("  SS", seen[2], 88 + 3);
	check("  ESP", seen[3], (u64)(stack_u + sizeof(stack_u)));
	check("sysexit at CPL 3", f[1].vector << 16 | f[1].error, 13 << 16);
	check("  CS", f[1].cs, 80 + 3);
}

static inline void judge_task(void)
{
	check("16-bit task: CS", *(volatile u16 *)0x710, 112);
	check("  TR", *(volatile u16 *)0x712, 104);
	check("  flags: NT", *(volatile u16 *)0x714 & 0x4000, 0x4000);
	check("  DX", *(volatile u16 *)0x716, 0xdddd);
	check("  FS is null", *(volatile u16 *)0x718, 0);
	check("  SP", *(volatile u16 *)0x71a, 0x7fe0);
	check("  link", tss_b[0], 96);
	check("  IP saved", tss_b[7], 0x800 + (u64)(task16_ret - task16));
	check("  flags saved without NT", tss_b[8] & 0x4000, 0);
	check("  not busy", gdt[13] >> 40 & 0xff, 0x81);
	check("back: TR", seen[9], 96);
	check("  CR0.TS", seen[8] & 8, 8);
	check("  EDX", seen[10], 0x5555);
	check("  busy", gdt[12] >> 40 & 0xff, 0x8b);
	check("  EIP saved", ((u32 *)(u64)tss_a)[8], (u64)back);
}

#endif
