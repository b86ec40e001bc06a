/* A task switch from 32 bits to a 16-bit TSS, and back by IRET. */
#include "legacy.h"

void guest_main(void)
{
	descend(1);
	judge_task();
}
