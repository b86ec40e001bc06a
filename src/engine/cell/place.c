/*
 * Where cells run. A stop is two switches between processes: 2 to 5 us on one processor, some 40 us between two. The scheduler, which does not know
 * that they take turns, likes to wake the one where the other is not. So both are bound to the processor where the vCPU's thread is, unless
 * another vCPU of this VM is bound there; and to the next one if they turn out to be kept waiting.
 */
#include <sys/syscall.h>

#include "engine/cell/cell_int.h"

#define LOOK_US 20000

static unsigned this_cpu(void)
{
	unsigned n = 0;

	sys_call(SYS_getcpu, &n, NULL, NULL);
	return n;
}

static bool has(const u64 *set, unsigned n)
{
	return n < CELL_CPUS && set[n / 64] >> (n % 64) & 1;
}

static bool taken(const struct vcpu *cpu, unsigned n)
{
	const struct vm *vm = cpu->vm;

	for (u32 i = 0; i < vm->nvcpus; i++) {
		const struct cells *other = vm->vcpus[i]->cells;

		if (vm->vcpus[i] != cpu && other && __atomic_load_n(&other->host_cpu, __ATOMIC_RELAXED) == n + 1)
			return true;
	}
	return false;
}

/* From n on, one that is nobody's; n if there is none. */
static unsigned free_from(const struct vcpu *cpu, unsigned n)
{
	const u64 *set = cpu->cells->cpus;

	for (unsigned i = 0; i < CELL_CPUS; i++) {
		unsigned k = (n + i) % CELL_CPUS;

		if (has(set, k) && !taken(cpu, k))
			return k;
	}
	return n;
}

static void bind(struct cells *cs, unsigned n)
{
	u64 one[CELL_CPUS / 64] = {0};

	one[n / 64] = BIT64(n % 64);
	sys_call(SYS_sched_setaffinity, 0, sizeof(one), one);
	__atomic_store_n(&cs->host_cpu, n + 1, __ATOMIC_RELAXED);
	cs->watch.open = false;
}

void cell_release(struct vcpu *cpu)
{
	struct cells *cs = cpu->cells;

	if (!cs->host_cpu)
		return;
	sys_call(SYS_sched_setaffinity, 0, sizeof(cs->cpus), cs->cpus);
	__atomic_store_n(&cs->host_cpu, 0, __ATOMIC_RELAXED);
}

/* Processor time of the two. */
static u64 used_ns(const struct cell *c)
{
	struct timespec ts = {0};

	sys_call(SYS_clock_gettime, ~(long)c->pid * 8 + 2, &ts);
	return (u64)ts.tv_sec * 1000000000 + (u64)ts.tv_nsec + eng_thread_ns();
}

/* Whether others had the processor for more than a quarter of the time. */
static bool kept_waiting(struct cells *cs, const struct cell *c)
{
	u64 now = eng_tsc_ns(), used = 0, wall = now - cs->watch.begin;
	bool was = cs->watch.open, kept = false;

	if (was && wall < LOOK_US * 1000ull)
		return false;
	used = used_ns(c);
	kept = was && (used - cs->watch.used) * 4 < wall * 3;
	cs->watch.begin = now;
	cs->watch.used = used;
	cs->watch.open = true;
	return kept;
}

void place_together(struct vcpu *cpu, struct cell *c)
{
	struct cells *cs = cpu->cells;

	if (!cs->cpus[0] && sys_call(SYS_sched_getaffinity, 0, sizeof(cs->cpus), cs->cpus) < 0)
		return;
	if (!cs->host_cpu)
		bind(cs, free_from(cpu, this_cpu()));
	else if (c->host_cpu == cs->host_cpu && kept_waiting(cs, c))
		bind(cs, free_from(cpu, cs->host_cpu % CELL_CPUS));
	if (c->host_cpu == cs->host_cpu || c->nops == CELL_OPS)
		return;
	c->host_cpu = cs->host_cpu;
	cs->watch.open = false;
	memset(c->list->cpus, 0, sizeof(c->list->cpus));
	c->list->cpus[(c->host_cpu - 1) / 64] = BIT64((c->host_cpu - 1) % 64);
	cell_queue(c, SYS_sched_setaffinity, 0, sizeof(c->list->cpus), (u64)c->list - ENG_CELL_BASE + STUB_BASE + offsetof(struct cell_list, cpus), 0, 0, 0);
}
