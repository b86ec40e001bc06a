/* Interrupt controllers: LAPIC timer, priorities, self IPI, ESR, x2APIC, IOAPIC with the PIT, and the PIC alone. */
#include "rt.h"

static volatile u64 got[256], order[32], norder;
static int x2apic, no_eoi;

static u32 rd(u32 reg) { return x2apic ? (u32)rdmsr(0x800 + reg / 16) : apic_read(reg); }
static void wr(u32 reg, u32 v)
{
	if (x2apic)
		wrmsr(0x800 + reg / 16, v);
	else
		apic_write(reg, v);
}

static int on_irq(struct frame *f)
{
	got[f->vector]++;
	if (norder < 32)
		order[norder++] = f->vector;
	if (!no_eoi)
		wr(APIC_EOI, 0);
	return 1;
}

static void self_ipi(u32 v)
{
	if (x2apic)
		wrmsr(0x83f, v);
	else
		apic_write(APIC_ICR, 0x40000 | v);
}

/* Waits with interrupts on until got[v] reaches n, at most a second or so. */
static u64 wait_for(u32 v, u64 n)
{
	u64 end = rdtsc() + 6000000000;

	while (got[v] < n && rdtsc() < end)
		__asm__ volatile("sti; nop; pause; cli" ::: "memory");
	return got[v];
}

static void priorities(void)
{
	norder = 0;
	cli();
	self_ipi(0x51);
	self_ipi(0x81);
	self_ipi(0x61);
	self_ipi(0x62);
	check("IRR", rd(APIC_IRR + 0x30), 6);
	sti_nop();
	cli();
	check("highest first", order[0] << 24 | order[1] << 16 | order[2] << 8 | order[3], 0x81626151);
	wr(APIC_TPR, 0x60);
	check("PPR is TPR", rd(APIC_PPR), 0x60);
	norder = 0;
	self_ipi(0x6f);
	self_ipi(0x71);
	sti_nop();
	cli();
	check("above TPR only", norder, 1);
	check("  vector", order[0], 0x71);
	__asm__ volatile("mov %%cr8, %0" : "=r"(rt_ret));
	check("CR8", rt_ret, 6);
	__asm__ volatile("mov %0, %%cr8; sti; nop; nop; cli" ::"r"(5ul) : "memory");
	check("CR8 lowered lets it in", order[1], 0x6f);
	check("TPR", rd(APIC_TPR), 0x50);
	wr(APIC_TPR, 0);
	check("CR8 beyond 4 bits", TRAP("mov $16, %%eax; mov %%rax, %%cr8", "i"(0)), 13);
	no_eoi = 1;
	norder = 0;
	self_ipi(0x91);
	sti_nop();
	cli();
	check("ISR", rd(APIC_ISR + 0x40), 1 << 17);
	check("PPR in service", rd(APIC_PPR), 0x90);
	self_ipi(0x9f);
	self_ipi(0xa0);
	sti_nop();
	cli();
	check("same class waits, higher nests", norder << 8 | order[1], 0x2a0);
	wr(APIC_EOI, 0);
	check("EOI ends the highest", rd(APIC_PPR), 0x90);
	no_eoi = 0;
	wr(APIC_EOI, 0);
	sti_nop();
	cli();
	check("then the one that waited", order[2], 0x9f);
	check("none left", rd(APIC_PPR), 0);
}

