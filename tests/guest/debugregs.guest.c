/* Debug registers: kinds and lengths of breakpoints, TF, RF, GD, and the shadow of MOV SS. */
#include "rt.h"

static volatile u64 hits, first_rip, last_rip, dr6_seen, rip_log[16];
static int set_rf, stop_after;

static int on_debug(struct frame *f)
{
	u64 dr6;

	__asm__ volatile("mov %%dr6, %0; mov %1, %%dr6" : "=&r"(dr6) : "r"(0xffff0ff0ul));
	if (!hits)
		first_rip = f->rip;
	if (hits < 16)
		rip_log[hits] = f->rip;
	hits++;
	last_rip = f->rip;
	dr6_seen |= dr6 & 0xe00f;
	if (set_rf)
		f->rflags |= 0x10000;
	if (hits >= 16 || (stop_after && hits >= (u64)stop_after))
		f->rflags &= ~0x100ul;
	return 1;
}

static void set_dr7(u64 v) { __asm__ volatile("mov %0, %%dr7" ::"r"(v)); }
static void begin(void) { hits = dr6_seen = 0; }

static void set_dr(unsigned n, u64 v)
{
	switch (n) {
	case 0: __asm__ volatile("mov %0, %%dr0" ::"r"(v)); break;
	case 1: __asm__ volatile("mov %0, %%dr1" ::"r"(v)); break;
	case 2: __asm__ volatile("mov %0, %%dr2" ::"r"(v)); break;
	default: __asm__ volatile("mov %0, %%dr3" ::"r"(v));
	}
}

static void data_breakpoints(void)
{
	static const u8 len_code[] = {0, 1, 3, 2}, len[] = {1, 2, 4, 8};
	u64 base = PAGE_OF_TESTS + 0x40;

	for (unsigned n = 0; n < 4; n++) {
		for (unsigned l = 0; l < 4; l++) {
			u64 at = base + n * 64, mask = 0;

			set_dr(n, at);
			set_dr7(0x400 | 2u << n * 2 | (1u | len_code[l] << 2) << (16 + n * 4));
			for (u64 o = 0; o < 24; o++) {
				begin();
				*(volatile u8 *)(at - 8 + o) = 1;
				mask |= (hits != 0) << o;
			}
			check("bytes watched for writes", mask, ((1ul << len[l]) - 1) << 8);
			begin();
			*(volatile u32 *)(at + len[l] - 1) = 1;
			check("  overlapping", hits, 1);
			check("  DR6", dr6_seen, 1u << n);
			begin();
			(void)*(volatile u8 *)at;
			check("  read", hits, 0);
			set_dr7(0x400 | 2u << n * 2 | (3u | len_code[l] << 2) << (16 + n * 4));
			begin();
			(void)*(volatile u8 *)at;
			check("  read or write: read", hits, 1);
			*(volatile u8 *)at = 2;
			check("  read or write: write", hits, 2);
		}
		set_dr7(0x400);
	}
	begin();
	*(volatile u8 *)base = 3;
	check("disabled", hits, 0);
	set_dr(0, base);
	set_dr(1, base + 1);
	set_dr7(0x0011040a | 0x100000 | 0x10000);
	begin();
	*(volatile u16 *)base = 3;
	check("two at once", hits, 1);
	check("  DR6", dr6_seen, 3);
	set_dr7(0x400);
	set_dr7(0x00010402);
	begin();
	__asm__ volatile("mov %0, %%rdi; mov $4, %%ecx; xor %%eax, %%eax; rep stosb" ::"r"(base - 2) : "rdi", "rcx", "rax", "memory");
	check("rep stosb across", hits, 1);
	begin();
	__asm__ volatile("push %%rax; lea (%0), %%rax; lock incl (%%rax); pop %%rax" ::"r"(base) : "memory", "cc");
	check("locked increment", hits, 1);
	set_dr7(0x400);
}

extern u8 code_at[], code_after[];
static void code_breakpoints(void)
{
	set_dr(2, (u64)code_at);
	set_dr7(0x400 | 2 << 4);
	begin();
	set_rf = 1;
	__asm__ volatile("mov $0, %%eax; code_at: inc %%eax; code_after: nop" ::: "rax", "cc");
	check("instruction breakpoint", hits, 1);
	check("  fault: rip", last_rip, (u64)code_at);
	check("  DR6", dr6_seen, 4);
	set_rf = 0;
	set_dr7(0x400);
}

