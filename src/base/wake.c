/*
 * The process' and the VMM's side of wake.h; the engine's is engine/irqchip/wake.c. Each step is "store mine, then look at yours":
 *
 *   ring:  pending = 1, then state ASLEEP -> RUNG      vCPU: state -> AWAKE, then looks at pending
 *   ring:  pending = 1, then looks at gsi              bind: gsi = 0, then takes pending
 *
 * so one of the two always sees the other's; who exchanges pending for 0 has the interrupt to deliver.
 */
#include "base/wake.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

static bool take(struct wake_source *s)
{
	return __atomic_exchange_n(&s->pending, 0, __ATOMIC_SEQ_CST) != 0;
}

bool wake_ring(struct wake_page *w, u32 source)
{
	struct wake_source *s = &w->source[source];
	u32 cpu = __atomic_load_n(&s->cpu, __ATOMIC_RELAXED), state = WAKE_ASLEEP;
	u32 *word = cpu < WAKE_CPUS ? &w->cpu[cpu].state : NULL;

	if (!word || !__atomic_load_n(&s->gsi, __ATOMIC_RELAXED) || __atomic_load_n(word, __ATOMIC_RELAXED) == WAKE_AWAKE)
		return false;
	__atomic_store_n(&s->pending, 1, __ATOMIC_SEQ_CST);
	if (__atomic_compare_exchange_n(word, &state, WAKE_RUNG, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
		syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
	else if (state == WAKE_AWAKE)
		return !take(s);
	return __atomic_load_n(&s->gsi, __ATOMIC_SEQ_CST) || !take(s);
}

bool wake_bind(struct wake_page *w, u32 source, u32 gsi)
{
	struct wake_source *s = &w->source[source];

	__atomic_store_n(&s->gsi, gsi, __ATOMIC_SEQ_CST);
	return !gsi && take(s);
}
