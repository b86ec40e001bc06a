/* Page tables: what the processor writes into them, and what it remembers of them. */
#include "learn.h"

#define PAGE 0x200000ul /* mapped by pt[512] */
#define ALIAS 0x300000ul /* by pt[768] */

static volatile u64 faults, fault_address, fault_error;

/* The page is not present: it is made so, and the instruction runs again. */
void learn_on_trap(struct frame *f)
{
	faults++;
	fault_error = f->error;
	__asm__ volatile("mov %%cr2, %0" : "=r"(fault_address));
	pt[512] |= 1;
}

void learn_main(void)
{
	volatile u64 *page = (volatile u64 *)PAGE, *alias = (volatile u64 *)ALIAS;

	say_hex("entry at first", pt[512]);
	(void)*page;
	say_hex("after a read ", pt[512]);
	*page = 1;
	say_hex("after a write", pt[512]);

	pt[768] = PAGE | 7; /* the alias was never used: nothing remembers its old entry */
	*alias = 2;
	say_hex("through the alias", *page);

	pt[512] &= ~1ul; /* not present; but the TLB has it still */
	*page = 3;
	say_hex("faults before invlpg", faults);
	__asm__ volatile("invlpg (%0)" : : "r"(page) : "memory");
	*page = 4;
	say_hex("faults after invlpg", faults);
	say_hex("at", fault_address);
	say_hex("error code", fault_error);
	__asm__ volatile("mov %0, %%cr3" : : "r"(READ_CR(3)) : "memory");
	say_hex("value", *page);
}
