/* User code that may run on the host's CPU as it is: its events, registers, vector state, and instructions that answer for another CPU. */
#include "cells.h"

static u8 area[1024] __attribute__((aligned(64)));

/* ---- events ---- */

U(u_syscall, "syscall");
U(u_int3, "");
U(u_int3_two, ".byte 0xcd, 3");
V(v_int4, ".byte 0xcd, 4");
U(v_int40, "int $0x40");
V(v_int80, "int $0x80");
U(u_icebp, ".byte 0xf1");
U(u_de, "div %rcx");
U(u_ud, "ud2");
U(u_hlt, "hlt");
U(u_in, "in $0x80, %al");
U(u_load, "mov (%rax), %rbx");
U(u_push, "push %rax");
U(u_vmcall, ".byte 0x0f, 0x01, 0xc1");
U(u_vmmcall, ".byte 0x0f, 0x01, 0xd9");

static void events(void)
{
	event("syscall", u_syscall, SYSCALL, 0, 2, M(CX) | M(R11));
	check("  rcx", out.r[CX] - at(u_syscall), 2);
	check("  r11", out.r[R11], user_flags);
	event("int3", u_int3, 3, 0, 1, 0);
	event("int 3", u_int3_two, 3, 0, 2, 0);
	event("int 4", v_int4, 4, 0, 2, 0);
	event("int 0x40", v_int40, 13, 0x202, 0, 0);
	event("int 0x80", v_int80, 0x80, 0, 2, 0);
	event("icebp", u_icebp, 1, 0, 1, 0);
	in.r[CX] = 0;
	event("div", u_de, 0, 0, 0, ANY_ARITH);
	event("ud2", u_ud, 6, 0, 0, 0);
	event("hlt", u_hlt, 13, 0, 0, 0);
	event("in", u_in, 13, 0, 0, 0);
	in.r[AX] = 0x8000000000000000;
	event("non-canonical", u_load, 13, 0, 0, 0);
	in.rsp = 0x8000000000001000;
	event("non-canonical stack", u_push, 12, 0, 0, 0);
}

/* KVM answers -EPERM: the hypervisor that is asked is that of the guest, not one of its host. */
static void hypercalls(void)
{
	note("vmcall", run(u_vmcall));
	note("  rax", out.r[AX]);
	note("vmmcall", run(u_vmmcall));
	note("  rax", out.r[AX]);
}

static u64 trips;

static int on_trip(struct frame *f)
{
	if (f->vector != SYSCALL)
		return 0;
	f->r[AX] = f->r[R12] * 3;
	f->r[R15]++;
	trips++;
	return 1;
}

U(u_trips, "1: mov $39, %eax; syscall; add %rax, %rbx; xor %r13, %r14; dec %r12; jnz 1b");

static void round_trips(void)
{
	resume = on_trip;
	in.r[R12] = 1000;
	in.r[BX] = 0;
	check("round trips", run(u_trips), DONE);
	check("  seen", trips, 1000);
	check("  sum", out.r[BX], 1000 * 1001 / 2 * 3);
	check("  counted by the kernel", out.r[R15] - in.r[R15], 1000);
	check("  changed", changed(), M(AX) | M(BX) | M(CX) | M(R11) | M(R12) | M(R15));
	resume = 0;
	fresh();
}

static u64 steps, step_dr6, step_rip;

static int on_step(struct frame *f)
{
	u64 dr6;

	if (f->vector != 1)
		return 0;
	__asm__ volatile("mov %%dr6, %0; mov %1, %%dr6" : "=&r"(dr6) : "r"(0xffff0ff0ul));
	step_dr6 |= dr6 & 0xe00f;
	step_rip = steps++ ? step_rip : f->rip;
	if (steps == 3)
		f->rflags &= ~0x100ul;
	return 1;
}

U(u_tf, "pushfq; orq $0x100, (%rsp); popfq; inc %rax\n u_tf_1: inc %rax; inc %rax; inc %rax; inc %rax");
U(u_flags, "pushfq; xorq $0x240400, (%rsp); popfq; syscall");
extern u8 u_tf_1[];

