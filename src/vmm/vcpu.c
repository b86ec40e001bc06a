/*
 * vCPU threads: KVM_RUN, then what it stopped for. A thread is either held (outside, under run_lock) or inside (in the guest or in
 * a device handler); vcpus_hold() waits until none is inside.
 */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <sys/syscall.h>
#include "devices/machine_if.h"
#include "vmm/machine.h"

/* ---- exits ---- */
typedef void exit_fn(struct vcpu_thread *v);

static void exit_io(struct vcpu_thread *v)
{
	struct kvm_run *r = v->run;
	u8 *data = (u8 *)r + r->io.data_offset;
	struct bus *b = v->m->pio;

	for (u32 i = 0; i < r->io.count; i++, data += r->io.size) {
		if (r->io.direction == KVM_EXIT_IO_OUT)
			bus_write(b, r->io.port, data, r->io.size);
		else
			bus_read(b, r->io.port, data, r->io.size);
	}
}

static void exit_mmio(struct vcpu_thread *v)
{
	struct kvm_run *r = v->run;
	u32 len = MIN(r->mmio.len, (u32)sizeof(r->mmio.data));

	if (r->mmio.is_write)
		bus_write(v->m->mmio, r->mmio.phys_addr, r->mmio.data, len);
	else
		bus_read(v->m->mmio, r->mmio.phys_addr, r->mmio.data, len);
}

/* The KVM stopped of itself (signal, HLT while it emulates the APIC): nothing to do, run on. */
static void exit_again(struct vcpu_thread *v)
{
}

static void exit_shutdown(struct vcpu_thread *v)
{
	machine_request(v->m, MACHINE_RESET, STATUS_TRIPLE_FAULT);
}

static void exit_system_event(struct vcpu_thread *v)
{
	switch (v->run->system_event.type) {
	case KVM_SYSTEM_EVENT_SHUTDOWN:
		machine_request(v->m, MACHINE_POWEROFF, 0);
		break;
	case KVM_SYSTEM_EVENT_RESET:
		machine_request(v->m, MACHINE_RESET, 0);
		break;
	default:
		machine_request(v->m, MACHINE_PANIC, 0);
		break;
	}
}

/* " at rip ..." for messages; empty when the vCPU cannot be asked. */
static const char *where(struct vcpu_thread *v, char *buf, size_t n)
{
	struct kvm_regs r;

	buf[0] = 0;
	if (kvm_ioctl(v->kvm, KVM_GET_REGS, &r) >= 0)
		snprintf(buf, n, " (rip 0x%" PRIx64 ")", (u64)r.rip);
	return buf;
}

static void exit_internal_error(struct vcpu_thread *v)
{
	char at[64];

	machine_fail(v->m, "vCPU %u: KVM cannot go on, internal error %u%s (an instruction it cannot execute?)", v->index,
		     v->run->internal.suberror, where(v, at, sizeof(at)));
}

static void exit_fail_entry(struct vcpu_thread *v)
{
	char at[64];

	machine_fail(v->m, "vCPU %u: KVM cannot enter the guest, hardware reason 0x%" PRIx64 "%s", v->index,
		     (u64)v->run->fail_entry.hardware_entry_failure_reason, where(v, at, sizeof(at)));
}

static exit_fn *const exits[MACHINE_EXITS] = {
	[KVM_EXIT_IO] = exit_io,
	[KVM_EXIT_MMIO] = exit_mmio,
	[KVM_EXIT_HLT] = exit_again,
	[KVM_EXIT_INTR] = exit_again,
	[KVM_EXIT_IRQ_WINDOW_OPEN] = exit_again,
	[KVM_EXIT_SHUTDOWN] = exit_shutdown,
	[KVM_EXIT_DEBUG] = debugger_exit,
	[KVM_EXIT_SYSTEM_EVENT] = exit_system_event,
	[KVM_EXIT_INTERNAL_ERROR] = exit_internal_error,
	[KVM_EXIT_FAIL_ENTRY] = exit_fail_entry,
};

