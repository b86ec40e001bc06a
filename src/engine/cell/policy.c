/*
 * Which address spaces run in a cell. In translated code, time between timer interrupts in which the guest's kernel was seldom entered
 * says that a cell may pay. In the cell an account is kept: user code wins about WIN of the time it takes there, each stop loses what stops cost
 * here, which is measured. Who is in debt goes back to translated code, for longer each time.
 */
#include <sys/rseq.h>
#include <sys/syscall.h>

#include "engine/cell/cell_int.h"
#include "engine/translate/stress.h"

#define SAMPLE_US   2000  /* of translated code, to judge by */
#define STALE_US    50000
#define ENTER_US    40000 /* so long has a program computed when it gets a cell: what that and its mappings cost, as a rule */
#define AGAIN_US    10000 /* it has them already */
#define CREDIT_US   60000 /* what a program may lose while its pages are mapped */
#define MOST_US     200000
#define PAUSE_US    50000 /* the first; then twice as long */
#define PAUSE_MAX_US 2000000
#define US(n)       ((n) * 1000ull) /* in nanoseconds */
#define WIN         2     /* times the native time: programs that are large enough to matter take three times as long in translated code */

static struct cell *cell_of(struct cells *cs, u64 cr3)
{
	for (unsigned i = 0; i < CELLS; i++)
		if (cs->cell[i].pid && cs->cell[i].cr3 == cr3)
			return &cs->cell[i];
	return NULL;
}

/*
 * The kernel writes to a thread's rseq area when it likes, and a child inherits that: in a cell, it would be the guest's memory.
 */
static bool forget_rseq(void)
{
	u8 *area = (u8 *)__builtin_thread_pointer() + __rseq_offset;

	return !__rseq_size || sys_call(SYS_rseq, area, 32, RSEQ_FLAG_UNREGISTER, RSEQ_SIG) == 0;
}

void cell_start(struct vcpu *cpu)
{
	if (eng_vcpu_at((u64)cpu) < ENG_VCPU_NTABLES && forget_rseq())
		cpu->cells = vm_alloc(sizeof(*cpu->cells));
}

void cell_space_changed(struct vcpu *cpu)
{
	struct cells *cs = cpu->cells;

	cs->now = cell_of(cs, cell_key(cpu));
	cpu->cell_now = (cs->now && cs->now->hot) || (unlikely(tr_stress()->cell) && !cs->failed);
}

void cell_drop_page(struct vcpu *cpu, gva_t a)
{
	struct cell *c = cpu->cells->now;

	if (c && c->ctx == cpu->tlb.ctx[0])
		space_unmap(c, a);
}

void cell_drop_range(struct vcpu *cpu)
{
	struct cell *c = cpu->cells->now;

	if (c)
		c->unsure = true;
}

void cell_drop_writes(struct vcpu *cpu, gpa_t gpa)
{
	for (unsigned i = 0; i < CELLS; i++)
		if (cpu->cells->cell[i].pid)
			space_drop_writes(&cpu->cells->cell[i], gpa);
}

void cell_contexts_reset(struct vcpu *cpu)
{
	for (unsigned i = 0; i < CELLS; i++)
		cpu->cells->cell[i].ctx = 0;
}

static void end(struct cells *cs, struct cell *c)
{
	process_end(c);
	if (cs->xstate_of == c)
		cs->xstate_of = NULL;
	c->hot = false;
}

void policy_end(struct vcpu *cpu, struct cell *c)
{
	end(cpu->cells, c);
	cell_space_changed(cpu);
}

void cell_end_all(struct vcpu *cpu)
{
	for (unsigned i = 0; i < CELLS; i++)
		end(cpu->cells, &cpu->cells->cell[i]);
	cell_space_changed(cpu);
}

/* ---- into the cell ---- */

static u64 events(const struct vcpu *cpu)
{
	return cpu->stats.exceptions + cpu->stats.interrupts + cpu->stats.syscalls;
}

