/* CPL 3: what it may not do, what it may when allowed, and the ways in and out. */
#include "rt.h"

USER(u_cli, "cli");
USER(u_sti, "sti");
USER(u_hlt, "hlt");
USER(u_in, "inb $0x80, %al");
USER(u_out, "outb %al, $0x80");
USER(u_ins, "mov $0x80, %edx; lea rt_ret(%rip), %rdi; insb");
USER(u_lgdt, "lgdt rt_arg(%rip)");
USER(u_lidt, "lidt rt_arg(%rip)");
USER(u_lldt, "xor %eax, %eax; lldt %ax");
USER(u_ltr, "mov $48, %eax; ltr %ax");
USER(u_cr0, "mov %cr0, %rax");
USER(u_cr3, "mov %rax, %cr3");
USER(u_cr8, "mov %cr8, %rax");
USER(u_clts, "clts");
USER(u_lmsw, "mov $1, %eax; lmsw %ax");
USER(u_dr, "mov %dr7, %rax");
USER(u_invlpg, "invlpg (%rsp)");
USER(u_wbinvd, "wbinvd");
USER(u_rdmsr, "mov $0xc0000080, %ecx; rdmsr");
USER(u_wrmsr, "mov $0xc0000080, %ecx; wrmsr");
USER(u_swapgs, "swapgs");
USER(u_sysret, "sysretq");
USER(u_int40, "int $0x40");
USER(u_int80, "int $0x80");
USER(u_kernel_cs, "push $16; push $0; pushfq; push $8; push $0; iretq");
USER(u_null_ss, "mov $0, %eax; mov %eax, %ss");

static const struct {
	const char *name;
	void (*fn)(void);
	u64 vector, error;
} forbidden[] = {
	{"cli", u_cli, 13, 0},		  {"sti", u_sti, 13, 0},	  {"hlt", u_hlt, 13, 0},
	{"in", u_in, 13, 0},		  {"out", u_out, 13, 0},	  {"ins", u_ins, 13, 0},
	{"lgdt", u_lgdt, 13, 0},	  {"lidt", u_lidt, 13, 0},	  {"lldt", u_lldt, 13, 0},
	{"ltr", u_ltr, 13, 0},		  {"mov from cr0", u_cr0, 13, 0}, {"mov to cr3", u_cr3, 13, 0},
	{"mov from cr8", u_cr8, 13, 0},	  {"clts", u_clts, 13, 0},	  {"lmsw", u_lmsw, 13, 0},
	{"mov from dr7", u_dr, 13, 0},	  {"invlpg", u_invlpg, 13, 0},	  {"wbinvd", u_wbinvd, 13, 0},
	{"rdmsr", u_rdmsr, 13, 0},	  {"wrmsr", u_wrmsr, 13, 0},	  {"swapgs", u_swapgs, 13, 0},
	{"sysret", u_sysret, 13, 0},	  {"int 0x40", u_int40, 13, 0x202}, {"int 0x80", u_int80, 0x80, 0},
	{"iret to CPL 0", u_kernel_cs, 13, 8}, {"null ss", u_null_ss, 13, 0},
};

static void forbidden_instructions(void)
{
	for (unsigned i = 0; i < sizeof(forbidden) / sizeof(forbidden[0]); i++) {
		check(forbidden[i].name, user(forbidden[i].fn), forbidden[i].vector);
		check("  error", trap.error, forbidden[i].error);
		check("  cs", trap.cs, SEL_UCODE);
		check("  ss", trap.ss, SEL_UDATA);
	}
}

USER(u_popf, "pushfq; pop %rcx; xor $0x3200, %rcx; push %rcx; popfq; pushfq; pop %rax; and $0x3202, %eax");
USER(u_popf_ok, "pushfq; orq $0x240cd5, (%rsp); popfq; pushfq; pop %rax; mov $2, %ecx; push %rcx; popfq");
USER(u_iret_flags, "mov %rsp, %rax; push $35; push %rax; pushfq; orq $0x3200, (%rsp); push $43; lea 1f(%rip), %rcx; push %rcx; iretq\n"
		   "1: pushfq; pop %rax; and $0x3202, %eax");
USER(u_nt, "pushfq; orq $0x4000, (%rsp); popfq; iretq");
USER(u_sti_cli, "sti; pushfq; pop %rax; cli; pushfq; pop %rcx; shl $32, %rcx; or %rcx, %rax");

