/* Descriptors: checks on loading, LAR and its kin, limits in compatibility mode, far transfers, call gates. */
#include "rt.h"

#define FREE (SEL_FREE / 8)
#define DESC(base, limit, access, flags)                                                                         \
	(((u64)(limit) & 0xffff) | ((u64)(base) & 0xffffff) << 16 | (u64)(access) << 40 | ((u64)(limit) >> 16 & 15) << 48 | \
	 (u64)(flags) << 52 | ((u64)(base) >> 24 & 0xff) << 56)

static u64 load_ds(u64 sel)
{
	u64 v;

	rt_arg = sel;
	v = TRAP("mov rt_arg(%%rip), %%rax; mov %%eax, %%ds", "i"(0));
	__asm__ volatile("mov %0, %%ds" ::"r"(SEL_DATA));
	return v;
}

static u64 load_ss(u64 sel)
{
	u64 v;

	rt_arg = sel;
	v = TRAP("mov rt_arg(%%rip), %%rax; mov %%eax, %%ss", "i"(0));
	__asm__ volatile("mov %0, %%ss" ::"r"(SEL_DATA));
	return v;
}

static void loading(void)
{
	static const struct {
		const char *name;
		u8 access, sel_low; /* of selector SEL_FREE */
		u8 ds, ss;          /* vectors */
	} t[] = {
		{"data rw", 0x92, 0, 0xff, 0xff}, {"data ro", 0x90, 0, 0xff, 13},	 {"data absent", 0x12, 0, 11, 12},
		{"code xo", 0x98, 0, 13, 13},	  {"code xr", 0x9a, 0, 0xff, 13},	 {"conforming xr", 0x9e, 3, 0xff, 13},
		{"expand down", 0x96, 0, 0xff, 0xff}, {"data rpl 3", 0x92, 3, 13, 13}, {"data dpl 3", 0xf2, 3, 0xff, 13},
		{"data dpl 3 rpl 0", 0xf2, 0, 0xff, 13}, {"system", 0x82, 0, 13, 13}, {"tss", 0x89, 0, 13, 13},
	};

	for (unsigned i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
		gdt[FREE] = DESC(0, 0xfffff, t[i].access, 0xc);
		put("ds ");
		check(t[i].name, load_ds(SEL_FREE | t[i].sel_low), t[i].ds);
		if (t[i].ds != 0xff)
			check("  error", trap.error, SEL_FREE);
		put("ss ");
		check(t[i].name, load_ss(SEL_FREE | t[i].sel_low), t[i].ss);
		if (t[i].ss != 0xff)
			check("  error", trap.error, SEL_FREE);
	}
	gdt[FREE] = DESC(0, 0xfffff, 0x92, 0xc);
	load_ds(SEL_FREE);
	check("loading sets the accessed bit", gdt[FREE] >> 40 & 1, 1);
	check("ldt selector without an ldt", load_ds(SEL_FREE | 4), 13);
	check("  error", trap.error, SEL_FREE | 4);
	check("null", load_ds(0), 0xff);
	check("null with rpl", load_ds(3), 0xff);
	check("beyond the limit", load_ds(0x1000), 13);
	check("  error", trap.error, 0x1000);
}

static u64 ldt[4] __attribute__((aligned(16)));

static void system_descriptors(void)
{
	u64 a = (u64)ldt;

	gdt[FREE] = DESC(a, sizeof(ldt) - 1, 0x82, 0);
	gdt[FREE + 1] = a >> 32;
	check("lldt", TRAP("mov $64, %%eax; lldt %%ax", "i"(0)), 0xff);
	ldt[1] = DESC(0, 0xfffff, 0x92, 0xc);
	check("data from the ldt", load_ds(8 | 4), 0xff);
	check("beyond the ldt", load_ds(32 | 4), 13);
	check("  error", trap.error, 36);
	check("sldt", ({ u64 v; __asm__ volatile("sldt %0" : "=r"(v)); v & 0xffff; }), SEL_FREE);
	gdt[FREE] = DESC(a, sizeof(ldt) - 1, 0x02, 0);
	check("lldt absent", TRAP("mov $64, %%eax; lldt %%ax", "i"(0)), 11);
	check("  error", trap.error, SEL_FREE);
	gdt[FREE] = DESC(a, sizeof(ldt) - 1, 0x89, 0);
	check("lldt of a tss", TRAP("mov $64, %%eax; lldt %%ax", "i"(0)), 13);
	check("lldt with ldt selector", TRAP("mov $12, %%eax; lldt %%ax", "i"(0)), 13);
	check("lldt null", TRAP("xor %%eax, %%eax; lldt %%ax", "i"(0)), 0xff);
	check("after it no ldt", load_ds(8 | 4), 13);
	check("ltr busy", TRAP("mov $48, %%eax; ltr %%ax", "i"(0)), 13);
	check("  error", trap.error, SEL_TSS);
	check("ltr null", TRAP("xor %%eax, %%eax; ltr %%ax", "i"(0)), 13);
	gdt[FREE] = DESC(a, 0x67, 0x09, 0);
	check("ltr absent", TRAP("mov $64, %%eax; ltr %%ax", "i"(0)), 11);
	gdt[FREE] = DESC(a, 0x67, 0x81, 0);
	check("ltr of a 16-bit tss", TRAP("mov $64, %%eax; ltr %%ax", "i"(0)), 13);
	gdt[FREE] = DESC(a, 0x67, 0x89, 0);
	gdt[FREE + 1] = 0x0000120000000000;
	check("ltr with bits in the upper type", TRAP("mov $64, %%eax; ltr %%ax", "i"(0)), 13);
	gdt[FREE + 1] = 0;
}

