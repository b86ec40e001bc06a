/* Ways through the interrupt table: a fault, a trap, INT n, the local timer, an interrupt to oneself. */
#include "learn.h"

#define LAPIC 0xfee00000ul
enum { SPIV = 0xf0, ICR = 0x300, ICR_HIGH = 0x310, LVT_TIMER = 0x320, TIMER_COUNT = 0x380, TIMER_DIVIDE = 0x3e0, EOI = 0xb0, IRR1 = 0x210 };
enum { VECTOR_TIMER = 0x20, VECTOR_SELF = 0x21 };

static volatile u64 divides, breakpoints, timers, selfs;

void learn_on_trap(struct frame *f)
{
	switch (f->vector) {
	case 0: /* #DE is a fault: RIP is at the instruction. div %ecx is two bytes long */
		divides++;
		f->rip += 2;
		break;
	case 3: /* #BP is a trap: RIP is behind it */
		breakpoints++;
		break;
	case VECTOR_TIMER:
		timers++;
		mmio_write(LAPIC + EOI, 0);
		break;
	case VECTOR_SELF:
		selfs++;
		mmio_write(LAPIC + EOI, 0);
		break;
	default:
		break;
	}
}

/* The local APIC's page: pd[2] has no table yet; a large page at 0xfee00000 through a directory of its own. */
static u64 apic_pd[512] __attribute__((aligned(4096)));

static void map_apic(void)
{
	pdpt[3] = (u64)apic_pd | 3;
	apic_pd[LAPIC >> 21 & 511] = (LAPIC & ~0x1ffffful) | 0x9b; /* 2 MiB, not cached */
}

void learn_main(void)
{
	map_apic();
	__asm__ volatile("xor %%edx, %%edx; mov $1, %%eax; xor %%ecx, %%ecx; div %%ecx" : : : "rax", "rcx", "rdx");
	__asm__ volatile("int3");
	say_hex("faults of div", divides);
	say_hex("breakpoints", breakpoints);

	mmio_write(LAPIC + SPIV, 0x1ff); /* software enable */
	mmio_write(LAPIC + ICR_HIGH, 0);
	mmio_write(LAPIC + ICR, 0x40000 | VECTOR_SELF); /* shorthand: self */
	say_hex("with IF clear, handled", selfs);
	say_hex("it waits in IRR", mmio_read(LAPIC + IRR1) >> (VECTOR_SELF - 0x20) & 1);
	__asm__ volatile("sti; nop; cli" : : : "memory"); /* the shadow of STI is one instruction long */
	say_hex("after sti, handled", selfs);

	mmio_write(LAPIC + TIMER_DIVIDE, 0xb);
	mmio_write(LAPIC + LVT_TIMER, VECTOR_TIMER); /* one shot */
	for (u64 i = 1; i <= 3; i++) {
		mmio_write(LAPIC + TIMER_COUNT, 100000);
		while (timers < i)
			__asm__ volatile("sti; hlt; cli" : : : "memory");
	}
	say_hex("timer interrupts that ended hlt", timers);
}