extern u8 step0[], step1[], step2[], ss1[];
static void single_step(void)
{
	begin();
	stop_after = 3;
	__asm__ volatile("pushfq; orq $0x100, (%%rsp); popfq; nop; step0: inc %%eax; step1: inc %%eax; step2: nop" ::: "rax", "cc", "memory");
	check("steps", hits, 3);
	check("  first after the instruction behind popf", rip_log[0], (u64)step0);
	check("  second", rip_log[1], (u64)step1);
	check("  third", rip_log[2], (u64)step2);
	check("  DR6.BS", dr6_seen, 0x4000);
	begin();
	stop_after = 6;
	__asm__ volatile("lea %1, %%rdi; mov $3, %%ecx; xor %%eax, %%eax; pushfq; orq $0x100, (%%rsp); popfq; rep stosb; nop; nop; nop"
			 : "=m"(rt_ret) : "m"(rt_ret) : "rdi", "rcx", "rax", "cc", "memory");
	check("rep steps once per iteration", rip_log[0] == rip_log[1], 1);
	check("  and moves on after the last", rip_log[2] != rip_log[1], 1);
	begin();
	stop_after = 2;
	__asm__ volatile("mov %%ss, %%eax; pushfq; orq $0x100, (%%rsp); popfq; mov %%eax, %%ss; nop; ss1: nop; nop" ::: "rax", "cc", "memory");
	check("mov ss holds the trap back", first_rip, (u64)ss1);
	begin();
	set_dr(0, (u64)&rt_ret);
	set_dr7(0x000d0402 & ~0xc0000u);
	stop_after = 0;
	rt_ret = SEL_DATA;
	begin();
	set_dr7(0x00030402);
	__asm__ volatile("mov rt_ret(%%rip), %%ss; nop; nop" ::: "memory");
	set_dr7(0x400);
	check("mov ss holds a data breakpoint back", hits, 1);
	begin();
	stop_after = 1;
	__asm__ volatile("pushfq; orq $0x100, (%%rsp); popfq; pushfq; pop %0" : "=r"(rt_ret)::"memory", "cc");
	check("pushf with TF shows TF", rt_ret >> 8 & 1, 1);
	stop_after = 0;
}

static void detect(void)
{
	set_dr7(0x2400);
	begin();
	__asm__ volatile("mov %%dr0, %%rax" ::: "rax");
	check("GD", hits, 1);
	check("  DR6.BD", dr6_seen, 0x2000);
	__asm__ volatile("mov %%dr7, %0" : "=r"(rt_ret));
	check("  GD is clear in the handler and after", rt_ret & 0x2000, 0);
}

static void registers(void)
{
	u64 v;

	handlers[1] = 0;
	set_dr7(0x400);
	__asm__ volatile("mov %0, %%dr6" ::"r"(0ul));
	__asm__ volatile("mov %%dr6, %0" : "=r"(v));
	check("DR6 of zero", v & ~0x10800ul, 0xfffe07f0);
	check("DR7 with upper bits", TRAP("mov $0x100000000, %%rax; mov %%rax, %%dr7", "i"(0)), 13);
	check("DR6 with upper bits", TRAP("mov $0x100000000, %%rax; mov %%rax, %%dr6", "i"(0)), 13);
	check("DR4 without DE", TRAP("mov %%db4, %%rax", "i"(0)), 0xff);
	WRITE_CR(4, READ_CR(4) | 8);
	check("DR4 with DE", TRAP("mov %%db4, %%rax", "i"(0)), 6);
	WRITE_CR(4, READ_CR(4) & ~8ul);
	check("breakpoint in an absent page", TRAP("mov $0x7000000000, %%rax; mov %%rax, %%dr3; mov $0xd0000480, %%ecx; mov %%rcx, %%dr7;"
						   "mov (%%rax), %%ecx", "i"(0)), 14);
	set_dr7(0x400);
	for (unsigned n = 0; n < 4; n++)
		set_dr(n, 0);
	check("int3 is #BP", TRAP("int3", "i"(0)), 3);
	check("icebp is #DB", TRAP(".byte 0xf1", "i"(0)), 1);
}

void guest_main(void)
{
	handlers[1] = on_debug;
	data_breakpoints();
	code_breakpoints();
	single_step();
	detect();
	registers();
}