static void timer(void)
{
	u64 t0, t1, n;

	wr(APIC_TDCR, 0xb);
	check("TDCR", rd(APIC_TDCR), 0xb);
	wr(APIC_LVTT, 0x50);
	wr(APIC_TMICT, 200000);
	check("one-shot arrives", wait_for(0x50, 1), 1);
	check("count is 0 after it", rd(APIC_TMCCT), 0);
	t0 = rdtsc();
	while (rdtsc() - t0 < 3000000)
		__asm__ volatile("sti; nop; cli" ::: "memory");
	check("once", got[0x50], 1);
	wr(APIC_LVTT, 0x20052);
	wr(APIC_TMICT, 100000);
	check("periodic", wait_for(0x52, 5) >= 5, 1);
	wr(APIC_TMICT, 0);
	sti_nop();
	cli();
	n = got[0x52];
	t0 = rdtsc();
	while (rdtsc() - t0 < 3000000)
		__asm__ volatile("sti; nop; cli" ::: "memory");
	check("stopped", got[0x52] - n, 0);
	wr(APIC_LVTT, 0x10053);
	wr(APIC_TMICT, 1000);
	t0 = rdtsc();
	while (rdtsc() - t0 < 3000000)
		__asm__ volatile("sti; nop; cli" ::: "memory");
	check("masked", got[0x53], 0);
	wr(APIC_LVTT, 0x53);
	wr(APIC_TMICT, 4000000000); /* long: this vCPU may not be scheduled for a while */
	t0 = rd(APIC_TMCCT);
	for (u32 i = 0; i < 1000; i++)
		pause();
	t1 = rd(APIC_TMCCT);
	check("counts down", t1 < t0 && t0 < 4000000000, 1);
	wr(APIC_TMICT, 0);
	if (!(cpuid(1, 0).c >> 24 & 1)) {
		lacks("TSC deadline");
		return;
	}
	wr(APIC_LVTT, 0x40054);
	t0 = rdtsc() + 100000000000;
	wrmsr(0x6e0, t0);
	check("deadline reads back", rdmsr(0x6e0) - t0, 0);
	t0 = rdtsc() + 2000000;
	wrmsr(0x6e0, t0);
	check("deadline arrives", wait_for(0x54, 1), 1);
	check("  not early", rdtsc() >= t0, 1);
	check("  disarmed", rdmsr(0x6e0), 0);
	wrmsr(0x6e0, rdtsc() - 5);
	check("deadline in the past", wait_for(0x54, 2), 2);
	wrmsr(0x6e0, rdtsc() + 100000000000);
	wrmsr(0x6e0, 0);
	check("TMICT has no effect", (wr(APIC_TMICT, 1000), rd(APIC_TMCCT)), 0);
	wrmsr(0x6e0, rdtsc() + 1000000);
	__asm__ volatile("sti; hlt; cli" ::: "memory");
	check("wakes from HLT", got[0x54], 3);
	wr(APIC_LVTT, 0x10000);
}

static void errors(void)
{
	wr(APIC_ESR, 0);
	wr(APIC_ESR, 0);
	check("ESR clear", rd(APIC_ESR), 0);
	self_ipi(5);
	wr(APIC_ESR, 0);
	check("illegal vector sent", rd(APIC_ESR) & 0x20, 0x20);
	wr(APIC_ESR, 0);
	check("ESR clear again", rd(APIC_ESR), 0);
	wr(APIC_LVT0, 0x10700);
	check("LVT0", rd(APIC_LVT0), 0x10700);
	check("version", rd(0x30) & 0xff, 0x14);
	wr(APIC_SVR, 0xff);
	check("software disable masks the LVT", rd(APIC_LVT0) >> 16 & 1, 1);
	wr(APIC_LVTT, 0x50);
	check("  which stays masked", rd(APIC_LVTT) >> 16 & 1, 1);
	wr(APIC_SVR, 0x1ff);
}

static void to_x2apic(void)
{
	u64 base = rdmsr(0x1b);

	if (!(cpuid(1, 0).c >> 21 & 1)) {
		lacks("x2APIC");
		return;
	}
	check("x2APIC MSR in xAPIC mode", TRAP("mov $0x802, %%ecx; rdmsr", "i"(0)), 13);
	wrmsr(0x1b, base | 0x400);
	x2apic = 1;
	check("ID", rdmsr(0x802), 0);
	wr(APIC_SVR, 0x1ff);
	norder = 0;
	self_ipi(0x77);
	wrmsr(0x830, 0x40000 | 0x76);
	sti_nop();
	cli();
	check("self IPIs", order[0] << 8 | order[1], 0x7776);
	check("EOI with a value", TRAP("mov $0x80b, %%ecx; mov $1, %%eax; xor %%edx, %%edx; wrmsr", "i"(0)), 13);
	check("ID is read-only", TRAP("mov $0x802, %%ecx; xor %%eax, %%eax; xor %%edx, %%edx; wrmsr", "i"(0)), 13);
	check("no DFR", TRAP("mov $0x80e, %%ecx; rdmsr", "i"(0)), 13);
	check("no ICR2", TRAP("mov $0x831, %%ecx; rdmsr", "i"(0)), 13);
	check("back to xAPIC directly", (rt_arg = base, TRAP("mov $0x1b, %%ecx; mov rt_arg(%%rip), %%eax; xor %%edx, %%edx; wrmsr", "i"(0))), 13);
	wrmsr(0x1b, base & ~0xc00ul);
	check("disabled: CPUID has no APIC", cpuid(1, 0).d >> 9 & 1, 0);
	wrmsr(0x1b, base);
	x2apic = 0;
	apic_write(APIC_SVR, 0x1ff);
	check("xAPIC again", apic_read(APIC_SVR), 0x1ff);
}

