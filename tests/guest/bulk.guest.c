/*
 * More code than a cache of decoded instructions holds, met over and over: what was translated stays translated, though what was only
 * decoded has to make room. The runner compares the number of translations with what is told here.
 */
#include "rt.h"

#define FUNCTIONS 262144ul /* of 8 bytes: all the memory for tests */
#define ROUNDS    4

static void write_functions(void)
{
	for (u64 i = 0; i < FUNCTIONS; i++) /* mov $i, %eax; ret */
		((volatile u64 *)PAGE_OF_TESTS)[i] = 0xb8 | i << 8 | 0xc3ul << 40;
}

static u64 call_all(void)
{
	u64 at = PAGE_OF_TESTS, n = FUNCTIONS, sum = 0;

	__asm__ volatile("1: call *%0; add %%rax, %2; add $8, %0; dec %1; jnz 1b" : "+b"(at), "+c"(n), "+d"(sum) : : "rax", "memory", "cc");
	return sum;
}

void guest_main(void)
{
	write_functions();
	put("most translations: 300000\n"); /* one for each function, if none is lost */
	for (unsigned i = 0; i < ROUNDS; i++)
		check("sum", call_all(), FUNCTIONS * (FUNCTIONS - 1) / 2);
}
