/* Exceptions: raising one, delivering it, and what a fault during delivery turns into (SDM 3A 6.15, table 6-5). */
#include "engine/cpu/cpu_int.h"
#include "engine/cpu/record.h"
#include "engine/lib/lib.h"
#include "engine/trace/trace.h"

static _Noreturn void raise(struct vcpu *cpu, struct exception e)
{
	e.pending = true;
	cpu->exc = e;
	__builtin_longjmp(cpu->unwind, 1);
}

_Noreturn void cpu_raise(struct vcpu *cpu, unsigned vector)
{
	raise(cpu, (struct exception){.vector = vector});
}

_Noreturn void cpu_raise_err(struct vcpu *cpu, unsigned vector, u32 err)
{
	raise(cpu, (struct exception){.vector = vector, .has_error = true, .error = err});
}

_Noreturn void cpu_raise_gp(struct vcpu *cpu, u32 err)
{
	cpu_raise_err(cpu, EXC_GP, err);
}

_Noreturn void cpu_raise_pf(struct vcpu *cpu, gva_t a, u32 err)
{
	raise(cpu, (struct exception){.vector = EXC_PF, .has_error = true, .error = err, .cr2 = a});
}

_Noreturn void cpu_raise_db(struct vcpu *cpu, u64 dr6_bits)
{
	raise(cpu, (struct exception){.vector = EXC_DB, .dr6 = dr6_bits});
}

enum exc_class { CLASS_BENIGN, CLASS_CONTRIBUTORY, CLASS_PF };

static enum exc_class exc_class(unsigned vector)
{
	switch (vector) {
	case EXC_DE:
	case EXC_TS:
	case EXC_NP:
	case EXC_SS:
	case EXC_GP:
		return CLASS_CONTRIBUTORY;
	case EXC_PF:
		return CLASS_PF;
	default:
		return CLASS_BENIGN;
	}
}

static bool makes_double_fault(unsigned first, unsigned second)
{
	enum exc_class a = exc_class(first), b = exc_class(second);

	if (a == CLASS_CONTRIBUTORY)
		return b == CLASS_CONTRIBUTORY;
	return a == CLASS_PF && b != CLASS_BENIGN;
}

/* False: delivery itself faulted (cpu->exc) or must leave to the VMM. */
static __attribute__((noinline)) bool try_deliver(struct vcpu *cpu, const struct exception *e, enum int_kind kind)
{
	void *outer[ARRAY_SIZE(cpu->unwind)];

	memcpy(outer, cpu->unwind, sizeof(outer));
	if (__builtin_setjmp(cpu->unwind) == 0) {
		cpu_interrupt(cpu, e->vector, kind, e->has_error, e->error, cpu->rip);
		memcpy(cpu->unwind, outer, sizeof(outer));
		return true;
	}
	memcpy(cpu->unwind, outer, sizeof(outer));
	return false;
}

/* An access of the delivery belongs to the VMM: the run loop leaves, and calls event_redeliver() with the answer. */
static _Noreturn void leave_to_vmm(struct vcpu *cpu, const struct exception *e, bool hard)
{
	cpu->redelivery.pending = true;
	cpu->redelivery.hard = hard;
	cpu->redelivery.e = *e;
	__builtin_longjmp(cpu->unwind, 1);
}

/* What the processor records before it looks at the IDT. */
static void note_exception(struct vcpu *cpu, const struct exception *e)
{
	cpu->stats.exceptions++;
	if (unlikely(cpu->trace.kinds))
		trace_exception(cpu, e);
	if (e->vector == EXC_PF) {
		cpu->cr2 = e->cr2;
		cpu->stats.page_faults++;
	} else if (e->vector == EXC_DB) {
		/* SDM 3B 17.2.3: B0-B3 are cleared, the other bits are sticky. */
		cpu->dr6 = (cpu->dr6 & ~0xfull) | e->dr6;
		cpu->dr7 &= ~(u64)DR7_GD;
	}
}

/* A fault met on the way through the IDT happened to an event external to the program (SDM 3A 6.13). */
static void mark_external(struct exception *e)
{
	if (e->vector >= EXC_TS && e->vector <= EXC_GP && e->has_error)
		e->error |= 1;
}

static bool deliver_exception(struct vcpu *cpu, struct exception e, bool noted)
{
	u32 nested = 0;

	for (;; noted = false) {
		struct exception next;

		cpu->exc.pending = false;
		if (!noted) {
			record_event(cpu, &e, nested);
			note_exception(cpu, &e);
		}
		if (try_deliver(cpu, &e, INT_EXC))
			return true;
		if (!cpu->exc.pending)
			leave_to_vmm(cpu, &e, false);
		next = cpu->exc;
		nested = DOPPEL_EVENT_NESTED;
		mark_external(&next);
		if (e.vector == EXC_DF && exc_class(next.vector) != CLASS_BENIGN) {
			record_event(cpu, &next, nested | DOPPEL_EVENT_SHUTDOWN);
			return cpu->exc.pending = false;
		}
		if (makes_double_fault(e.vector, next.vector)) {
			record_event(cpu, &next, nested);
			if (next.vector == EXC_PF)
				cpu->cr2 = next.cr2;
			next = (struct exception){.vector = EXC_DF, .has_error = true};
		}
		e = next;
	}
}

bool exception_deliver(struct vcpu *cpu)
{
	return deliver_exception(cpu, cpu->exc, false);
}

static bool deliver_hard(struct vcpu *cpu, const struct exception *e)
{
	if (try_deliver(cpu, e, INT_HARD))
		return true;
	if (!cpu->exc.pending)
		leave_to_vmm(cpu, e, true);
	record_event(cpu, e, DOPPEL_EVENT_INTERRUPT);
	mark_external(&cpu->exc);
	return exception_deliver(cpu); /* interrupts are benign: handled serially */
}

bool event_redeliver(struct vcpu *cpu)
{
	const struct exception e = cpu->redelivery.e;

	cpu->redelivery.pending = false;
	cpu->mmio.pos = 0;
	return cpu->redelivery.hard ? deliver_hard(cpu, &e) : deliver_exception(cpu, e, true);
}

bool interrupt_deliver(struct vcpu *cpu, unsigned vector, bool nmi)
{
	const struct exception e = {.vector = nmi ? EXC_NMI : vector};

	cpu->exc.pending = false;
	if (nmi) {
		cpu->nmi_masked = true;
		cpu->stats.nmis++;
	} else {
		cpu->stats.interrupts++;
	}
	return deliver_hard(cpu, &e);
}
