/*
 * Sleeping in HLT with an ear for the processes that serve devices (base/wake.h): their interrupts come straight to the vCPU that
 * sleeps. All others come by irqfd and the main thread.
 */
#include <errno.h>
#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "base/patience.h"
#include "base/wake.h"
#include "engine/irqchip/irqchip_int.h"
#include "kvm/chan.h"

_Static_assert((int)WAKE_CPUS == (int)ENG_MAX_VCPUS, "a word for each vCPU");

static u32 sources(const struct wake_page *w)
{
	return MIN(__atomic_load_n(&w->sources, __ATOMIC_RELAXED), (u32)WAKE_SOURCES);
}

int wake_set_page(struct vm *vm, int fd)
{
	struct stat st;
	void *p = NULL;

	if (sys_call(SYS_futex_waitv, 0, 0, 0, 0, 0) == -ENOSYS) /* Linux 5.16 */
		return -ENOSYS;
	if (vm->wake || !vm->irqchip)
		return -EEXIST;
	if (sys_call(SYS_fstat, fd, &st) < 0 || st.st_size < (off_t)sizeof(struct wake_page))
		return -EINVAL;
	p = mmap((void *)ENG_WAKE_BASE, sizeof(struct wake_page), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED_NOREPLACE, fd, 0);
	if (p != (void *)ENG_WAKE_BASE)
		return -ENOMEM;
	__atomic_store_n(&vm->wake, (struct wake_page *)p, __ATOMIC_RELEASE);
	return 0;
}

/* Who got the source's interrupt is to be woken next time. */
static void note_target_locked(struct irqchip *c, struct wake_source *s, u32 gsi)
{
	int to = irq_target_locked(c, gsi);

	if (to >= 0 && (u32)to != __atomic_load_n(&s->cpu, __ATOMIC_RELAXED))
		__atomic_store_n(&s->cpu, (u32)to, __ATOMIC_RELAXED);
}

/* Under the lock, so that a route that goes away meanwhile goes after its interrupt. */
static void raise_locked(struct irqchip *c, struct wake_source *s)
{
	u32 gsi = __atomic_load_n(&s->gsi, __ATOMIC_SEQ_CST);

	if (!gsi || gsi >= IRQ_MAX_GSI || !__atomic_exchange_n(&s->pending, 0, __ATOMIC_SEQ_CST))
		return;
	irq_set_gsi_locked(c, gsi, SRC_USER, true);
	irq_set_gsi_locked(c, gsi, SRC_USER, false);
	note_target_locked(c, s, gsi);
}

/* Until somebody wants something of the vCPU; false: nobody did so soon. */
static bool look(const u32 *attention, u32 *state)
{
	u64 until = eng_rdtsc() + eng_tsc_khz() * PATIENCE_LOOK_NS / 1000000;
	u32 looks = WAKE_LOOKS;

	do {
		if (__atomic_load_n(attention, __ATOMIC_SEQ_CST) || __atomic_load_n(state, __ATOMIC_SEQ_CST) != WAKE_LOOKS)
			return true;
		__builtin_ia32_pause();
	} while (eng_rdtsc() < until);
	return !__atomic_compare_exchange_n(state, &looks, WAKE_ASLEEP, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

/* Until the attention word is not 0, the vCPU is rung, or something was left for it; or for no reason. */
static void wait_for(struct vcpu *cpu, u32 *attention, struct wake_cpu *w)
{
	u32 *state = &w->state;
	struct futex_waitv v[2] = {{.uaddr = (u64)attention, .flags = FUTEX_32}, {.val = WAKE_ASLEEP, .uaddr = (u64)state, .flags = FUTEX_32}};
	struct patience *p = &cpu->patience;
	bool looks = cpu->vm->patient && patience_looks(p), found = false;
	u64 begin = eng_rdtsc();

	__atomic_store_n(state, looks ? WAKE_LOOKS : WAKE_ASLEEP, __ATOMIC_SEQ_CST);
	if (__atomic_load_n(&w->left, __ATOMIC_SEQ_CST))
		return;
	if (looks)
		found = look(attention, state);
	if (!found)
		sys_call(SYS_futex_waitv, v, 2, 0, 0, 0);
	patience_learn(p, (eng_rdtsc() - begin) * 1000 / (eng_tsc_khz() / 1000), looks, found);
	cpu->stats.spared += found;
}

void wake_wait(struct vcpu *cpu)
{
	struct wake_page *w = __atomic_load_n(&cpu->vm->wake, __ATOMIC_ACQUIRE);
	struct irqchip *c = cpu->vm->irqchip;
	u32 *attention = &cpu->chan->attention, state = WAKE_AWAKE;
	struct wake_cpu *own = NULL;

	if (!w) {
		sys_call(SYS_futex, attention, FUTEX_WAIT, 0, 0);
		return;
	}
	own = &w->cpu[cpu->id % WAKE_CPUS];
	wait_for(cpu, attention, own);
	state = __atomic_exchange_n(&own->state, WAKE_AWAKE, __ATOMIC_SEQ_CST);
	if (!__atomic_exchange_n(&own->left, 0, __ATOMIC_SEQ_CST) && state != WAKE_RUNG)
		return;
	cpu->stats.rung++;
	eng_lock(&c->lock);
	for (u32 i = 0; i < sources(w); i++)
		raise_locked(c, &w->source[i]);
	eng_unlock(&c->lock);
}

void wake_note_locked(struct irqchip *c, u32 gsi)
{
	struct wake_page *w = c->vm->wake;

	for (u32 i = 0; w && i < sources(w); i++)
		if (__atomic_load_n(&w->source[i].gsi, __ATOMIC_RELAXED) == gsi)
			note_target_locked(c, &w->source[i], gsi);
}