static void look_ups(void)
{
	static const struct {
		const char *name;
		u8 access, rpl;
		u8 lar, lsl, verr, verw;
	} t[] = {
		{"data rw", 0x92, 0, 1, 1, 1, 1},	{"data ro", 0x90, 0, 1, 1, 1, 0}, {"code xo", 0x98, 0, 1, 1, 0, 0},
		{"code xr", 0x9a, 0, 1, 1, 1, 0},	{"absent data", 0x12, 0, 1, 1, 1, 1}, {"rpl 3 dpl 0", 0x92, 3, 0, 0, 0, 0},
		{"conforming rpl 3", 0x9e, 3, 1, 1, 1, 0}, {"rpl 3 dpl 3", 0xf2, 3, 1, 1, 1, 1}, {"ldt", 0x82, 0, 1, 1, 0, 0},
		{"tss", 0x89, 0, 1, 1, 0, 0},		{"busy tss", 0x8b, 0, 1, 1, 0, 0}, {"call gate", 0x8c, 0, 1, 0, 0, 0},
		{"16-bit tss", 0x81, 0, 0, 0, 0, 0},	{"16-bit gate", 0x84, 0, 0, 0, 0, 0}, {"task gate", 0x85, 0, 0, 0, 0, 0},
		{"interrupt gate", 0x8e, 0, 0, 0, 0, 0},
	};

	gdt[FREE + 1] = 0;
	for (unsigned i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
		u64 sel = SEL_FREE | t[i].rpl, v = 0x1234567890, z;

		gdt[FREE] = DESC(0x12345678, 0x23456, t[i].access, 0xc);
		__asm__ volatile("lar %2, %k0; sete %b1" : "+r"(v), "=q"(z) : "r"((u32)sel) : "cc");
		put("lar ");
		check(t[i].name, z & 1, t[i].lar);
		check("  value", v, t[i].lar ? (0x00c00000 | 0x20000 | t[i].access << 8) : 0x1234567890);
		v = 0x1234567890;
		__asm__ volatile("lsl %2, %k0; sete %b1" : "+r"(v), "=q"(z) : "r"((u32)sel) : "cc");
		put("lsl ");
		check(t[i].name, z & 1, t[i].lsl);
		check("  value", v, t[i].lsl ? 0x23456fff : 0x1234567890);
		__asm__ volatile("verr %w1; sete %b0" : "=q"(z) : "r"((u32)sel) : "cc");
		put("verr ");
		check(t[i].name, z & 1, t[i].verr);
		__asm__ volatile("verw %w1; sete %b0" : "=q"(z) : "r"((u32)sel) : "cc");
		put("verw ");
		check(t[i].name, z & 1, t[i].verw);
	}
}

/* 32-bit code between; a fault in it comes back like any other. */
#define IN32(cs, code) "pushq $" #cs "; pushq $7f; lretq; .code32; 7: " code "; ljmp $8, $6f; .code64; 6:"

static u64 with_es(u64 desc, u64 offset, int write)
{
	u64 v;

	gdt[FREE] = desc;
	gdt[FREE + 1] = DESC(0, 0xfffff, 0x9a, 0xc);
	rt_arg = offset;
	if (write)
		v = TRAP(IN32(72, "mov $64, %%eax; mov %%eax, %%es; mov rt_arg, %%ecx; movl $0x5a5a5a5a, %%es:(%%ecx)"), "i"(0));
	else
		v = TRAP(IN32(72, "mov $64, %%eax; mov %%eax, %%es; mov rt_arg, %%ecx; movl %%es:(%%ecx), %%eax; mov %%eax, rt_ret"),
			 "i"(0));
	__asm__ volatile("mov %0, %%es" ::"r"(SEL_DATA));
	return v;
}