static void flags(void)
{
	check("popf sets TF", run(u_tf), 1);
	check("  rip", out.rip - at(u_tf_1), 0);
	check("  flags", out.rflags & 0x10300, 0x300);
	check("  changed", changed(), M(AX));
	__asm__ volatile("mov %%dr6, %0; mov %1, %%dr6" : "=&r"(rt_ret) : "r"(0xffff0ff0ul));
	check("  DR6", rt_ret & 0xe00f, 0x4000);
	resume = on_step;
	check("stepping", run(u_tf), DONE);
	check("  steps", steps, 3);
	check("  DR6", step_dr6, 0x4000);
	check("  first", step_rip - at(u_tf_1), 0);
	check("  rax", out.r[AX] - in.r[AX], 5);
	resume = 0;
	check("popf sets ID, AC, DF", run(u_flags), SYSCALL);
	check("  flags", out.rflags & 0x240400, 0x240400);
	fresh();
}

U(u_unaligned, "mov 1(%rsp), %eax");
U(u_aligned, "mov 4(%rsp), %ecx; xor %ecx, %ecx");

static void alignment(void)
{
	in.rflags |= 0x40000;
	event("AC without AM", u_unaligned, DONE, 0, 5, M(AX));
	WRITE_CR(0, READ_CR(0) | 0x40000);
	in.rflags |= 0x40000;
	event("AC and AM", u_unaligned, 17, 0, 0, 0);
	in.rflags |= 0x40000;
	event("  aligned", u_aligned, DONE, 0, 7, M(CX) | ANY_ARITH);
	event("  AC clear", u_unaligned, DONE, 0, 5, M(AX));
	WRITE_CR(0, READ_CR(0) & ~0x40000ul);
}

/* ---- x87, SSE, AVX ---- */

U(u_mf, "fninit; fldcw (%rdi); fld1; fldz; fdivrp; nop\n u_mf_1: fwait; fnclex");
U(u_xm, "ldmxcsr (%rdi); movss 4(%rdi), %xmm0; xorps %xmm1, %xmm1\n u_xm_1: divss %xmm1, %xmm0; stmxcsr (%rdi)");
#define FOR16(code) ".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n" code "\n.endr\n"
U(u_sse, FOR16("movups 16*\\n(%rdi), %xmm\\n")
	 "fninit; fldpi; fld1; fldcw 1024(%rdi); ldmxcsr 1028(%rdi); syscall\n"
	 FOR16("movups %xmm\\n, 16*\\n(%rsi)")
	 "fnstcw 1032(%rdi); stmxcsr 1036(%rdi); fstpl 1040(%rdi); fstpl 1048(%rdi)");
U(u_avx, FOR16("vmovups 32*\\n(%rdi), %ymm\\n") "syscall\n" FOR16("vmovups %ymm\\n, 32*\\n(%rsi)"));
extern u8 u_mf_1[], u_xm_1[];

static int on_vector_kept(struct frame *f)
{
	return f->vector == SYSCALL;
}

static int on_vector_changed(struct frame *f)
{
	if (f->vector != SYSCALL)
		return 0;
	__asm__ volatile("fxsave %0" : "=m"(area)::"memory");
	*(u16 *)area = 0xb7f;
	*(u32 *)(area + 24) = 0x3f80;
	*(u64 *)(area + 32) = 0xc000000000000000; /* ST0: 1.5 */
	*(u64 *)(area + 160 + 16 * 5) = 0x1234567890;
	__asm__ volatile("fxrstor %0" ::"m"(area) : "memory");
	return 1;
}

static int on_avx_changed(struct frame *f)
{
	if (f->vector != SYSCALL)
		return 0;
	__asm__ volatile("xsave %0" : "+m"(area) : "a"(7), "d"(0) : "memory");
	*(u64 *)(area + 576 + 16 * 7) = 0x77;
	__asm__ volatile("xrstor %0" ::"m"(area), "a"(7), "d"(0) : "memory");
	__asm__ volatile("vxorps %%ymm9, %%ymm9, %%ymm9" ::: "memory");
	return 1;
}

static u64 *data64(u64 offset) { return (u64 *)(DATA_FRAME + offset); }

static void fill_data(void)
{
	for (u64 i = 0; i < 512; i++)
		*data64(i * 8) = 0x9e3779b97f4a7c15ul * (i + 1);
	*(u32 *)data64(1024) = 0x27f;
	*(u32 *)data64(1028) = 0x9f80;
}

/* The sum over what was stored, minus that of what was loaded. */
static u64 difference(u64 n)
{
	u64 d = 0;

	for (u64 i = 0; i < n; i++)
		d += (*data64(2048 + i * 8) - *data64(i * 8)) * (i + 1);
	return d;
}

