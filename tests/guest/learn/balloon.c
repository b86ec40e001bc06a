/*
 * Which memory a guest uses. A balloon driver gives pages back that nobody needs; it has to find them. The accessed bit is how: clear it,
 * flush, wait, look again.
 */
#include "learn.h"

#define FIRST 512 /* entry of pt: 2 MiB */
#define PAGES 16
#define P     0x01ul
#define A     0x20ul
#define D     0x40ul

static u64 idle[PAGES], nidle;

void learn_on_trap(struct frame *f)
{
}

static volatile u8 *page(u64 n)
{
	return (volatile u8 *)((FIRST + n) << 12);
}

static void flush(void)
{
	__asm__ volatile("mov %0, %%cr3" : : "r"(READ_CR(3)) : "memory");
}

/* Accessed bits off: from here on they say what is used. */
static void begin_look(void)
{
	for (u64 i = 0; i < PAGES; i++)
		pt[FIRST + i] &= ~A;
	flush();
}

static u64 count(u64 bit)
{
	u64 n = 0;

	for (u64 i = 0; i < PAGES; i++)
		n += !!(pt[FIRST + i] & bit);
	return n;
}

void learn_main(void)
{
	for (u64 i = 0; i < PAGES; i++)
		page(i)[0] = 1;
	say_hex("pages written once", count(D));

	begin_look();
	for (u64 round = 0; round < 3; round++) /* the work of this guest needs four pages: two it writes, two it reads */
		for (u64 i = 0; i < 4; i++) {
			if (i < 2)
				page(i)[round] = 1;
			else
				(void)page(i)[round];
		}
	say_hex("pages in use", count(A));

	for (u64 i = 0; i < PAGES; i++)
		if (!(pt[FIRST + i] & A)) {
			idle[nidle++] = FIRST + i; /* what a balloon would tell the host: page frame numbers */
			pt[FIRST + i] &= ~P;       /* nobody may use it while it is in the balloon */
		}
	flush();
	say_hex("idle pages, for a balloon", nidle);
	say_hex("the first of them is frame", idle[0]);
}
