/*
 * Stacks of the host addresses that guest calls return to, one for each class of modes (gen_far.c). What is on them is a guess and is
 * checked where it leads, but it must be code: an entry that is nothing else is tr_return_miss. They have a page without
 * access at each end: what goes over an end faults and is brought back in between.
 */
#include <sys/mman.h>
#include <sys/syscall.h>

#include "engine/lib/lib.h"
#include "engine/translate/tr_int.h"

enum { GUARD = 0x1000, SIZE = 0x2000, UNIT = 2 * GUARD + SIZE, HALF = SIZE / 2 };

_Static_assert(ENG_VCPU_RETURNS + JC_COUNT * UNIT <= ENG_VCPU_STRIDE, "part of a vCPU's arena");
_Static_assert(ENG_VCPU_RETURNS >= ENG_VCPU_JC + ENG_JC_SIZE, "behind the jump caches");

static u64 bottom(const struct vcpu *cpu, unsigned cls)
{
	return (u64)cpu - ENG_VCPU_STATE + ENG_VCPU_RETURNS + cls * UNIT + GUARD;
}

static void fill(unsigned cls, u64 from, u64 to)
{
	for (u64 *p = (u64 *)from; p < (u64 *)to; p++)
		*p = (u64)tr_return_miss[cls];
}

bool returns_start(struct vcpu *cpu)
{
	for (unsigned i = 0; i < JC_COUNT; i++) {
		u64 at = bottom(cpu, i), guard[] = {at - GUARD, at + SIZE};

		for (unsigned k = 0; k < ARRAY_SIZE(guard); k++)
			if (sys_call(SYS_mmap, guard[k], GUARD, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1,
				     0) != (long)guard[k])
				return false;
	}
	return true;
}

void returns_forget(struct vcpu *cpu)
{
	for (unsigned i = 0; i < JC_COUNT; i++) {
		fill(i, bottom(cpu, i), bottom(cpu, i) + SIZE);
		cpu->tr.returns[i] = bottom(cpu, i) + HALF;
	}
	cpu->tr.returns_of = tr_flush_count();
}

bool returns_fault(struct vcpu *cpu, greg_t *host)
{
	u64 at = (u64)host[REG_CR2] - (bottom(cpu, 0) - GUARD), place = at % UNIT, low = 0;

	if (at >= JC_COUNT * UNIT || (place >= GUARD && place < GUARD + SIZE))
		return false;
	low = bottom(cpu, (unsigned)(at / UNIT));
	if (place < GUARD) /* a call at the bottom: the older half goes */
		memcpy((void *)(low + HALF), (void *)low, HALF);
	else
		fill((unsigned)(at / UNIT), low + HALF, low + SIZE);
	host[REG_RSP] = (greg_t)(low + HALF);
	return true;
}