static void vectors(void)
{
	fill_data();
	in.r[DI] = DATA;
	in.r[SI] = DATA + 2048;
	resume = on_vector_kept;
	check("SSE over a system call", run(u_sse), DONE);
	check("  difference", difference(32), 0);
	check("  FCW", *(u16 *)data64(1032), 0x27f);
	check("  MXCSR", *(u32 *)data64(1036), 0x9f80);
	check("  ST0", *data64(1040), 0x3ff0000000000000);
	check("  ST1", *data64(1048), 0x400921fb54442d18);
	fill_data();
	resume = on_vector_changed;
	check("changed by the kernel", run(u_sse), DONE);
	check("  XMM5", *data64(2048 + 16 * 5), 0x1234567890);
	*data64(2048 + 16 * 5) = *data64(16 * 5);
	check("  the others", difference(32), 0);
	check("  FCW", *(u16 *)data64(1032), 0xb7f);
	check("  MXCSR", *(u32 *)data64(1036), 0x3f80);
	check("  ST0", *data64(1040), 0x3ff8000000000000);
	rt_arg = 0x1f80;
	__asm__ volatile("ldmxcsr rt_arg(%%rip); fninit" ::: "memory");
	if (!has_avx) {
		lacks("AVX");
		resume = 0;
		fresh();
		return;
	}
	fill_data();
	resume = on_vector_kept;
	check("AVX over a system call", run(u_avx), DONE);
	check("  difference", difference(64), 0);
	fill_data();
	resume = on_avx_changed;
	check("upper halves changed by the kernel", run(u_avx), DONE);
	check("  YMM7", *data64(2048 + 32 * 7 + 16), 0x77);
	check("  YMM9", *data64(2048 + 32 * 9) | *data64(2048 + 32 * 9 + 24), 0);
	*data64(2048 + 32 * 7 + 16) = *data64(32 * 7 + 16);
	for (u64 i = 0; i < 4; i++)
		*data64(2048 + 32 * 9 + 8 * i) = *data64(32 * 9 + 8 * i);
	check("  the others", difference(64), 0);
	resume = 0;
	fresh();
}

static void numeric(void)
{
	*(u32 *)data64(0) = 0x360;
	in.r[DI] = DATA;
	check("#MF", run(u_mf), 16);
	check("  rip", out.rip - at(u_mf_1), 0);
	check("  changed", changed(), 0);
	__asm__ volatile("fnstsw %0; fnclex" : "=m"(rt_ret));
	check("  status", rt_ret & 0x84, 0x84);
	__asm__ volatile("fninit");
	*data64(0) = 0x3f80000000001d80;
	check("#XM", run(u_xm), 19);
	check("  rip", out.rip - at(u_xm_1), 0);
	check("  changed", changed(), 0);
	__asm__ volatile("stmxcsr %0; movd %%xmm0, %k1" : "=m"(rt_ret), "=r"(rt_arg));
	check("  MXCSR", rt_ret & 0xffff, 0x1d84);
	check("  not divided", rt_arg, 0x3f800000);
	rt_arg = 0x1f80;
	__asm__ volatile("ldmxcsr rt_arg(%%rip)" ::: "memory");
	fresh();
}

/* ---- segments ---- */

U(u_bases, "wrfsbase %rdi; wrgsbase %rsi; mov %fs:8, %rax; mov %gs:16, %rbx; rdfsbase %rcx; rdgsbase %rdx");
U(u_bases_kept, "rdfsbase %rcx; rdgsbase %rdx");
U(u_gs_kernel, "wrgsbase %rsi\n u_gs_1: mov %gs:16, %rbx");
U(u_ds, "mov $0x2b, %eax; mov %ax, %ds; mov %ax, %es");
U(u_ljmp, "ljmp *(%rdi)");
extern u8 u_gs_1[];

static u64 selectors(void)
{
	u64 ds, es, fs, gs;

	__asm__ volatile("mov %%ds, %0; mov %%es, %1; mov %%fs, %2; mov %%gs, %3" : "=r"(ds), "=r"(es), "=r"(fs), "=r"(gs));
	return ds << 48 | es << 32 | fs << 16 | gs;
}

