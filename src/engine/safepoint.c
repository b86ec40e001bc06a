/*
 * Safe points: stopping all vCPUs outside guest execution. A vCPU thread has in_guest = 1 while it may execute guest code or
 * look at structures that a safe point changes. The initiator sets safe_wanted, kicks those inside, and waits for each in_guest
 * to fall; a vCPU enters only while safe_wanted is 0.
 */
#include <linux/futex.h>
#include <sys/syscall.h>

#include "engine/cell/cell.h"
#include "engine/interp/interp.h"
#include "engine/lib/lib.h"
#include "engine/mmu/mmu.h"
#include "engine/safepoint.h"
#include "kvm/chan.h"

static void futex_wait(u32 *word, u32 value)
{
	sys_call(SYS_futex, word, FUTEX_WAIT, value, 0);
}

static void futex_wake_all(u32 *word)
{
	sys_call(SYS_futex, word, FUTEX_WAKE, 0x7fffffff);
}

/* Each for itself: what FS points to goes with the TLB (translate/jcache.c). */
static void forget_memory(struct vcpu *cpu)
{
	cpu->memory_seen = cpu->vm->memory_changes;
	if (cpu->cells)
		cell_end_all(cpu);
	mmu_flush_all(cpu);
	interp_forget_lookups(cpu);
}

void vcpu_enter_guest(struct vcpu *cpu)
{
	struct vm *vm = cpu->vm;

	for (;;) {
		__atomic_store_n(&cpu->in_guest, 1, __ATOMIC_SEQ_CST);
		if (likely(!__atomic_load_n(&vm->safe_wanted, __ATOMIC_SEQ_CST)))
			break;
		vcpu_leave_guest(cpu);
		futex_wait(&vm->safe_wanted, 1);
	}
	if (unlikely(cpu->memory_seen != vm->memory_changes))
		forget_memory(cpu);
}

void vcpu_leave_guest(struct vcpu *cpu)
{
	__atomic_store_n(&cpu->in_guest, 0, __ATOMIC_SEQ_CST);
	if (unlikely(__atomic_load_n(&cpu->vm->safe_wanted, __ATOMIC_SEQ_CST)))
		futex_wake_all(&cpu->in_guest);
}

void vm_safepoint(struct vm *vm, struct vcpu *cpu, void (*fn)(struct vm *vm, void *arg), void *arg)
{
	bool inside = cpu && cpu->in_guest;

	if (inside)
		vcpu_leave_guest(cpu);
	eng_lock(&vm->safe_lock);
	__atomic_store_n(&vm->safe_wanted, 1, __ATOMIC_SEQ_CST);
	for (u32 i = 0; i < vm->nvcpus; i++) {
		struct vcpu *other = vm->vcpus[i];

		if (other == cpu || !__atomic_load_n(&other->in_guest, __ATOMIC_SEQ_CST))
			continue;
		other->stats.safepoints++;
		vcpu_kick(other, ATT_SAFE);
		while (__atomic_load_n(&other->in_guest, __ATOMIC_SEQ_CST))
			futex_wait(&other->in_guest, 1);
	}
	fn(vm, arg);
	__atomic_store_n(&vm->safe_wanted, 0, __ATOMIC_SEQ_CST);
	futex_wake_all(&vm->safe_wanted);
	eng_unlock(&vm->safe_lock);
	if (inside)
		vcpu_enter_guest(cpu);
}

void vcpu_kick(struct vcpu *cpu, unsigned attention)
{
	__atomic_fetch_or(&cpu->chan->attention, attention, __ATOMIC_SEQ_CST);
	__atomic_store_n(&cpu->chan->calm, 0, __ATOMIC_SEQ_CST);
	if (__atomic_load_n(&cpu->chan->sleeping, __ATOMIC_SEQ_CST))
		futex_wake_all(&cpu->chan->attention);
	cell_kick(cpu);
}

void vm_split_lock(struct vm *vm)
{
	eng_lock(&vm->split_lock);
}

void vm_split_unlock(struct vm *vm)
{
	eng_unlock(&vm->split_lock);
}