/* What a stop costs on this host. The cell stands in its stub. */
static u64 measure(struct cell *c)
{
	u64 best = ~0ull;

	for (unsigned i = 0; i < 8; i++) {
		u64 begin = eng_tsc_ns();

		if (!process_flush(c))
			return 0;
		best = MIN(best, eng_tsc_ns() - begin);
	}
	return best;
}

/* A free one, or that which was not used for the longest time. */
static struct cell *room_for_one(struct cells *cs)
{
	struct cell *c = &cs->cell[0];

	for (unsigned i = 0; i < CELLS; i++) {
		if (!cs->cell[i].pid)
			return &cs->cell[i];
		if (cs->cell[i].used < c->used)
			c = &cs->cell[i];
	}
	end(cs, c);
	return c;
}

static struct cell *make(struct vcpu *cpu)
{
	struct cells *cs = cpu->cells;
	struct cell *c = room_for_one(cs);
	struct cell_space *space = c->space ? c->space : vm_alloc(sizeof(*space));

	if (!space)
		return NULL;
	*c = (struct cell){.space = space, .cr3 = cell_key(cpu), .reset = true};
	if (!process_make(cpu, c))
		return NULL;
	if (!cs->stop_cost)
		cs->stop_cost = measure(c);
	if (cs->stop_cost)
		return c;
	process_end(c);
	return NULL;
}

void policy_warm(struct vcpu *cpu)
{
	u64 now = eng_tsc_ns();
	struct cells *cs = cpu->cells;
	struct cell *c = cell_of(cs, cell_key(cpu));

	if (c && now < c->not_before)
		return;
	if (!c) {
		c = make(cpu);
		cs->failed = !c;
	}
	if (!c)
		return;
	cpu->stats.cell_spaces++;
	c->hot = true;
	c->balance = (s64)US(c->penalty ? CREDIT_US / 10 : CREDIT_US); /* its pages are mapped already */
	c->used = now;
	cell_space_changed(cpu);
}

/* What is known of the current address space. */
static struct cell_hope *hope_of(struct cells *cs, u64 key)
{
	struct cell_hope *h = &cs->hope[(key >> PAGE_SHIFT ^ key) % CELL_HOPES];

	if (h->cr3 != key)
		*h = (struct cell_hope){.cr3 = key};
	return h;
}

void cell_judge(struct vcpu *cpu)
{
	struct cells *cs = cpu->cells;
	u64 now = eng_tsc_ns(), n = events(cpu), passed = now - cs->judge.since, entries = n - cs->judge.events, key = cell_key(cpu);
	u64 stop = cs->stop_cost ? cs->stop_cost : US(12);
	struct cell_hope *h = NULL;

	if (cs->failed || cpu->cell_now || (cs->judge.cr3 == key && passed < US(SAMPLE_US)))
		return;
	if (cs->judge.cr3 == key && passed < US(STALE_US)) {
		h = hope_of(cs, key);
		h->busy = entries * 3 * stop < passed / 2 ? h->busy + passed : h->busy / 2;
		if (h->busy >= US(cell_of(cs, key) ? AGAIN_US : ENTER_US) || tr_stress()->cell) {
			h->busy = 0;
			policy_warm(cpu);
		}
	}
	cs->judge.cr3 = key;
	cs->judge.since = now;
	cs->judge.events = n;
}

/* ---- and out of it ---- */

void policy_cold(struct vcpu *cpu, struct cell *c)
{
	c->hot = false;
	c->penalty = c->penalty ? MIN(2 * c->penalty, US(PAUSE_MAX_US)) : US(PAUSE_US);
	c->not_before = eng_tsc_ns() + c->penalty;
	cell_space_changed(cpu);
	cell_release(cpu);
}

void policy_note(struct vcpu *cpu, struct cell *c, u64 in, enum cell_stop why)
{
	u64 stop = cpu->cells->stop_cost, most = US(MOST_US);

	c->balance += (s64)(in > stop ? in - stop : 0) * WIN;
	c->balance -= (s64)(stop * (why == STOP_MAP ? 3 : 2));
	if (c->balance > (s64)most) {
		c->balance = (s64)most;
		c->penalty = 0;
	}
	if (c->balance < 0 && !tr_stress()->cell)
		policy_cold(cpu, c);
}
