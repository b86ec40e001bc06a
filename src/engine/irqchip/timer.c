/* The host timer of a vCPU, by raw system calls. */
#include <errno.h>
#include <signal.h>
#include <sys/syscall.h>
#include <time.h>
#include "engine/irqchip/lapic_int.h"
#include "engine/irqchip/timer.h"

#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif

static void host_timer_set(struct lapic *l, u64 ns)
{
	struct itimerspec its = {.it_value = {(time_t)(ns / 1000000000), (long)(ns % 1000000000)}};

	sys_call(SYS_timer_settime, l->timer.host_id, TIMER_ABSTIME, &its, 0);
}

int vtimer_init(struct vcpu *cpu)
{
	struct lapic *l = cpu->lapic;
	struct sigevent ev = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = ENG_SIG_TIMER};
	int id = 0;
	long r = 0;

	if (!l || l->timer.host_id >= 0)
		return 0;
	ev.sigev_notify_thread_id = (int)sys_call(SYS_gettid);
	r = sys_call(SYS_timer_create, CLOCK_MONOTONIC, &ev, &id);
	if (r < 0)
		return (int)r;
	l->timer.host_id = id;
	if (l->timer.armed)
		host_timer_set(l, l->timer.armed);
	return 0;
}

void vtimer_arm(struct vcpu *cpu, u64 deadline_ns)
{
	struct lapic *l = cpu->lapic;

	if (l->timer.armed == deadline_ns)
		return;
	l->timer.armed = deadline_ns;
	if (l->timer.host_id >= 0)
		host_timer_set(l, deadline_ns);
}
