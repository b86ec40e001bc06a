/*
 * KVM_SET_SIGNAL_MASK: the signal mask of the thread while it is in KVM_RUN (Documentation/virt/kvm/api.rst).
 * A signal that is blocked outside and not inside ends KVM_RUN and stays pending: its handler does not run.
 * So the thread cannot just change its mask and sleep; it watches those signals with a signalfd, which takes
 * none, and the engine's answer comes by an eventfd.
 */
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kvm/kvm_int.h"

#define KERNEL_SIGSET 8 /* bytes */

static long set_mask(int how, const u64 *set, u64 *old)
{
	return syscall(SYS_rt_sigprocmask, how, set, old, KERNEL_SIGSET);
}

static int make_bell(struct kvm_obj *o)
{
	int r;

	if (o->sig.bell >= 0)
		return 0;
	o->sig.bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (o->sig.bell < 0)
		return -errno;
	r = engine_set_bell(o, o->sig.bell);
	if (r < 0) {
		close(o->sig.bell);
		o->sig.bell = -1;
	}
	return r;
}

int sigmask_set(struct kvm_obj *o, const struct kvm_signal_mask *m)
{
	int r = 0;

	if (m && m->len != KERNEL_SIGSET)
		return -EINVAL;
	if (m)
		r = make_bell(o);
	if (r < 0)
		return r;
	pthread_mutex_lock(&o->lock);
	o->sig.on = m;
	if (m)
		memcpy(&o->sig.mask, m->sigset, KERNEL_SIGSET);
	pthread_mutex_unlock(&o->lock);
	return 0;
}

static bool readable(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	return poll(&p, 1, 0) > 0;
}

int sigmask_enter(struct kvm_obj *o)
{
	u64 watch;
	int fd;

	set_mask(SIG_BLOCK, &o->sig.mask, &o->sig.outside);
	watch = o->sig.outside & ~o->sig.mask;
	fd = (int)syscall(SYS_signalfd4, o->sig.fd, &watch, KERNEL_SIGSET, SFD_CLOEXEC);
	if (fd < 0) {
		int e = errno;

		sigmask_leave(o);
		return -e;
	}
	o->sig.fd = fd;
	/* pending already: the engine completes what was answered, and comes back at once */
	if (readable(fd))
		channel_cancel(o);
	return 0;
}

void sigmask_leave(struct kvm_obj *o)
{
	set_mask(SIG_SETMASK, &o->sig.outside, NULL);
}

void sigmask_wait(struct kvm_obj *o)
{
	struct vcpu_chan *c = o->chan;
	struct pollfd p[3] = {
	    {.fd = o->sig.bell, .events = POLLIN},
	    {.fd = engine_pidfd(o->engine), .events = POLLIN},
	    {.fd = o->sig.fd, .events = POLLIN},
	};

	while (__atomic_load_n(&c->turn, __ATOMIC_SEQ_CST) == TURN_ENGINE) {
		eventfd_t n;

		if (poll(p, ARRAY_SIZE(p), -1) < 0) {
			channel_cancel(o); /* a signal that is blocked in neither mask: its handler has run */
			continue;
		}
		if (p[2].revents) {
			channel_cancel(o);
			p[2].fd = -1; /* it stays readable */
		}
		if (p[1].revents) /* dead; the watcher is about to answer in its name */
			sched_yield();
		if (p[0].revents)
			eventfd_read(o->sig.bell, &n);
	}
}

void sigmask_close(struct kvm_obj *o)
{
	if (o->sig.bell >= 0)
		close(o->sig.bell);
	if (o->sig.fd >= 0)
		close(o->sig.fd);
}