static void limits(void)
{
	u64 rw = DESC(PAGE_OF_TESTS, 0xfff, 0x92, 4), down = DESC(PAGE_OF_TESTS, 0xfff, 0x96, 4);

	*(u32 *)PAGE_OF_TESTS = 0x11111111;
	*(u32 *)(PAGE_OF_TESTS + 0xffc) = 0x22222222;
	check("within", with_es(rw, 0xffc, 0), 0xff);
	check("  value", (u32)rt_ret, 0x22222222);
	check("last byte beyond", with_es(rw, 0xffd, 0), 13);
	check("  error", trap.error, 0);
	check("beyond", with_es(rw, 0x1000, 1), 13);
	check("wrap", with_es(rw, 0xfffffffe, 1), 13);
	check("expand down: at the limit", with_es(down, 0xfff, 0), 13);
	check("expand down: across", with_es(down, 0xffd, 0), 13);
	check("expand down: above", with_es(down, 0x1000, 0), 0xff);
	check("expand down, 16 bits: above 64K", with_es(DESC(PAGE_OF_TESTS, 0xfff, 0x96, 0), 0x10000, 0), 13);
	check("expand down, 16 bits: last", with_es(DESC(PAGE_OF_TESTS, 0xfff, 0x96, 0), 0xfffc, 0), 0xff);
	check("expand down, 16 bits: across 64K", with_es(DESC(PAGE_OF_TESTS, 0xfff, 0x96, 0), 0xfffd, 0), 13);
	check("read-only", with_es(DESC(PAGE_OF_TESTS, 0xfff, 0x90, 4), 0, 1), 13);
	check("read-only, read", with_es(DESC(PAGE_OF_TESTS, 0xfff, 0x90, 4), 0, 0), 0xff);
	check("code, write", with_es(DESC(PAGE_OF_TESTS, 0xfff, 0x9a, 4), 0, 1), 13);
	check("code, read", with_es(DESC(PAGE_OF_TESTS, 0xfff, 0x9a, 4), 0, 0), 0xff);
	check("base wraps at 4 GiB", with_es(DESC(0xfffff000, 0xfffff, 0x92, 0xc), PAGE_OF_TESTS + 0x1000, 0), 0xff);
	check("  value", (u32)rt_ret, 0x11111111);
	check("page granular", with_es(DESC(PAGE_OF_TESTS, 0, 0x92, 0xc), 0xffc, 0), 0xff);
	check("page granular, beyond", with_es(DESC(PAGE_OF_TESTS, 0, 0x92, 0xc), 0x1000, 0), 13);
	check("null es", TRAP(IN32(72, "xor %%eax, %%eax; mov %%eax, %%es; movl %%es:(%%eax), %%eax"), "i"(0)), 13);
	gdt[FREE] = DESC(0, 0x100, 0x92, 0xc);
	check("stack beyond its limit", TRAP(IN32(72, "mov $64, %%eax; mov %%eax, %%ss; push %%eax"), "i"(0)), 12);
	check("  error", trap.error, 0);
	__asm__ volatile("mov %0, %%ss; mov %0, %%es" ::"r"(SEL_DATA));
	gdt[FREE] = DESC(0, 0xff, 0x9a, 0xc); /* code: the first MiB */
	check("code beyond its limit", TRAP(IN32(64, "nop"), "i"(0)), 13);
	check("eip wraps in 32 bits", TRAP(IN32(72, "mov $-4, %%eax; lea 8(%%eax), %%eax; mov %%eax, rt_ret"), "i"(0)), 0xff);
	check("  value", (u32)rt_ret, 4);
	check("64-bit operand size is no prefix", TRAP(IN32(72, "mov $5, %%eax; .byte 0x48; mov %%eax, rt_ret"), "i"(0)), 0xff);
	check("  dec eax", (u32)rt_ret, 4);
}

static u64 far_to(u64 sel)
{
	rt_arg = sel;
	return TRAP("push rt_arg(%%rip); lea 7f(%%rip), %%rax; push %%rax; lretq; 7: pushq $8; lea 6f(%%rip), %%rax; push %%rax; lretq; 6:",
		    "i"(0));
}