static void handle_exit(struct vcpu_thread *v)
{
	u32 reason = v->run->exit_reason;
	char at[64];

	if (reason < MACHINE_EXITS)
		v->exits[reason]++;
	if (reason < MACHINE_EXITS && exits[reason])
		exits[reason](v);
	else
		machine_fail(v->m, "vCPU %u: unexpected exit %u of KVM%s", v->index, reason, where(v, at, sizeof(at)));
}

/* ---- threads ---- */
static bool held_locked(const struct vcpu_thread *v)
{
	return v->m->hold || !(v->m->may_run >> v->index & 1);
}

/* Waits while the machine is held; false when the thread is to end. */
static bool enter(struct vcpu_thread *v)
{
	struct machine *m = v->m;
	bool go = false;

	pthread_mutex_lock(&m->run_lock);
	if (v->inside && (held_locked(v) || m->quit)) {
		v->inside = false;
		m->ninside--;
		pthread_cond_broadcast(&m->run_cond);
	}
	while (held_locked(v) && !m->quit)
		pthread_cond_wait(&m->run_cond, &m->run_lock);
	go = !m->quit;
	if (go && !v->inside) {
		v->inside = true;
		m->ninside++;
	}
	pthread_mutex_unlock(&m->run_lock);
	return go;
}

static void *vcpu_main(void *arg)
{
	struct vcpu_thread *v = arg;
	char name[16];

	snprintf(name, sizeof(name), "vcpu%u", v->index);
	pthread_setname_np(pthread_self(), name);
	v->tid = (int)syscall(SYS_gettid);
	while (enter(v)) {
		long ret = kvm_ioctl(v->kvm, KVM_RUN, 0ul);

		if (ret >= 0)
			handle_exit(v);
		else if (ret == -EAGAIN || ret == -EINTR)
			continue;
		else
			machine_fail(v->m, "vCPU %u: KVM_RUN: %s", v->index, strerror((int)-ret));
	}
	return NULL;
}

/*
 * A pending exit (port read, MMIO read) is completed by the next KVM_RUN; where state is read or changed it must be complete
 * (Documentation/virt/kvm/api.rst, KVM_RUN). immediate_exit does that without running the guest.
 */
static void complete_exit(struct vcpu_thread *v)
{
	v->run->immediate_exit = 1;
	kvm_ioctl(v->kvm, KVM_RUN, 0ul);
	v->run->immediate_exit = 0;
}

void vcpus_hold(struct machine *m)
{
	pthread_mutex_lock(&m->run_lock);
	m->hold = true;
	while (m->ninside) {
		struct timespec ts;

		for (u32 i = 0; i < m->ncpus; i++)
			if (m->cpu[i].inside)
				kvm_vcpu_kick(m->cpu[i].kvm);
		/* a kick may come before its KVM_RUN: look again soon */
		clock_gettime(CLOCK_REALTIME, &ts);
		ts.tv_nsec += 10 * 1000 * 1000;
		if (ts.tv_nsec >= 1000000000) {
			ts.tv_sec++;
			ts.tv_nsec -= 1000000000;
		}
		pthread_cond_timedwait(&m->run_cond, &m->run_lock, &ts);
	}
	pthread_mutex_unlock(&m->run_lock);
	for (u32 i = 0; i < m->ncpus; i++)
		if (m->cpu[i].started)
			complete_exit(&m->cpu[i]);
}

void vcpus_release(struct machine *m)
{
	pthread_mutex_lock(&m->run_lock);
	m->hold = m->debugger_holds;
	pthread_cond_broadcast(&m->run_cond);
	pthread_mutex_unlock(&m->run_lock);
}

void vcpus_quit(struct machine *m)
{
	vcpus_hold(m);
	pthread_mutex_lock(&m->run_lock);
	m->quit = true;
	pthread_cond_broadcast(&m->run_cond);
	pthread_mutex_unlock(&m->run_lock);
	for (u32 i = 0; i < m->ncpus; i++) {
		if (m->cpu[i].started)
			pthread_join(m->cpu[i].thread, NULL);
		m->cpu[i].started = false;
	}
}

