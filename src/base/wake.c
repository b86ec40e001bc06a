/*
 * The process' and the VMM's side of wake.h; the engine's is engine/irqchip/wake.c. Each step is "store mine, then look at yours":
 *
 *   ring:  pending = 1, then state ASLEEP or LOOKS -> RUNG vCPU: state -> AWAKE, then looks at pending
 *   ring:  pending = 1, then looks at gsi                  bind: gsi = 0, then takes pending
 *   leave: pending = left = 1, then looks at state     vCPU: state -> ASLEEP or LOOKS, then looks at left
 *
 * so one of the two always sees the other's; who exchanges pending for 0 has the interrupt to deliver.
 */
#include "base/wake.h"

#include "base/base.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { LEFT_NS = 10000 };

static bool take(struct wake_source *s)
{
	return __atomic_exchange_n(&s->pending, 0, __ATOMIC_SEQ_CST) != 0;
}

/* The state before; AWAKE: the vCPU is not concerned. */
static u32 rouse(u32 *word)
{
	u32 state = __atomic_load_n(word, __ATOMIC_SEQ_CST);

	while ((state == WAKE_ASLEEP || state == WAKE_LOOKS) &&
	       !__atomic_compare_exchange_n(word, &state, WAKE_RUNG, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
		;
	return state;
}

/* The vCPU that is to be woken, NULL: none. */
static u32 *target(struct wake_page *w, const struct wake_source *s)
{
	u32 cpu = __atomic_load_n(&s->cpu, __ATOMIC_RELAXED);

	return cpu < WAKE_CPUS && __atomic_load_n(&s->gsi, __ATOMIC_RELAXED) ? &w->cpu[cpu].state : NULL;
}

/* pending is set. */
static enum wake_how ring(struct wake_source *s, u32 *word)
{
	u32 state = rouse(word);

	if (state == WAKE_ASLEEP)
		syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
	else if (state != WAKE_LOOKS && state != WAKE_RUNG)
		return WAKE_LEFT;
	return __atomic_load_n(&s->gsi, __ATOMIC_SEQ_CST) || !take(s) ? WAKE_DONE : WAKE_NOT;
}

bool wake_ring(struct wake_page *w, u32 source)
{
	struct wake_source *s = &w->source[source];
	u32 *word = target(w, s);
	enum wake_how how = WAKE_NOT;

	if (!word || __atomic_load_n(word, __ATOMIC_RELAXED) == WAKE_AWAKE)
		return false;
	__atomic_store_n(&s->pending, 1, __ATOMIC_SEQ_CST);
	how = ring(s, word);
	return how == WAKE_DONE || (how == WAKE_LEFT && !take(s));
}

enum wake_how wake_leave(struct wake_page *w, u32 source)
{
	struct wake_source *s = &w->source[source];
	u32 *word = target(w, s);

	if (!word)
		return WAKE_NOT;
	__atomic_store_n(&s->pending, 1, __ATOMIC_SEQ_CST);
	__atomic_store_n(&container_of(word, struct wake_cpu, state)->left, 1, __ATOMIC_SEQ_CST);
	return ring(s, word);
}

bool wake_call(struct wake_page *w, u32 source, bool may_leave, u64 *left_at)
{
	enum wake_how how = WAKE_NOT;

	if (w && may_leave)
		how = wake_leave(w, source);
	else if (w && wake_ring(w, source))
		how = WAKE_DONE;
	*left_at = how == WAKE_LEFT ? now_ns() : 0;
	return how == WAKE_NOT;
}

bool wake_overdue(struct wake_page *w, u32 source, u64 *left_at, bool now)
{
	if (!*left_at || (!now && now_ns() - *left_at < LEFT_NS))
		return false;
	*left_at = 0;
	return take(&w->source[source]);
}

bool wake_bind(struct wake_page *w, u32 source, u32 gsi)
{
	struct wake_source *s = &w->source[source];

	__atomic_store_n(&s->gsi, gsi, __ATOMIC_SEQ_CST);
	return !gsi && take(s);
}
