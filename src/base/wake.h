/*
 * How a process that serves a device wakes a vCPU that sleeps in the engine, without the engine's main thread in between. A page
 * is mapped by the VMM, the engine and the processes.
 *
 * A source is an eventfd that asks for an interrupt, as ever. While it is bound to a GSI, its process may set pending instead of
 * writing to the eventfd, but only if it then finds the vCPU asleep, rings it, and so knows that the vCPU will look. The vCPU
 * raises the GSIs of all sources that are pending. A vCPU that runs is not concerned: it is stopped by the engine alone.
 *
 * What a hostile process can do here is to wake vCPUs for nothing and to raise interrupts of the guest, whose memory it has anyway.
 *
 * A process that is about to look for its next request anyway may leave an interrupt for a vCPU that is awake (wake_leave): a vCPU finds it
 * before it falls asleep. If it does not do so soon, the process takes it back (wake_overdue) and writes to the eventfd.
 */
#ifndef BASE_WAKE_H
#define BASE_WAKE_H

#include "base/types.h"

enum { WAKE_CPUS = 64, WAKE_SOURCES = 128 };
enum wake_state { WAKE_AWAKE, WAKE_ASLEEP, WAKE_RUNG, WAKE_LOOKS /* as ASLEEP, but sees the word change: no futex */ };

struct wake_source {
	u32 pending;
	u32 gsi; /* the VMM's; 0: not bound */
	u32 cpu; /* the engine's: whom the interrupt went to last, so that he be woken */
} __attribute__((aligned(64)));

struct wake_page {
	u32 sources; /* in use */
	struct wake_cpu {
		u32 state; /* enum wake_state; a futex. The vCPU's, but for ASLEEP or LOOKS to RUNG */
		u32 left;  /* not 0: something may be pending */
	} __attribute__((aligned(64))) cpu[WAKE_CPUS];
	struct wake_source source[WAKE_SOURCES];
};

/* False: write to the eventfd. */
bool wake_ring(struct wake_page *w, u32 source);
enum wake_how { WAKE_NOT /* write to the eventfd */, WAKE_DONE, WAKE_LEFT };
enum wake_how wake_leave(struct wake_page *w, u32 source);
/* For the process: rings, or if it may, leaves; NULL: there is no page. True: write to the eventfd. *left_at: for wake_overdue(). */
bool wake_call(struct wake_page *w, u32 source, bool may_leave, u64 *left_at);
/* What was left at that time (nanoseconds; 0: nothing) is taken back if nobody has found it soon, or at once if its process has other things to do. True: write to the eventfd. */
bool wake_overdue(struct wake_page *w, u32 source, u64 *left_at, bool now);
/* The VMM's, when the source is bound to a GSI or no longer (0). True: an interrupt was pending: write to the eventfd. */
bool wake_bind(struct wake_page *w, u32 source, u32 gsi);

#endif