static void far_transfers(void)
{
	static const struct {
		const char *name;
		u64 desc;
		u64 rpl, vector;
	} t[] = {
		{"code", DESC(0, 0xfffff, 0x9a, 0xa), 0, 0xff},	       {"conforming", DESC(0, 0xfffff, 0x9e, 0xa), 0, 0xff},
		{"absent code", DESC(0, 0xfffff, 0x1a, 0xa), 0, 11},   {"L and D", DESC(0, 0xfffff, 0x9a, 0xe), 0, 13},
		{"code dpl 3", DESC(0, 0xfffff, 0xfa, 0xa), 0, 13},    {"data", DESC(0, 0xfffff, 0x92, 0xa), 0, 13},
		{"system", DESC(0, 0xfffff, 0x82, 0xa), 0, 13},
	};

	for (unsigned i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
		gdt[FREE] = t[i].desc;
		put("far ret to ");
		check(t[i].name, far_to(SEL_FREE | t[i].rpl), t[i].vector);
		if (t[i].vector != 0xff)
			check("  error", trap.error, SEL_FREE);
	}
	check("far ret to null", far_to(0), 13);
	check("  error", trap.error, 0);
	gdt[FREE] = DESC(0, 0xfffff, 0x9a, 0xa);
	check("ljmp through memory", TRAP("sub $16, %%rsp; lea 7f(%%rip), %%eax; mov %%eax, (%%rsp); movw $64, 4(%%rsp); ljmpl *(%%rsp);"
					  "7: mov %%cs, %%eax; mov %%rax, rt_ret(%%rip); movw $8, 4(%%rsp); lea 6f(%%rip), %%eax;"
					  "mov %%eax, (%%rsp); ljmpl *(%%rsp); 6: add $16, %%rsp", "i"(0)), 0xff);
	check("  cs", rt_ret, SEL_FREE);
	check("lcall through memory and lret", TRAP("sub $16, %%rsp; lea 7f(%%rip), %%eax; mov %%eax, (%%rsp); movw $64, 4(%%rsp);"
						    "mov %%rsp, %%rcx; lcalll *(%%rsp); jmp 6f; 7: sub %%rsp, %%rcx; mov %%rcx, rt_ret(%%rip);"
						    "lretl; 6: add $16, %%rsp", "i"(0)), 0xff);
	check("  pushed", rt_ret, 8);
}

u64 gate_sel[2], gate_cs, gate_ss, gate_rsp, gate_frame[4];
extern u8 gate_entry[];
__asm__(".text\ngate_entry: mov %cs, gate_cs(%rip); mov %ss, gate_ss(%rip); mov %rsp, gate_rsp(%rip);"
	"mov (%rsp), %rax; mov %rax, gate_frame(%rip); mov 8(%rsp), %rax; mov %rax, gate_frame+8(%rip);"
	"mov 16(%rsp), %rax; mov %rax, gate_frame+16(%rip); mov 24(%rsp), %rax; mov %rax, gate_frame+24(%rip); lretq\n");
USER(u_gate, "lcalll *gate_sel(%rip); mov %cs, %eax; mov %ss, %ecx; shl $32, %rcx; or %rcx, %rax");
USER(u_gate_jump, "ljmpl *gate_sel(%rip)");

static void call_gates(void)
{
	u64 e = (u64)gate_entry, gate = (e & 0xffff) | SEL_CODE << 16 | 0xec0000000000 | (e >> 16 & 0xffff) << 48;

	gdt[FREE] = gate;
	gdt[FREE + 1] = e >> 32;
	gate_sel[0] = (u64)(SEL_FREE | 3) << 32;
	check("call gate from CPL 3", user(u_gate), 0xff);
	check("  back at", rt_ret, (u64)SEL_UDATA << 32 | SEL_UCODE);
	check("  cs", gate_cs, SEL_CODE);
	check("  ss is null", gate_ss, 0);
	check("  stack of the tss", gate_rsp, tss.rsp[0] - 32);
	check("  saved cs", gate_frame[1], SEL_UCODE);
	check("  saved ss", gate_frame[3], SEL_UDATA);
	check("jump through it", user(u_gate_jump), 13);
	check("  error", trap.error, SEL_CODE);
	gdt[FREE] = gate & ~0x600000000000;
	check("gate of DPL 0", user(u_gate), 13);
	check("  error", trap.error, SEL_FREE);
	gdt[FREE] = gate & ~0x800000000000;
	check("absent gate", user(u_gate), 11);
	gdt[FREE] = gate;
	gdt[FREE + 1] = (e >> 32) | 0x0000010000000000;
	check("upper type not zero", user(u_gate), 13);
	gdt[FREE + 1] = e >> 32;
	gdt[FREE] = (gate & ~0xffff0000ul) | (SEL_FREE + 16) << 16;
	gdt[FREE + 2] = DESC(0, 0xfffff, 0x9a, 0xc);
	check("gate to 32-bit code", user(u_gate), 13);
	check("  error", trap.error, SEL_FREE + 16);
	gdt[FREE] = gate & ~0xffff0000ul;
	check("gate to null", user(u_gate), 13);
	check("  error", trap.error, 0);
	gdt[FREE] = gate;
	check("call gate from CPL 0", TRAP("lcalll *gate_sel(%%rip)", "i"(0)), 0xff);
	check("  two words only", gate_frame[1], SEL_CODE);
}

void guest_main(void)
{
	loading();
	system_descriptors();
	look_ups();
	limits();
	far_transfers();
	call_gates();
}