int vcpu_start(struct vcpu_thread *v)
{
	sigset_t all, old;
	int ret = 0;

	/* signals are the main thread's */
	sigfillset(&all);
	sigdelset(&all, SIGUSR1); /* kicks */
	sigdelset(&all, SIGSYS);  /* what the sandbox forbids */
	pthread_sigmask(SIG_SETMASK, &all, &old);
	ret = pthread_create(&v->thread, NULL, vcpu_main, v);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	v->started = !ret;
	return -ret;
}

/* ---- creation, boot state ---- */
static int set_msrs(struct machine *m, struct vcpu_thread *v, struct err *e)
{
	/* as firmware leaves them: fast string operations, memory is write-back cached (SDM 3A 12.11.2) */
	static const struct kvm_msr_entry values[] = {{.index = 0x1a0, .data = 1}, {.index = 0x2ff, .data = 0x806}};

	for (u32 i = 0; i < ARRAY_SIZE(values); i++) {
		struct {
			struct kvm_msrs h;
			struct kvm_msr_entry e;
		} s = {.h.nmsrs = 1, .e = values[i]};
		long ret = kvm_ioctl(v->kvm, KVM_SET_MSRS, &s);

		if (ret != 1)
			return err_set(e, ret < 0 ? (int)-ret : EINVAL, "KVM: cannot set MSR 0x%x", values[i].index);
	}
	return 0;
}

int vcpu_create(struct machine *m, u32 index, struct err *e)
{
	struct vcpu_thread *v = &m->cpu[index];
	int ret = 0;

	*v = (struct vcpu_thread){.m = m, .index = index};
	ret = kvm_create_vcpu(m->vm, index, &v->kvm);
	if (ret)
		return err_set(e, -ret, "KVM: cannot create vCPU %u: %s", index, strerror(-ret));
	v->run = kvm_vcpu_run_area(v->kvm);
	ret = cpuid_set(m, v, e);
	return ret ? ret : set_msrs(m, v, e);
}

void vcpu_destroy(struct vcpu_thread *v)
{
	kvm_close(v->kvm);
	v->kvm = NULL;
}

static struct kvm_segment flat(u16 selector, u8 type, bool code, bool long_mode)
{
	return (struct kvm_segment){.limit = 0xffffffff, .selector = selector, .type = type, .present = 1, .s = 1, .g = 1,
				    .db = !(code && long_mode), .l = code && long_mode};
}

int vcpu_set_boot_state(struct vcpu_thread *v, const struct boot_state *b, struct err *e)
{
	enum { CR0_PE = 1, CR0_ET = 1 << 4, CR0_PG = 1u << 31, CR4_PAE = 1 << 5, EFER_LME = 1 << 8, EFER_LMA = 1 << 10 };
	struct kvm_regs regs = {.rip = b->entry, .rsp = b->rsp, .rax = b->rax, .rbx = b->rbx, .rsi = b->rsi, .rflags = 2};
	struct kvm_sregs s;
	long ret = kvm_ioctl(v->kvm, KVM_GET_SREGS, &s);

	if (ret >= 0) {
		s.cs = flat(0x10, 0xb, true, b->long_mode);
		s.ds = s.es = s.fs = s.gs = s.ss = flat(0x18, 3, false, b->long_mode);
		s.tr = (struct kvm_segment){.limit = 0x67, .selector = 0x20, .type = 0xb, .present = 1};
		s.gdt = (struct kvm_dtable){.base = b->gdt, .limit = b->gdt_limit};
		s.idt = (struct kvm_dtable){0};
		s.cr0 = CR0_PE | CR0_ET | (b->long_mode ? CR0_PG : 0);
		s.cr3 = b->cr3;
		s.cr4 = b->long_mode ? CR4_PAE : 0;
		s.efer = b->long_mode ? EFER_LME | EFER_LMA : 0;
		ret = kvm_ioctl(v->kvm, KVM_SET_SREGS, &s);
	}
	if (ret >= 0)
		ret = kvm_ioctl(v->kvm, KVM_SET_REGS, &regs);
	return ret < 0 ? err_set(e, (int)-ret, "KVM: cannot set registers: %s", strerror((int)-ret)) : 0;
}