static void segments(void)
{
	static const u8 code32[] = {0x40, 0x0f, 0x0b}; /* inc %eax; ud2 */

	if (has_fsgsbase) {
		*data64(256 + 8) = 0x1111222233334444;
		*data64(512 + 16) = 0x5555666677778888;
		in.r[DI] = DATA + 256;
		in.r[SI] = DATA + 512;
		check("FS and GS", run(u_bases), DONE);
		check("  fs:8", out.r[AX], 0x1111222233334444);
		check("  gs:16", out.r[BX], 0x5555666677778888);
		check("  FS base", out.r[CX] - DATA, 256);
		check("  GS base", out.r[DX] - DATA, 512);
		check("  of the kernel", rdmsr(0xc0000100) - DATA, 256);
		check("  of the kernel", rdmsr(0xc0000101) - DATA, 512);
		wrmsr(0xc0000100, DATA + 1024);
		check("  changed by it", run(u_bases_kept), DONE);
		check("  FS base", out.r[CX] - DATA, 1024);
		check("  GS base", out.r[DX] - DATA, 512);
		in.r[SI] = 0xffff800000000000;
		check("GS base in the upper half", run(u_gs_kernel), 14);
		check("  error", out.error, 4);
		check("  cr2", out_cr2, 0xffff800000000010);
		check("  rip", out.rip - at(u_gs_1), 0);
		wrmsr(0xc0000100, 0);
		wrmsr(0xc0000101, 0);
	}
	event("segments loaded", u_ds, DONE, 0, 10, M(AX));
	check("  selectors", selectors(), 0x002b002b00000000);
	event("  and on", u_ds, DONE, 0, 10, M(AX));
	__asm__ volatile("mov %w0, %%ds; mov %w0, %%es" ::"r"(0));
	for (u64 i = 0; i < sizeof(code32); i++)
		((u8 *)FRAME(12))[i] = code32[i];
	*data64(0) = 0x23ul << 32 | FRAME(12);
	in.r[DI] = DATA;
	in.r[AX] = 5;
	check("far jump to 32-bit code", run(u_ljmp), 6);
	check("  rip", out.rip - FRAME(12), 1);
	check("  cs", out.cs, 0x23);
	check("  eax", out.r[AX], 6);
	fresh();
}

/* ---- instructions that must not run as they are ---- */

V(v_cpuid, "cpuid");
V(v_xgetbv, "xor %ecx, %ecx; xgetbv");
V(v_sgdt, "sgdt (%rdi)");
V(v_smsw, "smsw %rax");
V(v_rdpid, ".byte 0xf3, 0x0f, 0xc7, 0xf8");
V(v_lsl, "mov $0x7b, %ecx; lsl %ecx, %eax");
V(v_xsave, "mov $-1, %eax; mov $-1, %edx; pcmpeqd %xmm2, %xmm2; xsave (%rdi)");
V(v_sub, "push %rbx; push %rcx; mov $1, %eax; cpuid; pop %rcx; pop %rbx; ret");
U(u_rdtsc, "rdtsc");
U(u_rdtscp, "rdtscp");
U(u_calls, "1: call v_sub; add %rax, %rbx; dec %r12; jnz 1b");

