/* Into the ring of a vCPU. One writer, one reader; what the reader writes can only make us lose events. */
#include <sys/syscall.h>

#include "engine/lib/lib.h"
#include "engine/trace/trace.h"
#include "kvm/chan.h"

struct trace_event trace_event_here(const struct vcpu *cpu, enum trace_kind kind, unsigned what)
{
	static const u8 bits[] = {[INSN_MODE_16] = 16, [INSN_MODE_32] = 32, [INSN_MODE_64] = 64};

	return (struct trace_event){.rip = cpu->rip, .kind = (u16)kind, .what = (u16)what, .cpl = cpu->mode.cpl,
				    .bits = bits[cpu->mode.code]};
}

static bool wanted(const struct trace_state *t, const struct trace_event *e)
{
	return t->kinds >> e->kind & 1 && t->cpls >> e->cpl & 1 && e->rip >= t->lo && e->rip <= t->hi;
}

static bool has_room(const struct trace_ring *r)
{
	return r->head - __atomic_load_n(&r->tail, __ATOMIC_ACQUIRE) < TRACE_SLOTS;
}

static bool is_to_leave(const struct vcpu *cpu)
{
	return __atomic_load_n(&cpu->chan->attention, __ATOMIC_RELAXED) & (ATT_SAFE | ATT_CANCEL) ||
	       __atomic_load_n(&cpu->chan->run.immediate_exit, __ATOMIC_RELAXED);
}

/*
 * Nobody waits for long on a reader that is gone: whoever stops the trace asks for a safe point. Nor does the VMM, which has an access
 * completed with immediate_exit before it pauses a vCPU.
 */
static bool wait_for_room(struct vcpu *cpu, const struct trace_ring *r)
{
	while (!has_room(r)) {
		if (!cpu->trace.wait || is_to_leave(cpu))
			return false;
		sys_call(SYS_sched_yield);
	}
	return true;
}

void trace_emit(struct vcpu *cpu, const struct trace_event *e)
{
	struct trace_ring *r = cpu->trace.ring;
	struct trace_event *slot = NULL;
	u64 head = 0;

	if (unlikely(cpu->trace.late.size)) /* came first */
		trace_table_late(cpu);
	if (!r || !wanted(&cpu->trace, e))
		return;
	if (!has_room(r) && !wait_for_room(cpu, r)) {
		__atomic_store_n(&r->lost, r->lost + 1, __ATOMIC_RELAXED);
		return;
	}
	head = r->head;
	slot = &r->event[head % TRACE_SLOTS];
	*slot = *e;
	slot->tsc = e->tsc ? e->tsc : eng_rdtsc();
	slot->number = head + 1;
	__atomic_store_n(&r->head, head + 1, __ATOMIC_RELEASE);
}
