/* One processor rewrites code that the others run, with an IPI between (SDM 3A 8.1.3). */
#include "rt.h"

#define CPUS 4
static volatile u32 acks, wrong, go_on = 1, ready, calls, version;
static u8 *const code = (u8 *)PAGE_OF_TESTS;

static u32 run(void)
{
	u32 v;

	__asm__ volatile("call *%1" : "=a"(v) : "r"(code + 4093) : "memory", "cc");
	return v;
}

static int changed(struct frame *f)
{
	u32 old = version;

	(void)f;
	__atomic_fetch_add(&acks, 1, __ATOMIC_SEQ_CST);
	while (version == old)
		pause(); /* out of the code until it is new */
	cpuid(0, 0);     /* serialises */
	apic_write(APIC_EOI, 0);
	return 1;
}

static void ap(u64 index)
{
	(void)index;
	__atomic_fetch_add(&ready, 1, __ATOMIC_SEQ_CST);
	sti_nop();
	while (go_on) {
		u32 before = version, v = run(), after = version;

		if (v < before || v > after)
			wrong = wrong + 1;
		calls = calls + 1;
	}
	cli();
	__atomic_fetch_add(&ready, 1, __ATOMIC_SEQ_CST);
	for (;;)
		__asm__ volatile("hlt");
}

void guest_main(void)
{
	u32 mine = 0;

	handlers[0x41] = changed;
	code[4093] = 0xb8; /* mov $version, %eax: crosses into the next page */
	*(volatile u32 *)(code + 4094) = 0;
	code[4098] = 0xc3;
	check("processors started", start_aps(ap), CPUS - 1);
	while (ready < CPUS - 1)
		pause();
	for (u32 i = 1; i <= 40; i++) {
		acks = 0;
		apic_write(APIC_ICR, 0xc4041);
		while (acks < CPUS - 1)
			pause();
		*(volatile u32 *)(code + 4094) = i;
		version = i;
		mine += run() != i;
	}
	ready = 0;
	go_on = 0;
	while (ready < CPUS - 1)
		pause();
	check("wrong here", mine, 0);
	check("wrong elsewhere", wrong, 0);
	check("they ran it", calls > 0, 1);
}