static void identities(void)
{
	static const u32 leaf[] = {0, 1, 2, 4, 5, 6, 7, 0xd, 0x15, 0x40000000, 0x40000001, 0x80000000, 0x80000001, 0x80000008};
	u64 wrong = 0;

	for (unsigned i = 0; i < sizeof(leaf) / sizeof(leaf[0]); i++) {
		struct cpuid_regs r;

		in.r[AX] = leaf[i];
		in.r[CX] = 0;
		wrong += run(v_cpuid) != DONE;
		r = cpuid(leaf[i], 0);
		wrong += out.r[AX] != r.a || out.r[BX] != r.b || out.r[CX] != r.c || out.r[DX] != r.d;
	}
	check("CPUID", wrong, 0);
	fresh();
	event("  and nothing else", v_cpuid, DONE, 0, 3, M(AX) | M(BX) | M(CX) | M(DX));
	in.r[R12] = 300;
	in.r[BX] = 0;
	check("CPUID in a subroutine", run(u_calls), DONE);
	check("  sum", out.r[BX] - 300ul * cpuid(1, 0).a, 0);
	check("  changed", changed(), M(AX) | M(BX) | M(DX) | M(R12));
	fresh();
	if (cpuid(1, 0).c >> 26 & 1) {
		event("XGETBV", v_xgetbv, DONE, 0, 6, M(AX) | M(CX) | M(DX) | ANY_ARITH);
		check("  value", out.r[DX] << 32 | out.r[AX], has_avx ? 7 : 3);
		for (u64 i = 0; i < 4096; i += 8)
			*data64(i) = i >= 512 && i < 576 ? 0 : 0xaaaaaaaaaaaaaaaa;
		in.r[DI] = DATA;
		check("XSAVE of all", run(v_xsave), DONE);
		check("  components", *data64(512) & ~7ul, 0);
		check("  XMM2", *data64(160 + 32), ~0ul);
		rt_ret = 0;
		for (u64 i = has_avx ? 832 : 576; i < 4096; i += 8)
			rt_ret += *data64(i) != 0xaaaaaaaaaaaaaaaa;
		check("  no more than those", rt_ret, 0);
		fresh();
	}
	in.r[DI] = DATA;
	event("SGDT", v_sgdt, DONE, 0, 4, 0);
	check("  limit", *(u16 *)data64(0), sizeof(gdt) - 1);
	check("  base", *(u64 *)(DATA_FRAME + 2) - (u64)gdt, 0);
	event("SMSW", v_smsw, DONE, 0, 5, M(AX));
	check("  value", out.r[AX] & 0xffff, READ_CR(0) & 0xffff);
	check("LSL of a segment that the GDT lacks", run(v_lsl), DONE);
	check("  ZF", out.rflags & 0x40, 0);
	if (cpuid(7, 0).c >> 22 & 1) {
		wrmsr(0xc0000103, 0x77);
		event("RDPID", v_rdpid, DONE, 0, 5, M(AX));
		check("  value", out.r[AX], 0x77);
	} else {
		lacks("RDPID");
	}
}

static void time_stamps(void)
{
	u64 before = rdtsc(), user, after;

	event("RDTSC", u_rdtsc, DONE, 0, 3, M(AX) | M(DX));
	after = rdtsc();
	user = out.r[DX] << 32 | out.r[AX];
	check("  in order", before <= user && user <= after, 1);
	if (!(cpuid(0x80000001, 0).d >> 27 & 1)) {
		lacks("RDTSCP");
		return;
	}
	wrmsr(0xc0000103, 0x78);
	event("RDTSCP", u_rdtscp, DONE, 0, 4, M(AX) | M(CX) | M(DX));
	user = out.r[DX] << 32 | out.r[AX];
	check("  in order", after <= user && user <= rdtsc(), 1);
	check("  TSC_AUX", out.r[CX], 0x78);
}

/* ---- interrupts ---- */

static u64 arrivals, wanted, inside;
U(u_spin, "1: inc %rbx; cmpl $0, (%rdi); je 1b\n u_spin_end:");
extern u8 u_spin_end[];

static int on_timer(struct frame *f)
{
	if (f->vector != 0x50)
		return 0;
	apic_write(APIC_EOI, 0);
	inside += f->rip >= at(u_spin) && f->rip < at(u_spin_end);
	if (++arrivals == wanted)
		*(volatile u32 *)DATA_FRAME = 1;
	return 1;
}

static void spin(const char *name, u64 n, u32 lvtt, u32 count)
{
	arrivals = inside = 0;
	wanted = n;
	*data64(0) = 0;
	in.r[DI] = DATA;
	apic_write(APIC_TDCR, 0xb);
	apic_write(APIC_LVTT, lvtt);
	apic_write(APIC_TMICT, count);
	check(name, run(u_spin), DONE);
	apic_write(APIC_TMICT, 0);
	apic_write(APIC_LVTT, 0x10000);
	check("  arrivals", arrivals >= n, 1);
	check("  inside the loop", inside >= n, 1);
	check("  changed", changed(), M(BX));
	fresh();
}

static void interrupts(void)
{
	resume = on_timer;
	apic_write(APIC_SVR, 0x1ff);
	spin("timer", 1, 0x50, 300000);
	spin("periodic timer", 20, 0x20050, 200000);
	arrivals = 0;
	wanted = ~0ul;
	apic_write(APIC_ICR, 0x40050);
	event("interrupt before the first instruction", u_syscall, SYSCALL, 0, 2, M(CX) | M(R11));
	check("  arrivals", arrivals, 1);
	resume = 0;
}

U_END;

void guest_main(void)
{
	user_begin();
	events();
	round_trips();
	flags();
	alignment();
	vectors();
	numeric();
	segments();
	identities();
	time_stamps();
	interrupts();
	hypercalls();
}
