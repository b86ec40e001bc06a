/*
 * The run loop: KVM_RUN on the vCPU's own thread. Guest code runs in interp_run(); everything that happens *between*
 * instructions happens here: exceptions, interrupts, INIT/SIPI, debug traps, halting, safe points, leaving to the VMM.
 */
#include <errno.h>
#include <linux/futex.h>
#include <sys/syscall.h>

#include "engine/cpu/cpu.h"
#include "engine/cpu/breakpoints.h"
#include "engine/cpu/fpu.h"
#include "engine/cpu/pvsched.h"
#include "engine/cpu/run.h"
#include "engine/cell/cell.h"
#include "engine/interp/interp.h"
#include "engine/irqchip/irqchip.h"
#include "engine/lib/lib.h"
#include "engine/safepoint.h"
#include "engine/trace/trace.h"
#include "engine/translate/tr.h"
#include "kvm/chan.h"

enum next { GO_ON, LEAVE };

static enum next leave(struct vcpu *cpu, u32 reason)
{
	cpu->chan->run.exit_reason = reason;
	return LEAVE;
}

/* ---- halting ---- */

static bool wake_event(struct vcpu *cpu)
{
	return cpu->init_pending || __atomic_load_n(&cpu->pv_kicked, __ATOMIC_SEQ_CST) || (cpu->nmi_pending && !cpu->nmi_masked) || cpu->smi_pending ||
	       (cpu->inject.pending && cpu->rflags & FL_IF) ||
	       (cpu->vm->irqchip && cpu->rflags & FL_IF && irq_pending_vector(cpu) >= 0);
}

/* Sleeps until somebody has something for this vCPU. The attention word is the futex: a bit set before the sleep prevents it. */
static void sleep_on_attention(struct vcpu *cpu)
{
	struct vcpu_chan *c = cpu->chan;
	u64 begin = TRACING(cpu, HALT) ? eng_rdtsc() : 0;

	steal_end(cpu);
	if (cpu->cells)
		cell_release(cpu);
	vcpu_leave_guest(cpu);
	__atomic_store_n(&c->sleeping, 1, __ATOMIC_SEQ_CST);
	wake_wait(cpu);
	__atomic_store_n(&c->sleeping, 0, __ATOMIC_RELAXED);
	vcpu_enter_guest(cpu);
	steal_begin(cpu);
	if (unlikely(begin))
		trace_halt(cpu, begin);
}

/* ---- events between instructions, highest priority first (SDM 3A 6.9) ---- */

static void do_init(struct vcpu *cpu)
{
	int sipi = cpu->sipi_pending; /* came after the INIT, though both are taken now */

	cpu->init_pending = false;
	cpu_reset(cpu, true);
	cpu->sipi_pending = sipi;
	cpu->mp_state = cpu->is_bsp ? MP_RUNNABLE : MP_INIT_RECEIVED;
}

static void do_sipi(struct vcpu *cpu)
{
	u8 v = cpu->sipi_vector;

	cpu->sipi_pending = 0;
	if (cpu->mp_state != MP_INIT_RECEIVED && cpu->mp_state != MP_UNINITIALIZED)
		return;
	cpu->seg[SEG_CS].sel = (u16)(v << 8);
	cpu->seg[SEG_CS].base = (u64)v << 12;
	cpu->rip = 0;
	cpu->mp_state = MP_RUNNABLE;
	cpu_update_mode(cpu);
}

static enum next triple_fault(struct vcpu *cpu)
{
	return leave(cpu, KVM_EXIT_SHUTDOWN);
}

static enum next deliver_interrupts(struct vcpu *cpu)
{
	bool can = cpu->rflags & FL_IF && cpu->shadow == SHADOW_NONE;

