/* POPF changes IF in ring 0 and silently does not in ring 3; CLI, which does the same, traps there. */
#include "learn.h"

static volatile u64 user_flags, traps;

void learn_on_trap(struct frame *f)
{
	traps++;
	f->rip += 1; /* CLI is one byte long */
}

static void in_ring3(void)
{
	__asm__ volatile("pushfq\n\t"
			 "orq $0x200, (%%rsp)\n\t"
			 "popfq\n\t" /* no trap, and IF stays 0 */
			 "pushfq\n\t"
			 "popq %0\n\t"
			 "cli\n\t" /* a trap */
			 "int $0x30" : "=m"(user_flags) : : "memory");
}

void learn_main(void)
{
	u64 before = flags(), after = 0;

	__asm__ volatile("pushfq\n\t"
			 "orq $0x200, (%%rsp)\n\t"
			 "popfq\n\t" /* IF is 1 now */
			 "pushfq\n\t"
			 "popq %0\n\t"
			 "cli" : "=r"(after) : : "memory", "cc");
	say_hex("ring 0: IF before popf", before >> 9 & 1);
	say_hex("ring 0: IF after popf", after >> 9 & 1);
	learn_user(in_ring3);
	say_hex("ring 3: IF after popf", user_flags >> 9 & 1);
	say_hex("ring 3: traps", traps);
}
