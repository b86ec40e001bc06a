/* Runtime of the test guests: tables, traps, output. */
#include "rt.h"

extern u8 rt_stubs[], trap_stack_top[], rt_user_done[];
volatile struct trap trap;
u64 rt_saved_rsp, rt_arg, rt_ret, rt_user_flags = 2;
handler_fn *handlers[256];
struct idt_entry idt[256] __attribute__((aligned(16)));
struct tss64 tss __attribute__((aligned(16)));
u64 gdt[32] __attribute__((aligned(16)));
u64 rt_pml4[512] __attribute__((aligned(4096)));
static u64 pdpt[512] __attribute__((aligned(4096)));
static u64 pd[4][512] __attribute__((aligned(4096)));
static u64 pt[16][512] __attribute__((aligned(4096)));
static u32 npt;

void put(const char *s)
{
	while (*s)
		outb(0xe9, (u8)*s++);
}

void put_hex(u64 v)
{
	char buf[17];
	int i = 16;

	buf[i] = 0;
	do {
		buf[--i] = "0123456789abcdef"[v & 15];
		v >>= 4;
	} while (v);
	put(buf + i);
}

_Noreturn void guest_exit(u8 status)
{
	for (;;)
		outb(0xf4, status);
}

void note(const char *name, u64 value)
{
	put(name);
	put(" ");
	put_hex(value);
	put("\n");
}

void check(const char *name, u64 got, u64 want)
{
	put(name);
	put(" ");
	put_hex(got);
	if (got != want) {
		put(" FAIL, want ");
		put_hex(want);
	}
	put("\n");
}

void rt_trap(struct frame *f)
{
	if (handlers[f->vector] && handlers[f->vector](f))
		return;
	trap.vector = f->vector;
	trap.error = f->error;
	trap.rip = f->rip;
	trap.rflags = f->rflags;
	trap.cs = f->cs;
	trap.ss = f->ss;
	trap.rsp = f->rsp;
	trap.count++;
	trap.cr2 = READ_CR(2);
	if (!trap.recover) {
		put("unexpected trap ");
		put_hex(f->vector);
		put(" error ");
		put_hex(f->error);
		put(" rip ");
		put_hex(f->rip);
		put(" cr2 ");
		put_hex(trap.cr2);
		put(" FAIL\n");
		guest_exit(1);
	}
	f->rip = trap.recover;
	f->rsp = rt_saved_rsp;
	f->cs = SEL_CODE;
	f->ss = SEL_DATA;
	f->rflags = 2;
}

static void set_gate(unsigned n, void *at, unsigned dpl, unsigned ist)
{
	u64 a = (u64)at;

	idt[n] = (struct idt_entry){(u16)a, SEL_CODE, (u8)ist, (u8)(0x8e | dpl << 5), (u16)(a >> 16), (u32)(a >> 32), 0};
}

u64 *pte_of(u64 a)
{
	u64 *pde = &pd[a >> 30][a >> 21 & 511];

	if (*pde & 0x80) {
		u64 *t = pt[npt++ % 16];

		for (u64 i = 0; i < 512; i++)
			t[i] = ((*pde & ~0x1ffffful & 0xffffffffff000) + i * 4096) | (*pde & 0x67 & ~0x80ul);
		*pde = (u64)t | 7;
		WRITE_CR(3, READ_CR(3));
	}
	return &((u64 *)(*pde & 0xffffffffff000))[a >> 12 & 511];
}

void rt_init(void)
{
	struct {
		u16 limit;
		u64 base;
	} __attribute__((packed)) gp = {sizeof(gdt) - 1, (u64)gdt}, ip = {sizeof(idt) - 1, (u64)idt};
	u64 t = (u64)&tss;

	gdt[1] = 0x00af9a000000ffff;
	gdt[2] = 0x00cf92000000ffff;
	gdt[3] = 0x00cffa000000ffff;
	gdt[4] = 0x00cff2000000ffff;
	gdt[5] = 0x00affa000000ffff;
	gdt[6] = (sizeof(tss) - 1) | (t & 0xffffff) << 16 | 0x890000000000 | (t >> 24 & 0xff) << 56;
	gdt[7] = t >> 32;
	tss.rsp[0] = (u64)trap_stack_top;
	tss.iomap = sizeof(tss); /* beyond the limit: no bitmap */
	__asm__ volatile("lgdt %0" ::"m"(gp));
	__asm__ volatile("mov %0, %%ds; mov %0, %%es; mov %0, %%ss; mov %0, %%fs; mov %0, %%gs" ::"r"(SEL_DATA));
	__asm__ volatile("pushq %0; lea 1f(%%rip), %%rax; push %%rax; lretq; 1:" ::"i"(SEL_CODE) : "rax", "memory");
	for (unsigned i = 0; i < 256; i++)
		set_gate(i, rt_stubs + i * 16, i == 3 || i == 4 || i == 0x80, 0);
	for (unsigned i = 0; i < 256; i++)
		if (i == 3 || i == 4 || i == 0x80)
			set_gate(i, rt_stubs + i * 16, 3, 0);
	set_gate(0x81, rt_user_done, 3, 0);
	__asm__ volatile("lidt %0" ::"m"(ip));
	__asm__ volatile("ltr %w0" ::"r"(SEL_TSS));
	rt_pml4[0] = (u64)pdpt | 7;
	for (u64 i = 0; i < 4; i++) {
		pdpt[i] = (u64)pd[i] | 7;
		for (u64 j = 0; j < 512; j++)
			pd[i][j] = (i * 512 + j) << 21 | 0x87;
	}
	WRITE_CR(4, READ_CR(4) | 0x600); /* OSFXSR, OSXMMEXCPT */
	WRITE_CR(3, rt_pml4);
	wrmsr(0xc0000080, rdmsr(0xc0000080) | 0x801); /* NXE, SCE */
	WRITE_CR(0, (READ_CR(0) | 0x10022) & ~0xcul); /* WP, NE, MP; not EM, TS */
}

/* ---- application processors ---- */

extern u8 ap_start[], ap_end[];
static void (*volatile ap_main_fn)(u64);
static volatile u32 aps_running;
void rt_ap(u64 index);

void rt_ap(u64 index)
{
	struct {
		u16 limit;
		u64 base;
	} __attribute__((packed)) gp = {sizeof(gdt) - 1, (u64)gdt}, ip = {sizeof(idt) - 1, (u64)idt};

	__asm__ volatile("lgdt %0; lidt %1" ::"m"(gp), "m"(ip));
	apic_write(APIC_SVR, 0x1ff);
	__atomic_fetch_add(&aps_running, 1, __ATOMIC_SEQ_CST);
	ap_main_fn(index);
}

u32 start_aps(void (*fn)(u64))
{
	u8 *to = (u8 *)0x8000;
	u64 end = rdtsc() + 20000000000;

	ap_main_fn = fn;
	for (u8 *p = ap_start; p < ap_end; p++)
		*to++ = *p;
	apic_write(APIC_SVR, 0x1ff);
	apic_write(APIC_ICR, 0xc4500); /* INIT to all but self */
	for (u32 i = 0; i < 1000; i++)
		pause();
	apic_write(APIC_ICR, 0xc4608);
	while (aps_running < 3 && rdtsc() < end)
		pause();
	return aps_running;
}