	cpu->irq_window = false;
	if (unlikely(cpu->guest_debug & KVM_GUESTDBG_BLOCKIRQ))
		return GO_ON; /* KVM_RUN looks again when the debugger has let go of them */
	if (cpu->nmi_pending && !cpu->nmi_masked) {
		if (cpu->shadow != SHADOW_NONE) {
			cpu->irq_window = true;
		} else {
			cpu->nmi_pending = false;
			if (TRACING(cpu, IRQ))
				trace_irq(cpu, EXC_NMI, TWHO_NMI);
			return interrupt_deliver(cpu, EXC_NMI, true) ? GO_ON : triple_fault(cpu);
		}
	}
	if (cpu->inject.pending) {
		if (!can) {
			cpu->irq_window = true;
			return GO_ON;
		}
		cpu->inject.pending = false;
		if (TRACING(cpu, IRQ))
			trace_irq(cpu, cpu->inject.vector, TWHO_INJECTED);
		return interrupt_deliver(cpu, cpu->inject.vector, false) ? GO_ON : triple_fault(cpu);
	}
	if (cpu->vm->irqchip && irq_pending_vector(cpu) >= 0) {
		int vector;

		if (!can) {
			cpu->irq_window = true;
			return GO_ON;
		}
		if (cpu->cells && cpu->mode.cpl == 3)
			cell_judge(cpu);
		vector = irq_acknowledge(cpu);
		if (vector >= 0) {
			vcpu_kick(cpu, ATT_IRQ); /* there may be more */
			if (TRACING(cpu, IRQ))
				trace_irq(cpu, (unsigned)vector, lapic_is_timer(cpu, (unsigned)vector) ? TWHO_TIMER : TWHO_IRQCHIP);
			return interrupt_deliver(cpu, (unsigned)vector, false) ? GO_ON : triple_fault(cpu);
		}
	}
	if (!cpu->vm->irqchip && cpu->chan->run.request_interrupt_window) {
		if (can)
			return leave(cpu, KVM_EXIT_IRQ_WINDOW_OPEN);
		cpu->irq_window = true;
	}
	return GO_ON;
}

static enum next take_attention(struct vcpu *cpu)
{
	u32 att = 0;

	/* calm first: who sets attention after the exchange clears it again */
	__atomic_store_n(&cpu->chan->calm, CHAN_CALM, __ATOMIC_SEQ_CST);
	att = __atomic_exchange_n(&cpu->chan->attention, 0, __ATOMIC_SEQ_CST);

	if (att & ATT_SAFE) {
		vcpu_leave_guest(cpu);
		vcpu_enter_guest(cpu);
	}
	if (att & ATT_FLUSH)
		mmu_flush_all(cpu);
	if (att & ATT_TRACE)
		cpu_update_mode(cpu);
	if (att & ATT_TIMER) {
		steal_update(cpu);
		if (cpu->lapic)
			lapic_timer_run(cpu);
	}
	if (att & ATT_EVENT && cpu->lapic)
		lapic_take_events(cpu);
	if (att & ATT_CANCEL) {
		/* what else came is looked at again when the VMM comes back */
		vcpu_kick(cpu, (att & ATT_EVENT) | ATT_IRQ);
		cpu->chan->run.exit_reason = KVM_EXIT_INTR;
		cpu->stats.exit_intr++;
		return LEAVE;
	}
	return GO_ON;
}

static enum next halted(struct vcpu *cpu)
{
	if (cpu->mp_state == MP_HALTED) {
		if (wake_event(cpu)) {
			__atomic_store_n(&cpu->pv_kicked, 0, __ATOMIC_SEQ_CST);
			cpu->mp_state = MP_RUNNABLE;
			return GO_ON;
		}
		if (!cpu->vm->irqchip) {
			cpu->mp_state = MP_RUNNABLE; /* the VMM decides when to come back */
			cpu->stats.exit_hlt++;
			return leave(cpu, KVM_EXIT_HLT);
		}
	}
	if (!__atomic_load_n(&cpu->chan->attention, __ATOMIC_SEQ_CST))
		sleep_on_attention(cpu);
	return GO_ON;
}

/* ---- debugging: traps, breakpoints ---- */

/*
 * Code in a page with an instruction breakpoint is stepped through. Only the translator's loop sees each arrival in a page; the
 * interpreter's blocks lead on to each other.
 */
static bool at_breakpoints(const struct vcpu *cpu)
{
	return cpu->tr.on ? dbg_page_armed(cpu, cpu->mode.long64 ? cpu->rip : (u32)(cpu->rip + cpu->seg[SEG_CS].base)) : dbg_any_insn(cpu);
}

static bool careful(const struct vcpu *cpu)
{
	return cpu->rflags & FL_TF || cpu->guest_debug & KVM_GUESTDBG_SINGLESTEP || cpu->step_once || cpu->dr6_pending || cpu->mmio.n ||
	       cpu->pio.answered || cpu->shadow != SHADOW_NONE || (unlikely(dbg_armed(cpu)) && at_breakpoints(cpu));
}

