/*
 * While the debugger holds the machine no vCPU is in the guest, whatever else lets go of it: vcpus_release() looks. A user's pause and the
 * debugger's hold are independent of each other; the guest runs when there is neither.
 */
#include <stdlib.h>
#include <string.h>
#include "debug/gdb_server.h"
#include "vmm/debugger.h"

#define MSR_KERNEL_GS_BASE 0xc0000102

struct debugger {
	struct machine *m;
	struct gdb_server *server;
	bool crashed;   /* the debugger has seen it: going on ends the VM */
};

/* ---- registers ---- */
struct one_msr {
	struct kvm_msrs h;
	struct kvm_msr_entry e;
};

int vcpu_get_state(struct vcpu_thread *v, struct cpu_state *c)
{
	struct one_msr msr = {.h.nmsrs = 1, .e.index = MSR_KERNEL_GS_BASE};
	struct kvm_mp_state mp = {0};
	long ret = 0;

	memset(c, 0, sizeof(*c));
	ret = kvm_ioctl(v->kvm, KVM_GET_REGS, &c->r);
	if (ret >= 0)
		ret = kvm_ioctl(v->kvm, KVM_GET_SREGS, &c->s);
	if (ret >= 0)
		ret = kvm_ioctl(v->kvm, KVM_GET_XSAVE, &c->x);
	if (ret >= 0)
		ret = kvm_ioctl(v->kvm, KVM_GET_MP_STATE, &mp);
	if (ret < 0)
		return (int)ret;
	if (kvm_ioctl(v->kvm, KVM_GET_MSRS, &msr) == 1)
		c->kernel_gs_base = msr.e.data;
	c->mp_state = mp.mp_state;
	return 0;
}

static int target_get(void *arg, u32 cpu, struct cpu_state *c)
{
	struct machine *m = arg;

	return vcpu_get_state(&m->cpu[cpu], c);
}

static int target_set(void *arg, u32 cpu, const struct cpu_state *c, u32 parts)
{
	struct machine *m = arg;
	struct kvm_obj *v = m->cpu[cpu].kvm;
	struct one_msr msr = {.h.nmsrs = 1, .e = {.index = MSR_KERNEL_GS_BASE, .data = c->kernel_gs_base}};
	long ret = 0;

	if (parts & CPU_STATE_SREGS)
		ret = kvm_ioctl(v, KVM_SET_SREGS, &c->s);
	if (ret >= 0 && parts & CPU_STATE_REGS)
		ret = kvm_ioctl(v, KVM_SET_REGS, &c->r);
	if (ret >= 0 && parts & CPU_STATE_XSAVE)
		ret = kvm_ioctl(v, KVM_SET_XSAVE, &c->x);
	if (ret >= 0 && parts & CPU_STATE_KERNEL_GS)
		ret = kvm_ioctl(v, KVM_SET_MSRS, &msr) == 1 ? 0 : -EINVAL;
	return ret < 0 ? (int)ret : 0;
}

static int target_set_debug(void *arg, u32 cpu, const struct kvm_guest_debug *d)
{
	struct machine *m = arg;
	long ret = kvm_ioctl(m->cpu[cpu].kvm, KVM_SET_GUEST_DEBUG, d);

	return ret < 0 ? (int)ret : 0;
}

/* ---- stopping and going ---- */
static void tell(struct machine *m, enum machine_notice n)
{
	if (m->notify && m->state == MACHINE_RUNNING)
		m->notify(m->notify_arg, n, NULL);
}

static void set_hold(struct machine *m, bool hold, u64 cpus)
{
	pthread_mutex_lock(&m->run_lock);
	m->debugger_holds = hold;
	m->may_run = cpus;
	pthread_mutex_unlock(&m->run_lock);
}

static void target_stop(void *arg)
{
	struct machine *m = arg;

	if (m->state == MACHINE_ENDED)
		return;
	set_hold(m, true, m->may_run);
	vcpus_hold(m);
	tell(m, NOTICE_STOP);
}

static void target_go(void *arg, u64 cpus)
{
	struct machine *m = arg;

	if (m->state == MACHINE_ENDED)
		return;
	set_hold(m, false, cpus);
	if (m->state == MACHINE_RUNNING && !m->event_pending)
		vcpus_release(m);
	tell(m, NOTICE_RESUME);
}

static void target_kill(void *arg)
{
	machine_end(arg, 128 + 9, "host-ui");
}

