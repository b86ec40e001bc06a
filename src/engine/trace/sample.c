/*
 * Where vCPUs spend their time: a clock of the main thread looks at each of them, and at nothing but words that are there anyway.
 * It runs for a few seconds after somebody has asked, then stops by itself. So long translated code may count its instructions.
 */
#include "engine/interp/interp_int.h"
#include "engine/lib/loop.h"
#include "engine/trace/trace.h"

#define SAMPLE_HZ    100
#define SAMPLE_LEASE (5 * SAMPLE_HZ) /* ticks after the last question */

struct sampler {
	struct loop_timer timer;
	u32 left;
	bool counting;
	u64 next;
	u64 count[ENG_MAX_VCPUS][SAMPLE_KINDS];
};

/* All of this is read while it changes: a sample may be wrong by an instruction. */
static enum doppel_sample look(const struct vcpu *cpu)
{
	const struct icache_vcpu *ic = __atomic_load_n(&cpu->icache, __ATOMIC_RELAXED);

	if (cpu->mp_state != MP_RUNNABLE || __atomic_load_n(&cpu->chan->sleeping, __ATOMIC_RELAXED))
		return SAMPLE_IDLE;
	if (!__atomic_load_n(&cpu->in_guest, __ATOMIC_RELAXED))
		return SAMPLE_MONITOR;
	if (__atomic_load_n(&cpu->chan->in_cell, __ATOMIC_RELAXED))
		return SAMPLE_USER;
	if (!__atomic_load_n(&cpu->tr.inside, __ATOMIC_RELAXED) && !(ic && __atomic_load_n(&ic->cur, __ATOMIC_RELAXED)))
		return SAMPLE_MONITOR;
	return cpu->mode.cpl == 3 ? SAMPLE_USER : SAMPLE_KERNEL;
}

/* Written by this thread only; a vCPU takes it up with ATT_TRACE. */
static void count_instructions(struct vm *vm, bool on)
{
	if (vm->sampler->counting == on)
		return;
	vm->sampler->counting = on;
	for (u32 i = 0; i < vm->nvcpus; i++) {
		__atomic_store_n(&vm->vcpus[i]->trace.counting, on ? MODE_KEY_COUNT : 0, __ATOMIC_RELAXED);
		vcpu_kick(vm->vcpus[i], ATT_TRACE);
	}
}

static void tick(void *arg)
{
	struct sampler *s = arg;
	struct vm *vm = the_vm();

	for (u32 i = 0; i < vm->nvcpus; i++)
		s->count[i][look(vm->vcpus[i])]++;
	s->next += 1000000000 / SAMPLE_HZ;
	if (--s->left)
		loop_timer_set(&s->timer, MAX(s->next, eng_now_ns() + 1000000));
	else
		count_instructions(vm, false);
}

static struct sampler *the_sampler(struct vm *vm)
{
	if (!vm->sampler) {
		vm->sampler = vm_alloc(sizeof(*vm->sampler));
		if (vm->sampler)
			vm->sampler->timer = (struct loop_timer){.fn = tick, .arg = vm->sampler};
	}
	return vm->sampler;
}

void sample_get(struct vm *vm, struct doppel_samples *out)
{
	struct sampler *s = the_sampler(vm);

	memset(out, 0, sizeof(*out));
	out->ncpus = vm->nvcpus;
	out->hz = SAMPLE_HZ;
	if (!s)
		return;
	memcpy(out->count, s->count, sizeof(out->count));
	if (!s->left) {
		s->next = eng_now_ns() + 1000000000 / SAMPLE_HZ;
		loop_timer_set(&s->timer, s->next);
	}
	s->left = SAMPLE_LEASE;
}

void sample_count(struct vm *vm)
{
	if (the_sampler(vm) && vm->sampler->left)
		count_instructions(vm, true);
}