static enum next debug_exit(struct vcpu *cpu, u32 exception, u64 dr6)
{
	struct kvm_run *run = &cpu->chan->run;

	run->debug.arch.exception = exception;
	run->debug.arch.pc = cpu->seg[SEG_CS].base + cpu->rip;
	run->debug.arch.dr6 = dr6 | 0xffff0ff0;
	run->debug.arch.dr7 = cpu->guest_debug & KVM_GUESTDBG_USE_HW_BP ? cpu->guest_debug_dr[7] : cpu->dr7;
	return leave(cpu, KVM_EXIT_DEBUG);
}

/* One instruction, with everything that may trap before or after it. */
static enum next step(struct vcpu *cpu)
{
	bool debug = cpu->guest_debug & KVM_GUESTDBG_ENABLE;
	bool tf = cpu->rflags & FL_TF;
	u64 dr6 = 0, rip = cpu->rip, rf = cpu->rflags & FL_RF;
	u8 shadow = cpu->shadow;

	cpu->step_once = false;
	if (!rf && shadow != SHADOW_MOVSS && !cpu->mmio.n && !cpu->pio.answered &&
	    dbg_insn_breakpoint(cpu, cpu->seg[SEG_CS].base + cpu->rip, &dr6)) {
		if (debug && cpu->guest_debug & KVM_GUESTDBG_USE_HW_BP)
			return debug_exit(cpu, EXC_DB, dr6);
		cpu_raise_db(cpu, dr6);
	}
	cpu->mmio.pos = 0;
	cpu->shadow = SHADOW_NONE;
	cpu->rflags &= ~(u64)FL_RF; /* before the instruction: it may be an IRET, which sets it for the next */
	interp_step(cpu);
	mmio_commit(cpu);
	if (cpu->rip == rip)
		cpu->rflags |= rf; /* a REP that goes on */
	dr6 = dbg_data_take(cpu);
	if (debug && cpu->guest_debug & KVM_GUESTDBG_SINGLESTEP)
		return debug_exit(cpu, EXC_DB, dr6 | BIT(14));
	if (dr6 && debug && cpu->guest_debug & KVM_GUESTDBG_USE_HW_BP)
		return debug_exit(cpu, EXC_DB, dr6);
	if (tf)
		dr6 |= BIT(14);
	if (cpu->shadow == SHADOW_MOVSS) /* a MOV SS postpones the trap: SDM 3A 6.8.3 */
		cpu->dr6_pending = dr6 & 0xf;
	else if (dr6)
		cpu_raise_db(cpu, dr6);
	return GO_ON;
}

/* ---- the loop ---- */

static enum next pending_exception(struct vcpu *cpu)
{
	mmio_commit(cpu);
	cpu->pio.answered = false;
	cpu->dr6_pending = 0;
	if (cpu->guest_debug & KVM_GUESTDBG_ENABLE) {
		if (cpu->exc.vector == EXC_BP && cpu->guest_debug & KVM_GUESTDBG_USE_SW_BP) {
			cpu->exc.pending = false;
			return debug_exit(cpu, EXC_BP, 0);
		}
	}
	return exception_deliver(cpu) ? GO_ON : triple_fault(cpu);
}

/* As INT3 does, of which the debugger was told, and which it does not know. */
static enum next inject_breakpoint(struct vcpu *cpu)
{
	u64 next = cpu->mode.long64 ? cpu->rip + 1 : (u32)(cpu->rip + 1);

	cpu->inject_bp = false;
	cpu_interrupt(cpu, EXC_BP, INT_INT3, false, 0, next);
	return GO_ON;
}

static enum next redeliver(struct vcpu *cpu)
{
	bool alive = event_redeliver(cpu);

	mmio_commit(cpu);
	return alive ? GO_ON : triple_fault(cpu);
}

static enum next once(struct vcpu *cpu)
{
	struct vcpu_chan *c = cpu->chan;
	bool restart = cpu->mmio.n || cpu->pio.answered;

