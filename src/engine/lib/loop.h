/* The engine's main thread: epoll over the VM socket, irqfds, timers. Callbacks run there. */
#ifndef ENGINE_LIB_LOOP_H
#define ENGINE_LIB_LOOP_H

#include "base/types.h"

int loop_init(void); /* after eng_arena_init(); 0 or -errno */
int loop_run(void);  /* returns only on failure: -errno */

typedef void loop_fn(void *arg);
/* Watches fd for input. Main thread only (KVM_IRQFD requests run there). Return 0 or -errno. */
int loop_add(int fd, loop_fn *fn, void *arg);
void loop_del(int fd);
/* One-shot timers on the main thread, absolute CLOCK_MONOTONIC ns (PIT, RTC-like): any thread may arm. */
struct loop_timer {
	u64 deadline; /* 0: not armed */
	loop_fn *fn;
	void *arg;
	bool linked;
	struct loop_timer *next;
};
void loop_timer_set(struct loop_timer *t, u64 deadline_ns);

#endif