#define IOAPIC 0xfec00000ul
static void ioapic_write(u32 reg, u32 v)
{
	*(volatile u32 *)IOAPIC = reg;
	*(volatile u32 *)(IOAPIC + 0x10) = v;
}
static u32 ioapic_read(u32 reg)
{
	*(volatile u32 *)IOAPIC = reg;
	return *(volatile u32 *)(IOAPIC + 0x10);
}

static void pit_one_shot(u16 count)
{
	outb(0x43, 0x30);
	outb(0x40, (u8)count);
	outb(0x40, count >> 8);
}

static void ioapic(void)
{
	check("IOAPIC pins", ioapic_read(1) >> 16 & 0xff, 23);
	outb(0x21, 0xff);
	outb(0xa1, 0xff);
	ioapic_write(0x11, 0);
	ioapic_write(0x10, 0x58); /* without routing by the VMM, GSI 0 is pin 0 */
	pit_one_shot(1000);
	check("PIT through the IOAPIC", wait_for(0x58, 1), 1);
	ioapic_write(0x10, 0x10058);
	pit_one_shot(1000);
	for (u64 t = rdtsc(); rdtsc() - t < 10000000;)
		__asm__ volatile("sti; nop; cli" ::: "memory");
	check("masked", got[0x58], 1);
	outb(0x43, 0x34);
	outb(0x40, 0);
	outb(0x40, 8);
	ioapic_write(0x10, 0x59);
	check("periodic", wait_for(0x59, 3) >= 3, 1);
	ioapic_write(0x10, 0x10059);
	outb(0x43, 0x30);
	sti_nop();
	cli();
}

static int on_pic(struct frame *f)
{
	got[f->vector]++;
	outb(0x20, 0x20);
	return 1;
}

static void pic(void)
{
	for (u32 v = 0x20; v < 0x30; v++)
		handlers[v] = on_pic;
	outb(0x20, 0x11);
	outb(0x21, 0x20);
	outb(0x21, 4);
	outb(0x21, 1);
	outb(0xa0, 0x11);
	outb(0xa1, 0x28);
	outb(0xa1, 2);
	outb(0xa1, 1);
	outb(0x21, 0xfe);
	outb(0xa1, 0xff);
	check("IMR", inb(0x21), 0xfe);
	apic_write(APIC_LVT0, 0x700);
	pit_one_shot(1000);
	check("PIT through the PIC", wait_for(0x20, 1), 1);
	pit_one_shot(1000);
	cli();
	outb(0x20, 0xa);
	for (u64 t = rdtsc(); !(inb(0x20) & 1) && rdtsc() - t < 3000000000;)
		pause();
	check("IRR", inb(0x20) & 1, 1);
	outb(0x21, 0xff);
	sti_nop();
	cli();
	check("masked", got[0x20], 1);
	outb(0x21, 0xfe);
	check("unmasked", wait_for(0x20, 2), 2);
	outb(0x21, 0xff);
}

void guest_main(void)
{
	for (u32 v = 0x30; v < 0x100; v++)
		if (v != 0x80 && v != 0x81)
			handlers[v] = on_irq;
	handlers[0x81] = on_irq;
	idt[0x81] = idt[0x82]; /* no way back from CPL 3 is needed here */
	idt[0x81].off0 = (u16)(idt[0x82].off0 - 16);
	apic_write(APIC_SVR, 0x1ff);
	priorities();
	timer();
	errors();
	to_x2apic();
	ioapic();
	pic();
}
