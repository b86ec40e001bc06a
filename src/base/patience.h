/*
 * Whether someone who waits looks for a while before he sleeps. Falling asleep and being woken on an idle core takes tens of
 * microseconds, an exit to the hypervisor on each side where the host is a virtual machine itself; an answer that comes sooner is
 * better waited for. Nobody looks who has no reason to expect that: only after some sleeps that were over soon, and not for longer than
 * a sleep would have cost. Each time that it was in vain twice as many such sleeps are needed, each time that it was not half as many. An idle
 * machine sleeps.
 */
#ifndef BASE_PATIENCE_H
#define BASE_PATIENCE_H

#include <sched.h>

#include "base/types.h"

enum {
	PATIENCE_LOOK_NS = 100000, /* so long at most */
	PATIENCE_SOON_NS = 200000, /* a sleep that was over by then could have been spared: two wake-ups and some work */
	PATIENCE_FIRST = 4,
	PATIENCE_LAST = 32, /* if each look is in vain: some 3 % more work */
};

struct patience {
	u32 quick;  /* sleeps lately that were over soon */
	u32 needed; /* so many of them make it look */
};

static inline void patience_init(struct patience *p)
{
	*p = (struct patience){.needed = PATIENCE_FIRST};
}

/* Whether there is another core for who is waited for. Before a sandbox forbids to ask. */
static inline bool patience_pays(void)
{
	cpu_set_t set;

	return sched_getaffinity(0, sizeof(set), &set) == 0 && CPU_COUNT(&set) > 1;
}

static inline bool patience_looks(const struct patience *p)
{
	return p->quick >= p->needed;
}

/* After a wait; looked: began with looking; found: that was enough. */
static inline void patience_learn(struct patience *p, u64 waited_ns, bool looked, bool found)
{
	if (found) {
		p->needed /= 2;
	} else if (looked) {
		p->quick = 0;
		p->needed = p->needed ? MIN(p->needed * 2, (u32)PATIENCE_LAST) : 1;
	} else if (waited_ns >= PATIENCE_SOON_NS) {
		p->quick /= 2; /* a pause among many requests */
	} else if (p->quick < PATIENCE_LAST) {
		p->quick++;
	}
}

#endif