/* On the loop: some vCPUs have left the guest with KVM_EXIT_DEBUG. */
static void met(void *arg)
{
	struct machine *m = arg;
	struct gdb_exit exits[GDB_CPUS_MAX] = {0};
	bool any = false;

	if (m->state == MACHINE_ENDED)
		return;
	vcpus_hold(m);
	pthread_mutex_lock(&m->run_lock);
	m->debug_queued = false;
	for (u32 i = 0; i < m->ncpus; i++) {
		struct vcpu_thread *v = &m->cpu[i];

		exits[i] = (struct gdb_exit){.valid = v->debug_exit, .a = v->debug};
		any |= v->debug_exit;
		v->debug_exit = false;
	}
	pthread_mutex_unlock(&m->run_lock);
	if (any && gdb_server_connected(m->debugger->server)) {
		gdb_exits(gdb_server_session(m->debugger->server), exits);
		gdb_server_flush(m->debugger->server);
	} else if (!gdb_server_connected(m->debugger->server)) {
		target_go(m, ~0ull);
	} else if (!m->debugger_holds && m->state == MACHINE_RUNNING && !m->event_pending) {
		vcpus_release(m); /* a stop that was told already */
	}
}

void debugger_exit(struct vcpu_thread *v)
{
	struct machine *m = v->m;
	bool first = false;

	pthread_mutex_lock(&m->run_lock);
	v->debug = v->run->debug.arch;
	v->debug_exit = true;
	m->hold = m->debugger_holds = true;
	first = !m->debug_queued;
	m->debug_queued = true;
	for (u32 i = 0; i < m->ncpus && first; i++)
		if (m->cpu[i].inside && &m->cpu[i] != v)
			kvm_vcpu_kick(m->cpu[i].kvm);
	pthread_mutex_unlock(&m->run_lock);
	if (first)
		loop_call(m->loop, met, m);
}

/* ---- the machine's life ---- */
void debugger_was_reset(struct machine *m)
{
	if (!m->debugger || !gdb_server_connected(m->debugger->server))
		return;
	m->debugger->crashed = false;
	for (u32 i = 0; i < m->ncpus; i++)
		m->cpu[i].debug_exit = false;
	set_hold(m, true, ~0ull);
	gdb_was_reset(gdb_server_session(m->debugger->server));
	gdb_server_flush(m->debugger->server);
}

bool debugger_crashed(struct machine *m, const char *text)
{
	struct debugger *d = m->debugger;
	u32 cpu = 0;

	if (!d || d->crashed)
		return false;
	for (u32 i = m->ncpus; i--;)
		if (m->cpu[i].run->exit_reason == KVM_EXIT_SHUTDOWN || m->cpu[i].run->exit_reason == KVM_EXIT_IO)
			cpu = i;
	if (!gdb_crashed(gdb_server_session(d->server), cpu, text))
		return false;
	d->crashed = true;
	set_hold(m, true, ~0ull);
	gdb_server_flush(d->server);
	return true;
}

void debugger_ended(struct machine *m, int status)
{
	if (!m->debugger)
		return;
	gdb_ended(gdb_server_session(m->debugger->server), status);
	gdb_server_flush(m->debugger->server);
}

int debugger_start(struct machine *m, int fd, bool wait, struct err *e)
{
	struct gdb_target t = {.arg = m, .ncpus = m->ncpus, .ram = &m->ram, .stop = target_stop, .go = target_go,
			       .kill = target_kill, .get = target_get, .set = target_set, .set_debug = target_set_debug,
			       .symbol = debugger_symbol, .monitor = debugger_monitor};
	long flags = kvm_ioctl(m->sys, KVM_CHECK_EXTENSION, (unsigned long)KVM_CAP_SET_GUEST_DEBUG2);
	struct debugger *d = calloc(1, sizeof(*d));
	int ret = d ? 0 : -ENOMEM;

	t.debug_flags = flags > 0 ? (u32)flags : 0;
	if (!ret)
		ret = gdb_server_new(m->loop, &t, &d->server);
	if (!ret)
		ret = gdb_server_listen(d->server, fd);
	if (ret) {
		if (d)
			gdb_server_free(d->server);
		free(d);
		return err_set(e, -ret, "gdb server: %s", strerror(-ret));
	}
	d->m = m;
	m->debugger = d;
	m->debugger_holds = wait;
	return 0;
}

int debugger_listen(struct machine *m, int fd, struct err *e)
{
	int ret = gdb_server_listen(m->debugger->server, fd);

	return ret ? err_set(e, -ret, "gdb server: %s", strerror(-ret)) : 0;
}

void debugger_free(struct machine *m)
{
	if (!m->debugger)
		return;
	gdb_server_free(m->debugger->server);
	free(m->debugger);
	m->debugger = NULL;
}
