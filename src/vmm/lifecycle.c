/*
 * The VM's life: running, paused, ended. Whatever wants to end or restart it (guest, device, user, a dying engine) posts a request
 * that stops the vCPUs at once; the main thread then decides. The first request wins until it has been dealt with.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <time.h>
#include "devices/machine_if.h"
#include "vmm/acpi.h"
#include "vmm/insight.h"
#include "vmm/machine.h"

/* ---- any thread ---- */
static void request_locked(struct machine *m, enum machine_event event, int code)
{
	if (m->event_pending)
		return;
	m->event_pending = true;
	m->event = event;
	m->event_code = code;
	m->event_cpu = -1;
	for (u32 i = 0; i < m->ncpus; i++)
		if (m->cpu[i].started && pthread_equal(m->cpu[i].thread, pthread_self()))
			m->event_cpu = (int)i;
	m->hold = true; /* the caller's own vCPU stops too, when its handler returns */
	for (u32 i = 0; i < m->ncpus; i++)
		if (m->cpu[i].inside)
			kvm_vcpu_kick(m->cpu[i].kvm);
	loop_call(m->loop, lifecycle_event, m);
}

void machine_request(struct machine *m, enum machine_event event, int code)
{
	pthread_mutex_lock(&m->run_lock);
	request_locked(m, event, code);
	pthread_mutex_unlock(&m->run_lock);
}

void machine_fail(struct machine *m, const char *fmt, ...)
{
	va_list ap;

	pthread_mutex_lock(&m->run_lock);
	if (!m->failure[0] && !m->quit) {
		va_start(ap, fmt);
		vsnprintf(m->failure, sizeof(m->failure), fmt, ap);
		va_end(ap);
	}
	request_locked(m, MACHINE_PANIC, STATUS_FAILED);
	pthread_mutex_unlock(&m->run_lock);
}

/* ---- main thread ---- */
static void notify(struct machine *m, enum machine_notice n, const char *reason)
{
	if (m->notify)
		m->notify(m->notify_arg, n, reason);
}

const char *machine_state_name(const struct machine *m)
{
	static const char *const names[] = {[MACHINE_STOPPED] = "prelaunch", [MACHINE_RUNNING] = "running",
					    [MACHINE_PAUSED] = "paused", [MACHINE_ENDED] = "shutdown"};

	return m->state == MACHINE_RUNNING && m->debugger_holds ? "debug" : names[m->state];
}

void machine_pause(struct machine *m)
{
	if (m->state != MACHINE_RUNNING)
		return;
	vcpus_hold(m);
	m->state = MACHINE_PAUSED;
	notify(m, NOTICE_STOP, NULL);
}

void machine_resume(struct machine *m)
{
	if (m->state != MACHINE_PAUSED)
		return;
	m->state = MACHINE_RUNNING;
	for (struct device *d = m->devices; d; d = d->next)
		if (d->cls->resume)
			d->cls->resume(d);
	/* a request that came meanwhile keeps them held until it is dealt with */
	if (!m->event_pending)
		vcpus_release(m);
	notify(m, NOTICE_RESUME, NULL);
}

void machine_powerdown(struct machine *m)
{
	notify(m, NOTICE_POWERDOWN, NULL);
	acpi_pm_power_button(m->pm);
}

void machine_end(struct machine *m, int status, const char *reason)
{
	if (m->state == MACHINE_ENDED)
		return;
	vcpus_hold(m);
	m->state = MACHINE_ENDED;
	debugger_ended(m, status);
	notify(m, NOTICE_SHUTDOWN, reason);
	loop_stop(m->loop, status);
}

/* The engine's death explains whatever failed because of it. */
static void end_failed(struct machine *m)
{
	char text[200];

	if (kvm_engine_dead(m->sys, text, sizeof(text)))
		log_msg(LOG_ERROR, "engine: %s (the VM is lost)", text);
	else
		log_msg(LOG_ERROR, "%s", m->failure[0] ? m->failure : "the machine failed");
	machine_end(m, STATUS_FAILED, "host-error");
}

