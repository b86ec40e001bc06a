/* A processor writes code that another one runs, beside data that it writes all the time: flag, serialise, run (SDM 3A 9.1.3). */
#include "rt.h"

static u8 *const c = (u8 *)PAGE_OF_TESTS;
static u8 *const d = (u8 *)PAGE_OF_TESTS + 0x800; /* data in the same page */

static void put32(u8 *p, u32 v)
{
	*(volatile u32 *)p = v;
}

static u64 run(u8 *p)
{
	u64 v = 0;

	__asm__ volatile("call *%1" : "+a"(v) : "r"(p) : "memory", "cc");
	return v;
}

static volatile u32 turn, go_on = 1, seen_bad, seen, taken;

static _Noreturn void go_home(void)
{
	for (;;)
		__asm__ volatile("hlt");
}

static void ap(u64 index)
{
	(void)index;
	if (__atomic_exchange_n(&taken, 1, __ATOMIC_SEQ_CST))
		go_home();
	while (go_on) {
		u32 t = turn;

		pause();
		if (t & 1) {
			cpuid(0, 0);
			if ((u32)run(c + 0x100) != t)
				seen_bad = seen_bad + 1;
			seen = seen + 1;
			turn = t + 1;
		}
	}
	go_home();
}

void guest_main(void)
{
	c[0x100] = 0xb8;
	put32(c + 0x101, 0);
	c[0x105] = 0xc3;
	check("processors started", start_aps(ap), 3);
	go_on = 1;
	for (u32 i = 1; i < 400; i += 2) {
		put32(c + 0x101, i);
		put32(d, i);
		turn = i;
		while (turn == i)
			pause();
	}
	go_on = 0;
	check("code written by another processor", seen_bad, 0);
	check("  was run", seen > 190, 1);
}
