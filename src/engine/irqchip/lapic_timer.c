/*
 * The APIC timer (SDM 3A 11.5.4). The bus clock is 1 GHz, as KVM's, so counts are nanoseconds times the
 * divisor. The guest's time never depends on when the host lets us run: expiry is a fixed instant; periods
 * missed are merged into one interrupt and the next one stays in phase.
 */
#include "engine/irqchip/lapic_int.h"
#include "engine/irqchip/timer.h"

#define PERIOD_MIN 200000ull /* shorter periods would leave a guest no time to run; KVM's bound */
#define ARM_MAX    (1ull << 62)

static unsigned timer_mode(const struct lapic *l)
{
	return LVT_TIMER_MODE(l->reg[AR_LVT_TIMER]);
}

/* SDM 3A figure 11-10: bits 0, 1, 3; 7 means divide by one. */
static u64 divisor(u32 tdcr)
{
	unsigned n = (tdcr & 3) | (tdcr & 8) >> 1;

	return 1ull << ((n + 1) & 7);
}

static u64 guest_tsc(const struct lapic *l)
{
	return eng_rdtsc() + l->cpu->tsc_offset;
}

static void expire(struct lapic *l)
{
	lapic_local_deliver(l, AR_LVT_TIMER);
}

/* Host time by which the guest's TSC reaches the deadline, rounded up. */
static u64 deadline_ns(u64 ticks, u64 now)
{
	unsigned __int128 ns = (unsigned __int128)ticks * 1000000 / eng_tsc_khz() + 1;

	return ns >= ARM_MAX - now ? ARM_MAX : now + (u64)ns;
}

static void run_deadline(struct lapic *l)
{
	u64 deadline = l->cpu->tsc_deadline, now = 0, tsc = 0;

	if (!deadline) {
		vtimer_arm(l->cpu, 0);
		return;
	}
	now = eng_now_ns(); /* before the TSC: a preemption in between makes the alarm early, never late */
	tsc = guest_tsc(l);
	if (tsc < deadline) {
		vtimer_arm(l->cpu, deadline_ns(deadline - tsc, now));
		return;
	}
	l->cpu->tsc_deadline = 0;
	vtimer_arm(l->cpu, 0);
	expire(l);
}

static void run_count(struct lapic *l)
{
	u64 target = l->timer.target, now = 0;
	bool due = false;

	if (target) {
		now = eng_now_ns();
		due = now >= target;
	}
	if (due && timer_mode(l) == TIMER_PERIODIC && l->timer.period)
		target += ((now - target) / l->timer.period + 1) * l->timer.period;
	else if (due)
		target = 0;
	l->timer.target = target;
	vtimer_arm(l->cpu, target);
	if (due)
		expire(l);
}

static void timer_run(struct lapic *l)
{
	if (timer_mode(l) == TIMER_DEADLINE)
		run_deadline(l);
	else
		run_count(l);
}

void lapic_timer_run(struct vcpu *cpu)
{
	struct lapic *l = cpu->lapic;

	if (!l)
		return;
	l->timer.armed = 0; /* it has fired: the same instant must be armed anew */
	timer_run(l);
}

void lapic_timer_rearm(struct vcpu *cpu)
{
	if (cpu->lapic && timer_mode(cpu->lapic) == TIMER_DEADLINE)
		run_deadline(cpu->lapic);
}

void lapic_timer_stop(struct lapic *l)
{
	l->timer.target = 0;
	l->timer.period = 0;
	vtimer_arm(l->cpu, 0);
}

/* Bounds periods of the periodic mode. */
static void set_period(struct lapic *l)
{
	u64 ns = l->reg[AR_TMICT] * divisor(l->reg[AR_TDCR]);

	if (timer_mode(l) == TIMER_PERIODIC && ns && ns < PERIOD_MIN)
		ns = PERIOD_MIN;
	l->timer.period = ns;
}

void lapic_timer_write_tmict(struct lapic *l, u32 v)
{
	if (timer_mode(l) == TIMER_DEADLINE) /* SDM 3A 11.5.4.1 */
		return;
	l->reg[AR_TMICT] = v;
	set_period(l);
	l->timer.target = v ? eng_now_ns() + l->timer.period : 0;
	timer_run(l);
}

u32 lapic_timer_count(struct lapic *l)
{
	u64 now = 0, target = l->timer.target, left = 0;

	if (!target || timer_mode(l) == TIMER_DEADLINE)
		return 0;
	now = eng_now_ns();
	if (now < target)
		left = target - now;
	else if (timer_mode(l) == TIMER_PERIODIC && l->timer.period)
		left = l->timer.period - (now - target) % l->timer.period;
	left /= divisor(l->reg[AR_TDCR]);
	return (u32)MIN(left, (u64)l->reg[AR_TMICT]);
}

/* A running count goes on at the new rate. */
void lapic_timer_write_tdcr(struct lapic *l, u32 v)
{
	u32 count = 0;

	if (timer_mode(l) != TIMER_DEADLINE)
		timer_run(l); /* what was due was due at the old rate */
	count = lapic_timer_count(l);
	l->reg[AR_TDCR] = v;
	if (!l->timer.target)
		return;
	set_period(l);
	l->timer.target = eng_now_ns() + count * divisor(v);
	timer_run(l);
}

void lapic_timer_write_lvt(struct lapic *l, u32 v)
{
	unsigned old = timer_mode(l), new = LVT_TIMER_MODE(v);

	if (new == 3) { /* reserved: behaves as disarmed one-shot */
		v &= ~(3u << 17);
		new = TIMER_ONESHOT;
	}
	if (old != TIMER_DEADLINE && l->timer.target)
		timer_run(l); /* settle a past expiry under the old entry */
	lapic_reg_store(l, AR_LVT_TIMER, v);
	if (old == new)
		return;
	if (old == TIMER_DEADLINE || new == TIMER_DEADLINE) { /* SDM 3A 11.5.4.1: the switch disarms */
		l->reg[AR_TMICT] = 0;
		l->cpu->tsc_deadline = 0;
		lapic_timer_stop(l);
		return;
	}
	set_period(l);
}

void lapic_set_tsc_deadline(struct vcpu *cpu, u64 v)
{
	struct lapic *l = cpu->lapic;

	if (!l || timer_mode(l) != TIMER_DEADLINE)
		return;
	cpu->tsc_deadline = v;
	run_deadline(l);
}

u64 lapic_get_tsc_deadline(struct vcpu *cpu)
{
	if (!cpu->lapic || timer_mode(cpu->lapic) != TIMER_DEADLINE)
		return 0;
	return cpu->tsc_deadline;
}

/* After KVM_SET_LAPIC: the count-down goes on from TMCCT; the deadline comes by its MSR. */
void lapic_timer_restore(struct lapic *l)
{
	u32 count = l->reg[AR_TMCCT];

	lapic_timer_stop(l);
	if (timer_mode(l) == TIMER_DEADLINE) {
		run_deadline(l);
		return;
	}
	set_period(l);
	if (!l->reg[AR_TMICT] || (!count && timer_mode(l) != TIMER_PERIODIC))
		return;
	l->timer.target = eng_now_ns() + (count ? count * divisor(l->reg[AR_TDCR]) : l->timer.period);
	timer_run(l);
}

bool lapic_is_timer(const struct vcpu *cpu, unsigned vector)
{
	return cpu->lapic && (cpu->lapic->reg[AR_LVT_TIMER] & 0xff) == vector;
}
