/* Code that changes itself: what was translated must not be run any more. */
#include "learn.h"

void learn_on_trap(struct frame *f)
{
}

static u8 code[64] __attribute__((aligned(64), section(".data.smc")));

/* mov $value, %eax; ret */
static void write_code(u32 value)
{
	code[0] = 0xb8;
	*(volatile u32 *)(code + 1) = value;
	code[5] = 0xc3;
}

static u32 call_code(void)
{
	u32 v;

	__asm__ volatile("call *%1" : "=a"(v) : "r"(code) : "memory");
	return v;
}

void learn_main(void)
{
	u32 sum = 0, eax = 0;

	write_code(1);
	say_hex("first version ", call_code());
	write_code(2); /* the page holds translated code: this store goes the slow way, and the translation with it */
	say_hex("second version", call_code());
	for (u32 i = 0; i < 1000; i++) { /* often: the page is compared from now on, not protected */
		write_code(i);
		sum += call_code();
	}
	say_hex("sum of 0 to 999", sum);
	/* what x86 asks for where another processor wrote the code (SDM 3A 8.1.3); here it changes nothing */
	__asm__ volatile("cpuid" : "+a"(eax) : : "rbx", "rcx", "rdx", "memory");
	write_code(3);
	say_hex("third version ", call_code());
}