static void flags(void)
{
	check("popf", user(u_popf), 0xff);
	check("  keeps IF and IOPL", rt_ret, 2);
	rt_user_flags = 0x202;
	check("popf with IF", user(u_popf), 0xff);
	check("  keeps IF and IOPL", rt_ret, 0x202);
	rt_user_flags = 0x3002;
	check("popf with IOPL 3", user(u_popf), 0xff);
	check("  changes IF, not IOPL", rt_ret, 0x3202);
	check("sti and cli with IOPL 3", user(u_sti_cli), 0xff);
	check("  IF", rt_ret & 0x320000003200, 0x300000003200);
	check("out with IOPL 3", user(u_out), 0xff);
	check("hlt with IOPL 3", user(u_hlt), 13);
	rt_user_flags = 0x2002;
	check("out with IOPL 2", user(u_out), 13);
	rt_user_flags = 2;
	check("popf of what is free", user(u_popf_ok), 0xff);
	check("  flags", rt_ret, 0x240cd7);
	check("iret from CPL 3", user(u_iret_flags), 0xff);
	check("  keeps IF and IOPL", rt_ret, 2);
	check("iret with NT in 64-bit mode", user(u_nt), 13);
}

USER(u_out_e9w, "mov $0x20, %eax; mov $0x17, %edx; outw %ax, %dx");
USER(u_out_last, "mov $0xffff, %edx; outb %al, %dx");
USER(u_out_top, "mov $0xfffe, %edx; outl %eax, %dx");

static void set_tss_limit(u64 limit)
{
	u64 t = (u64)&tss;

	gdt[SEL_TSS / 8] = limit | (t & 0xffffff) << 16 | 0x890000000000 | (t >> 24 & 0xff) << 56;
	__asm__ volatile("ltr %w0" ::"r"(SEL_TSS));
}

static void io_bitmap(void)
{
	tss.iomap = (u16)((u64)tss.bitmap - (u64)&tss);
	check("out, bitmap clear", user(u_out), 0xff);
	tss.bitmap[0x10] = 1;
	check("out, bit set", user(u_out), 13);
	check("in, bit set", user(u_in), 13);
	tss.bitmap[0x10] = 0xfe;
	check("out, only neighbours set", user(u_out), 0xff);
	tss.bitmap[0x10] = 0;
	tss.bitmap[3] = 1;
	check("out of a word across bytes", user(u_out_e9w), 13);
	tss.bitmap[3] = 2;
	check("out of a word, bit behind it", user(u_out_e9w), 0xff);
	check("out to the last port", user(u_out_last), 0xff);
	tss.bitmap[3] = 0;
	set_tss_limit(0x78);
	check("out at the limit of the TSS", user(u_out), 13);
	set_tss_limit(sizeof(tss) - 1);
	tss.iomap = sizeof(tss);
}

USER(u_sgdt, "sub $16, %rsp; sgdt (%rsp); mov 2(%rsp), %rax; add $16, %rsp");
USER(u_sidt, "sub $16, %rsp; sidt (%rsp); add $16, %rsp");
USER(u_sldt, "sldt %eax");
USER(u_str, "str %eax");
USER(u_smsw, "smsw %eax");

static void umip(void)
{
	static void (*const fn[])(void) = {u_sgdt, u_sidt, u_sldt, u_str, u_smsw};
	static const char *const name[] = {"sgdt", "sidt", "sldt", "str", "smsw"};

	for (unsigned i = 0; i < 5; i++)
		check(name[i], user(fn[i]), 0xff);
	check("smsw value", rt_ret & 0xffff, READ_CR(0) & 0xffff);
	user(u_sgdt);
	check("sgdt base", rt_ret, (u64)gdt);
	user(u_str);
	check("str value", rt_ret, SEL_TSS);
	if (!(cpuid(7, 0).c >> 2 & 1)) {
		lacks("UMIP");
		return;
	}
	WRITE_CR(4, READ_CR(4) | 0x800);
	for (unsigned i = 0; i < 5; i++) {
		put("UMIP ");
		check(name[i], user(fn[i]), 13);
	}
	check("UMIP sgdt at CPL 0", TRAP("sub $16, %%rsp; sgdt (%%rsp); add $16, %%rsp", "i"(0)), 0xff);
	WRITE_CR(4, READ_CR(4) & ~0x800ul);
}

u64 sc_rcx, sc_r11, sc_flags, sc_cs, sc_ss, sc_rsp;
extern u8 sc_entry[], sc_after[];
__asm__(".text\nsc_entry: mov %rcx, sc_rcx(%rip); mov %r11, sc_r11(%rip); pushfq; popq sc_flags(%rip); mov %cs, sc_cs(%rip);"
	"mov %ss, sc_ss(%rip); mov %rsp, sc_rsp(%rip); sysretq\n");
USER(u_syscall, "xor %eax, %eax; std; syscall\n sc_after: pushfq; cld; pop %rax; mov %cs, %ecx; shl $32, %rcx; or %rcx, %rax;"
		"mov %ss, %ecx; shl $48, %rcx; or %rcx, %rax");
