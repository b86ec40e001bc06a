/* Current tasks. */
#include <string.h>
#include "debug/linux.h"

enum { TASK_MAX = 16384 };

void linux_find(struct linux_tasks *t, const struct symbols *s, const struct inspect *in)
{
	u8 task[TASK_MAX];
	u64 init = 0, n = 0;
	const u8 *name = NULL;

	*t = (struct linux_tasks){0};
	/* pcpu_hot from Linux 6.2 on: its first member is the current task */
	if (!symbols_find(s, "current_task", &t->current) && !symbols_find(s, "pcpu_hot", &t->current))
		return;
	/* the first task is called "swapper" from the start: where that stands, all others have their names */
	if (!symbols_find(s, "init_task", &init))
		return;
	n = inspect_read(in, init, task, sizeof(task));
	name = memmem(task, n, "swapper", 7);
	if (name)
		t->comm = (u32)(name - task);
}

/* Kernel's GS base: in kernel mode the live one, except in the few instructions around SWAPGS. */
static u64 percpu(const struct inspect *in, u64 kernel_gs)
{
	return in->s.gs.base >> 63 ? in->s.gs.base : kernel_gs;
}

void linux_comm(const struct linux_tasks *t, const struct inspect *in, u64 kernel_gs, char comm[LINUX_COMM + 1])
{
	u64 task = 0, gs = percpu(in, kernel_gs);

	memset(comm, 0, LINUX_COMM + 1);
	if (!t->comm || !(gs >> 63) || inspect_read(in, gs + t->current, &task, 8) != 8 ||
	    inspect_read(in, task + t->comm, comm, LINUX_COMM) != LINUX_COMM) {
		comm[0] = 0;
		return;
	}
	for (u32 i = 0; i < LINUX_COMM && comm[i]; i++)
		if (comm[i] <= ' ' || comm[i] > '~' || comm[i] == ';')
			comm[i] = '_';
}
