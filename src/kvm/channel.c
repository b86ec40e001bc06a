/*
 * Client side of a vCPU's channel: one request at a time; the engine's vCPU thread answers on the same pages. See chan.h.
 */
#include <errno.h>
#include <linux/futex.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "kvm/kvm_int.h"
#include "kvm/payload.h"

#define SPIN_SHORT 300  /* pauses before sleeping when answers do not come quickly as a rule */
#define SPIN_LONG  4000 /* about 40 us: worth it against a sleep and wake of 5 to 30 us */

static long futex(u32 *word, int op, u32 value, const struct timespec *ts)
{
	return syscall(SYS_futex, word, op, value, ts, NULL, 0);
}

void channel_cancel(struct kvm_obj *vcpu)
{
	struct vcpu_chan *c = vcpu->chan;

	__atomic_fetch_or(&c->attention, CHAN_CANCEL, __ATOMIC_SEQ_CST);
	__atomic_store_n(&c->calm, 0, __ATOMIC_SEQ_CST);
	if (__atomic_load_n(&c->sleeping, __ATOMIC_SEQ_CST))
		futex(&c->attention, FUTEX_WAKE, 1, NULL);
	if (__atomic_load_n(&c->in_cell, __ATOMIC_SEQ_CST))
		syscall(SYS_tgkill, engine_pid(vcpu->engine), c->tid, CHAN_KICK_SIGNAL);
}

/*
 * Waits for the engine's answer. A signal cancels the request, as it interrupts the KVM_RUN of the kernel: the wait has a
 * timeout only because the kernel never restarts a futex wait with one (SA_RESTART or not).
 */
static void wait_turn(struct kvm_obj *o, bool masked)
{
	struct vcpu_chan *c = o->chan;
	const struct timespec hour = {.tv_sec = 3600};
	unsigned spin = o->short_runs ? SPIN_LONG : SPIN_SHORT;

	for (unsigned i = 0; i < spin; i++) {
		if (__atomic_load_n(&c->turn, __ATOMIC_ACQUIRE) == TURN_CLIENT) {
			if (o->short_runs < 8)
				o->short_runs++;
			return;
		}
		__builtin_ia32_pause();
	}
	if (o->short_runs)
		o->short_runs--;
	__atomic_store_n(&c->client_waits, 1, __ATOMIC_SEQ_CST);
	if (masked)
		sigmask_wait(o);
	while (__atomic_load_n(&c->turn, __ATOMIC_SEQ_CST) == TURN_ENGINE) {
		if (futex(&c->turn, FUTEX_WAIT, TURN_ENGINE, &hour) < 0 && errno == EINTR)
			channel_cancel(o);
	}
	__atomic_store_n(&c->client_waits, 0, __ATOMIC_RELAXED);
}

long channel_request(struct kvm_obj *o, unsigned long request, void *arg)
{
	struct vcpu_chan *c = o->chan;
	bool by_value;
	u32 in = kvm_payload_in(request, arg, &by_value);
	bool masked = false;
	long ret;

	if (in > KVMW_PAYLOAD)
		return -E2BIG;
	pthread_mutex_lock(&o->lock);
	masked = request == KVM_RUN && o->sig.on;
	ret = kvm_engine_dead(o, NULL, 0) ? -EIO : masked ? sigmask_enter(o) : 0;
	if (ret < 0) {
		pthread_mutex_unlock(&o->lock);
		return ret;
	}
	c->ioctl = (u32)request;
	c->arg = by_value ? (u64)arg : 0;
	c->size = in;
	if (in)
		memcpy(c->payload, arg, in);
	c->ret = -EIO;
	__atomic_store_n(&c->turn, TURN_ENGINE, __ATOMIC_SEQ_CST);
	if (__atomic_load_n(&c->engine_waits, __ATOMIC_SEQ_CST))
		futex(&c->turn, FUTEX_WAKE, 1, NULL);
	/* an engine that died since the look above has had its answer overwritten by our turn; nobody gives another */
	if (!kvm_engine_dead(o, NULL, 0))
		wait_turn(o, masked);
	if (masked)
		sigmask_leave(o);
	ret = c->ret;
	if (ret >= 0 && !by_value) {
		u32 room = kvm_payload_out(request, arg), n = __atomic_load_n(&c->size, __ATOMIC_RELAXED);

		if (room)
			memcpy(arg, c->payload, MIN(MIN(room, n), KVMW_PAYLOAD));
	} else if (ret == -E2BIG && kvm_payload_out(request, arg)) {
		memcpy(arg, c->payload, 4); /* the count that would have been needed */
	}
	pthread_mutex_unlock(&o->lock);
	return ret;
}
