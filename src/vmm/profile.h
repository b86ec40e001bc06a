/*
 * Sampling: at each tick of a timer the vCPUs are held for a moment and their stacks taken, folded (root;...;leaf) and counted. Works on
 * any KVM. Main thread only.
 */
#ifndef VMM_PROFILE_H
#define VMM_PROFILE_H

#include "vmm/machine.h"

struct profile_figures {
	u64 ticks, samples, lost; /* lost: the table is full */
	u64 held_ns;              /* for how long the vCPUs were outside because of it */
	u32 stacks;
	bool running;
};

int profile_create(struct machine *m); /* before the sandbox: it makes the timer */
void profile_free(struct machine *m);
int profile_start(struct machine *m, u32 hz, u64 ms); /* forgets what there was; ends by itself after ms */
void profile_stop(struct machine *m);
void profile_figures(const struct machine *m, struct profile_figures *out);
/* Lines "stack count" from number *next on, which is moved behind those that fit; returns the bytes. */
size_t profile_read(const struct machine *m, u32 *next, char *buf, size_t size);

#endif