__asm__(".text\nsc_entry32: sysretl\n");
extern u8 sc_entry32[];
USER(u_syscall32, "lea 1f(%rip), %rcx; syscall; 1: .code32; mov %cs, %eax; ljmp $43, $2f; .code64; 2:");

static void system_calls(void)
{
	wrmsr(0xc0000081, (u64)SEL_CODE << 32 | (u64)SEL_UCODE32 << 48);
	wrmsr(0xc0000082, (u64)sc_entry);
	wrmsr(0xc0000084, 0x600);
	rt_user_flags = 0x202;
	check("syscall", user(u_syscall), 0xff);
	check("  rcx", sc_rcx, (u64)sc_after);
	check("  r11", sc_r11 & 0x600, 0x600);
	check("  flags", sc_flags & 0x600, 0);
	check("  cs", sc_cs, SEL_CODE);
	check("  ss", sc_ss, SEL_DATA);
	check("  flags and selectors back", rt_ret & 0xffffffff00000600, (u64)SEL_UCODE << 32 | (u64)SEL_UDATA << 48 | 0x600);
	rt_user_flags = 2;
	wrmsr(0xc0000082, (u64)sc_entry32);
	check("sysret to 32 bits", user(u_syscall32), 0xff);
	check("  cs", rt_ret & 0xffff, SEL_UCODE32);
	wrmsr(0xc0000080, rdmsr(0xc0000080) & ~1ul);
	check("syscall without SCE", user(u_syscall), 6);
	wrmsr(0xc0000080, rdmsr(0xc0000080) | 1);
	check("LSTAR must be canonical", TRAP("mov $0xc0000082, %%ecx; xor %%eax, %%eax; mov $0x800000, %%edx; wrmsr", "i"(0)), 13);
}

static u64 read_gs(void)
{
	return rdmsr(0xc0000101);
}

USER(u_rdfs, "rdfsbase %rax");
USER(u_wrfs, "mov $0x123456789000, %rax; wrfsbase %rax; rdfsbase %rax");
USER(u_wrgs32, "mov $-1, %rax; wrgsbase %eax; rdgsbase %rax");
USER(u_wrgs_bad, "mov $0x800000000000, %rax; wrgsbase %rax");

static void bases(void)
{
	wrmsr(0xc0000101, 0x1111000);
	wrmsr(0xc0000102, 0xffff800000000000);
	__asm__ volatile("swapgs");
	check("swapgs", read_gs(), 0xffff800000000000);
	check("  the other", rdmsr(0xc0000102), 0x1111000);
	__asm__ volatile("swapgs");
	if (!(cpuid(7, 0).b & 1)) {
		lacks("FSGSBASE");
		return;
	}
	check("rdfsbase, CR4 bit clear", user(u_rdfs), 6);
	WRITE_CR(4, READ_CR(4) | 0x10000);
	check("wrfsbase", user(u_wrfs), 0xff);
	check("  value", rt_ret, 0x123456789000);
	check("wrgsbase of 32 bits", user(u_wrgs32), 0xff);
	check("  value", rt_ret, 0xffffffff);
	check("  kernel's is untouched", rdmsr(0xc0000102), 0xffff800000000000);
	check("wrgsbase not canonical", user(u_wrgs_bad), 13);
	WRITE_CR(4, READ_CR(4) & ~0x10000ul);
}

USER(u_rdtsc, "rdtsc");
USER(u_rdpmc, "xor %ecx, %ecx; rdpmc");
USER(u_rdtscp, "rdtscp");

static void time_stamp_disable(void)
{
	check("rdtsc", user(u_rdtsc), 0xff);
	WRITE_CR(4, READ_CR(4) | 4);
	check("rdtsc with TSD", user(u_rdtsc), 13);
	if (cpuid(0x80000001, 0).d >> 27 & 1)
		check("rdtscp with TSD", user(u_rdtscp), 13);
	WRITE_CR(4, READ_CR(4) & ~4ul);
	check("rdpmc without PCE", user(u_rdpmc), 13);
}

USER(u_unaligned, "lea 1(%rsp), %rax; mov -64(%rax), %ecx");
USER(u_aligned, "mov -64(%rsp), %ecx");

static void alignment(void)
{
	rt_user_flags = 0x40002;
	check("AC without AM", user(u_unaligned), 0xff);
	WRITE_CR(0, READ_CR(0) | 0x40000);
	check("AC and AM", user(u_unaligned), 17);
	check("  error", trap.error, 0);
	check("AC and AM, aligned", user(u_aligned), 0xff);
	WRITE_CR(0, READ_CR(0) & ~0x40000ul);
	rt_user_flags = 2;
}

void guest_main(void)
{
	forbidden_instructions();
	flags();
	io_bitmap();
	umip();
	system_calls();
	bases();
	time_stamp_disable();
	alignment();
}
