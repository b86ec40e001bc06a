/* What runs in a Linux guest: the name of a vCPU's current task, found without knowing how its kernel was configured. */
#ifndef DEBUG_LINUX_H
#define DEBUG_LINUX_H

#include "debug/symbols.h"

#define LINUX_COMM 16

struct linux_tasks {
	u64 current; /* offset of the pointer to the current task in a CPU's per-CPU area */
	u32 comm;    /* offset of the name in struct task_struct; 0: not found */
};
void linux_find(struct linux_tasks *t, const struct symbols *s, const struct inspect *in);
/* kernel_gs: MSR KERNEL_GS_BASE of the vCPU. "" if it cannot be told. Printable, without ';' or space. */
void linux_comm(const struct linux_tasks *t, const struct inspect *in, u64 kernel_gs, char comm[LINUX_COMM + 1]);

#endif