static int do_reset(struct machine *m, struct err *e)
{
	int ret = 0;

	insight_forget(m);
	for (struct device *d = m->devices; d; d = d->next)
		if (d->cls->reset)
			d->cls->reset(d);
	/* memory forgets: its pages go back to the host */
	if (madvise(m->ram_base, m->cfg.memory, MADV_REMOVE) < 0)
		memset(m->ram_base, 0, m->cfg.memory);
	for (u32 i = 0; i < m->ram.nslots; i++)
		kvm_dma_written(m->vm, m->ram.slot[i].gpa, m->ram.slot[i].size);
	ret = power_on_restore(m, e);
	return ret ? ret : machine_load(m, e);
}

static void on_panic(struct machine *m)
{
	if (debugger_crashed(m, "The guest's kernel has panicked: it goes on with what it does then.\n"))
		return;
	log_msg(LOG_ERROR, "guest: kernel panic");
	if (m->cfg.autopsy_on_panic)
		machine_autopsy_report(m, "kernel panic");
	notify(m, NOTICE_PANIC, NULL);
	machine_end(m, STATUS_PANIC, "guest-panic");
}

static void on_reset(struct machine *m, int code)
{
	struct err e = {0};

	if (code == STATUS_TRIPLE_FAULT) {
		if (debugger_crashed(m, "The guest met a triple fault: going on ends the VM.\n"))
			return;
		log_msg(LOG_ERROR, "guest: triple fault (it crashed without a handler)");
		machine_autopsy_report(m, "triple fault");
		machine_end(m, STATUS_TRIPLE_FAULT, "guest-panic");
		return;
	}
	if (m->cfg.autopsy_on_panic && machine_panicking(m)) {
		on_panic(m);
		return;
	}
	if (m->cfg.no_reboot) {
		machine_end(m, 0, "guest-reset");
		return;
	}
	if (do_reset(m, &e) < 0) {
		log_msg(LOG_ERROR, "%s", e.text);
		machine_end(m, STATUS_FAILED, "host-error");
		return;
	}
	m->resets++;
	log_msg(LOG_INFO, "guest: restarts");
	notify(m, NOTICE_RESET, NULL);
	debugger_was_reset(m);
	if (m->state == MACHINE_RUNNING)
		vcpus_release(m);
}

void lifecycle_event(void *machine)
{
	struct machine *m = machine;
	enum machine_event event;
	int code = 0;

	if (m->state == MACHINE_ENDED)
		return;
	vcpus_hold(m);
	pthread_mutex_lock(&m->run_lock);
	event = m->event;
	code = m->event_code;
	m->event_pending = false;
	pthread_mutex_unlock(&m->run_lock);
	switch (event) {
	case MACHINE_POWEROFF:
		machine_end(m, 0, "guest-shutdown");
		break;
	case MACHINE_DEBUG_EXIT:
		machine_end(m, code, "guest-shutdown");
		break;
	case MACHINE_RESET:
		on_reset(m, code);
		break;
	case MACHINE_STOP: /* vcpus_hold() has been called: this makes it a pause, which a user ends */
		machine_pause(m);
		break;
	case MACHINE_PANIC:
		if (code == STATUS_FAILED) {
			end_failed(m);
			break;
		}
		on_panic(m);
		break;
	}
}

static void engine_died(void *machine, u32 events)
{
	struct machine *m = machine;
	int fd = kvm_death_fd(m->sys);

	loop_del(m->loop, fd);
	machine_fail(m, "the engine ended");
}

int machine_start(struct machine *m, struct err *e)
{
	int fd = kvm_death_fd(m->sys);
	int ret = machine_load(m, e);

	if (!ret && fd >= 0)
		ret = loop_add(m->loop, fd, EPOLLIN, engine_died, m);
	for (u32 i = 0; i < m->ncpus && !ret; i++)
		ret = vcpu_start(&m->cpu[i]);
	return ret ? err_set(e, -ret, "machine: cannot start: %s", strerror(-ret)) : 0;
}

int machine_run(struct machine *m)
{
	int fd = kvm_death_fd(m->sys), status = 0;
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	m->start_ns = (u64)ts.tv_sec * 1000000000ull + (u64)ts.tv_nsec;
	m->state = MACHINE_RUNNING;
	vcpus_release(m);
	status = loop_run(m->loop);
	if (fd >= 0)
		loop_del(m->loop, fd);
	vcpus_quit(m);
	return status < 0 ? STATUS_FAILED : status;
}
