/* Virtual-8086 mode, with and without VME; SYSENTER and SYSEXIT. */
#include "legacy.h"

void guest_main(void)
{
	descend(0);
	judge_v86();
	judge_sysenter();
}
