/* What tracing keeps in struct vcpu. Off: kinds is 0. Changed at safe points by the main thread, which then sets ATT_TRACE. */
#ifndef ENGINE_TRACE_STATE_H
#define ENGINE_TRACE_STATE_H

#include "base/types.h"

struct trace_ring;

struct trace_state {
	u32 kinds;      /* bits by enum trace_kind */
	u32 counting;   /* MODE_KEY_COUNT or 0: trace/sample.c; part of cpu_mode.key too */
	u32 key;        /* MODE_KEY_TRACE or 0: part of cpu_mode.key at the next cpu_update_mode() */
	u32 cpls;
	bool wait;
	u64 lo, hi;     /* RIP */
	struct trace_ring *ring;
	u64 left;       /* TSC of the exit to the VMM that has not come back; 0: none */
	struct {        /* the sensitive instruction that is executing */
		bool active, fell; /* fell: on to the next of its block */
		u8 what, cpl, bits;
		u64 rip, arg, flags, old;
	} insn;
	struct {        /* a store to a page table through a pointer: told when it is done */
		u64 gpa, rip, tsc, old;
		u8 size, cpl, bits; /* size 0: none */
	} late;
};

#endif
