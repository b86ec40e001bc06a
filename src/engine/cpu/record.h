/*
 * What a vCPU has done lately, for whoever looks at it when it has stopped: its last exceptions, always; the places that jumps led to,
 * and all code that has run, when asked (bits of mode.key, so that code which records is another translation).
 */
#ifndef ENGINE_CPU_RECORD_H
#define ENGINE_CPU_RECORD_H

#include "engine/vcpu.h"

/* An exception is about to be delivered; flags: DOPPEL_EVENT_*. */
static inline void record_event(struct vcpu *cpu, const struct exception *e, u32 flags)
{
	cpu->record.event[cpu->record.events++ % DOPPEL_EVENTS] = (struct doppel_event){
		.rip = cpu->rip, .cr2 = e->cr2, .error = e->error, .vector = e->vector, .cpl = cpu->mode.cpl,
		.flags = (u8)(flags | (e->has_error ? DOPPEL_EVENT_ERROR : 0)),
	};
}

/* The instruction at RIP is about to be executed by the interpreter, and may be where a jump led to. */
static inline void record_arrival(struct vcpu *cpu)
{
	if (unlikely(cpu->mode.key & MODE_KEY_ARRIVALS))
		cpu->record.at[cpu->record.next++] = cpu->rip;
}

/* Code of the kernel from RIP on is about to be executed for the first time: straight on for so many bytes. */
void record_coverage(struct vcpu *cpu, u64 rip, u32 bytes);
static inline bool records_coverage(const struct vcpu *cpu)
{
	return unlikely(cpu->mode.key & MODE_KEY_COVERAGE);
}

/* ---- requests ---- */
void record_set(struct vcpu *cpu, u32 what);   /* DOPPEL_RECORD_* */
void record_clear_coverage(struct vcpu *cpu);  /* and all code is new again */
struct doppel_record;
struct doppel_coverage;
void record_get(const struct vcpu *cpu, struct doppel_record *out);
void record_get_coverage(struct doppel_coverage *c);

#endif