	cpu->restartable = false;
	if (cpu->exc.pending)
		return pending_exception(cpu);
	if (unlikely(cpu->inject_bp))
		return inject_breakpoint(cpu);
	if (unlikely(cpu->dr6_pending) && cpu->guest_debug & KVM_GUESTDBG_USE_HW_BP && cpu->shadow == SHADOW_NONE)
		return debug_exit(cpu, EXC_DB, dbg_data_take(cpu)); /* delivering an event wrote there */
	if (cpu->halted_by_hlt) {
		cpu->halted_by_hlt = false;
		cpu->mp_state = MP_HALTED;
		cpu->stats.halts++;
	}
	if (cpu->late_size) {
		code_invalidate(cpu->late_gpa, cpu->late_size);
		cpu->late_size = 0;
	}
	if (unlikely(cpu->trace.late.size))
		trace_table_late(cpu);
	if ((c->attention || !c->calm) && take_attention(cpu) == LEAVE)
		return LEAVE;
	if (cpu->redelivery.pending)
		return redeliver(cpu);
	if (!restart) { /* an instruction at the VMM completes before anything else happens */
		if (cpu->init_pending)
			do_init(cpu);
		if (cpu->sipi_pending)
			do_sipi(cpu);
		if (cpu->mp_state != MP_RUNNABLE)
			return halted(cpu);
		if (deliver_interrupts(cpu) == LEAVE)
			return LEAVE;
	}
	if (cpu->exc.pending)
		return GO_ON;
	if (careful(cpu))
		return step(cpu);
	if (cpu->cell_now && cpu->mode.cpl == 3 && cell_run(cpu))
		return GO_ON;
	cpu->cell_stop = false;
	cpu->restartable = true;
	if (cpu->tr.on)
		tr_run(cpu);
	else
		interp_run(cpu);
	return GO_ON;
}

/* Faults and exits inside instructions come back to the setjmp. */
static __attribute__((noinline)) void run_guest(struct vcpu *cpu)
{
	__builtin_setjmp(cpu->unwind);
	for (;;) {
		if (cpu->exit_pending) {
			cpu->exit_pending = false;
			return;
		}
		if (once(cpu) == LEAVE)
			return;
	}
}

static void take_answers(struct vcpu *cpu)
{
	struct kvm_run *run = &cpu->chan->run;

	if (cpu->mmio.waiting) {
		struct mmio_frag *f = &cpu->mmio.frag[cpu->mmio.n++];

		memcpy(f->data, run->mmio.data, sizeof(f->data));
		cpu->mmio.waiting = false;
	}
	if (cpu->pio.waiting) {
		cpu->pio.waiting = false;
		cpu->pio.answered = true;
	}
	if (!cpu->vm->irqchip)
		cpu->cr8_unused = run->cr8;
}

static void publish(struct vcpu *cpu)
{
	struct kvm_run *run = &cpu->chan->run;

	run->if_flag = !!(cpu->rflags & FL_IF);
	run->ready_for_interrupt_injection = run->if_flag && !cpu->inject.pending && cpu->shadow == SHADOW_NONE;
	run->cr8 = cpu_get_cr(cpu, 8);
	run->apic_base = cpu->apic_base;
	cpu->stats.insns = cpu->insn_count;
}

int vcpu_run(struct vcpu *cpu)
{
	struct kvm_run *run = &cpu->chan->run;

	if (unlikely(cpu->trace.left)) {
		vcpu_enter_guest(cpu); /* the rings go at a safe point */
		if (cpu->trace.left)
			trace_return(cpu);
		vcpu_leave_guest(cpu);
	}
	take_answers(cpu);
	if (__atomic_load_n(&run->immediate_exit, __ATOMIC_SEQ_CST)) {
		run->exit_reason = KVM_EXIT_INTR;
		return -EINTR;
	}
	run->exit_reason = KVM_EXIT_UNKNOWN;
	vcpu_kick(cpu, ATT_IRQ);
	vcpu_fpu_load(cpu);
	vcpu_enter_guest(cpu);
	steal_begin(cpu);
	run_guest(cpu);
	if (unlikely(cpu->trace.kinds))
		trace_leave(cpu);
	steal_end(cpu);
	vcpu_leave_guest(cpu);
	vcpu_fpu_save(cpu);
	publish(cpu);
	cpu->stats.exits++;
	return run->exit_reason == KVM_EXIT_INTR ? -EINTR : 0;
}
