/* Futex lock after Drepper, "Futexes Are Tricky": 0 free, 1 taken, 2 taken and somebody may sleep. */
#include <linux/futex.h>
#include <sys/syscall.h>
#include "engine/lib/lib.h"

#define LOCK_SPINS 64

void eng_lock(u32 *word)
{
	u32 v = 0;

	if (likely(__atomic_compare_exchange_n(word, &v, 1, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED)))
		return;
	for (int i = 0; i < LOCK_SPINS; i++) {
		__builtin_ia32_pause();
		v = 0;
		if (!__atomic_load_n(word, __ATOMIC_RELAXED) &&
		    __atomic_compare_exchange_n(word, &v, 1, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
			return;
	}
	while (__atomic_exchange_n(word, 2, __ATOMIC_ACQUIRE))
		sys_call(SYS_futex, word, FUTEX_WAIT_PRIVATE, 2, 0);
}

void eng_unlock(u32 *word)
{
	if (__atomic_exchange_n(word, 0, __ATOMIC_RELEASE) == 2)
		sys_call(SYS_futex, word, FUTEX_WAKE_PRIVATE, 1);
}
