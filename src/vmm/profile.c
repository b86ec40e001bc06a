/* The profiler: the timer, samples, and the table of stacks. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>
#include "base/loop.h"
#include "vmm/insight.h"
#include "vmm/profile.h"

enum { BUCKETS = 1 << 14, STACKS_MAX = 1 << 16, TEXT_MAX = 32 << 20, LINE_MAX_ = 8192, DEPTH = 48 };

struct stack {
	u64 count;
	u32 text, next; /* offset; next of the bucket, + 1 */
};
struct profile {
	int timer;
	u64 end_ns;
	struct profile_figures f;
	u32 bucket[BUCKETS]; /* number + 1 */
	struct stack *stack;
	u32 room;
	char *text;
	u32 ntext, text_room;
};

/* ---- the table ---- */
static u32 hash(const char *s)
{
	u32 h = 2166136261u; /* FNV-1a */

	for (; *s; s++)
		h = (h ^ (u8)*s) * 16777619u;
	return h & (BUCKETS - 1);
}

static bool grow(void **p, u32 *room, u32 need, u32 most, size_t size)
{
	u32 want = MIN(MAX(MAX(2 * *room, 4096u), need), most);
	void *bigger = NULL;

	if (need <= *room)
		return true;
	bigger = need <= most ? realloc(*p, want * size) : NULL;
	if (!bigger)
		return false;
	*p = bigger;
	*room = want;
	return true;
}

static void count(struct profile *p, const char *folded)
{
	u32 *bucket = &p->bucket[hash(folded)], n = (u32)strlen(folded) + 1;

	p->f.samples++;
	for (u32 i = *bucket; i; i = p->stack[i - 1].next) {
		if (!strcmp(p->text + p->stack[i - 1].text, folded)) {
			p->stack[i - 1].count++;
			return;
		}
	}
	if (!grow((void **)&p->stack, &p->room, p->f.stacks + 1, STACKS_MAX, sizeof(*p->stack)) ||
	    !grow((void **)&p->text, &p->text_room, p->ntext + n, TEXT_MAX, 1)) {
		p->f.lost++;
		return;
	}
	memcpy(p->text + p->ntext, folded, n);
	p->stack[p->f.stacks] = (struct stack){.count = 1, .text = p->ntext, .next = *bucket};
	p->ntext += n;
	*bucket = ++p->f.stacks;
}

/* ---- a sample ---- */
static size_t add(char *line, size_t used, const char *s)
{
	int n = snprintf(line + used, LINE_MAX_ - used, "%s%s", used ? ";" : "", s);

	return MIN(used + (size_t)n, (size_t)LINE_MAX_ - 1);
}

static size_t add_frame(char *line, size_t used, const struct symbols *s, u64 pc, bool exact)
{
	const struct symbol *y = symbols_lookup(s, exact ? pc : pc - 1);
	char text[20];

	if (y)
		return add(line, used, symbols_name(s, y));
	snprintf(text, sizeof(text), "0x%llx", (unsigned long long)pc);
	return add(line, used, text);
}

static void sample(struct machine *m, struct vcpu_thread *t)
{
	struct unwind_frame f[DEPTH];
	char line[LINE_MAX_] = "", task[LINUX_COMM + 1] = "";
	const struct symbols *s = NULL;
	struct insight_vcpu v;
	size_t used = 0;
	u32 n = 0;

	if (insight_vcpu(t, &v) < 0)
		return;
	if (v.halted) {
		count(m->insight->profile, "[idle]");
		return;
	}
	s = insight_symbols(m, &v);
	linux_comm(&m->insight->tasks, &v.in, v.kernel_gs, task);
	used = add(line, used, task[0] ? task : "[guest]");
	if (v.in.s.cs.selector & 3) {
		add(line, used, "[user]");
	} else {
		n = insight_stack(m, &v, f, ARRAY_SIZE(f));
		for (u32 i = n; i; i--)
			if (f[i - 1].how != UNWIND_FOUND) /* a guess would make call chains that never were */
				used = add_frame(line, used, s, f[i - 1].pc, i == 1);
	}
	count(m->insight->profile, line);
}

static void on_tick(void *arg, u32 events)
{
	struct machine *m = arg;
	struct profile *p = m->insight->profile;
	u64 expired = 0, begin = now_ns();
	bool held = false;

	if (read(p->timer, &expired, sizeof(expired)) != sizeof(expired) || !p->f.running)
		return;
	if (begin >= p->end_ns || m->state == MACHINE_ENDED) {
		profile_stop(m);
		return;
	}
	if (m->state != MACHINE_RUNNING || m->event_pending)
		return;
	held = insight_hold(m);
	for (u32 i = 0; i < m->ncpus; i++)
		sample(m, &m->cpu[i]);
	insight_release(m, held);
	p->f.ticks++;
	p->f.held_ns += now_ns() - begin;
}

/* ---- control ---- */
int profile_create(struct machine *m)
{
	struct profile *p = calloc(1, sizeof(*p));
	int ret = 0;

	if (!p)
		return -ENOMEM;
	m->insight->profile = p;
	p->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	ret = p->timer < 0 ? -errno : loop_add(m->loop, p->timer, EPOLLIN, on_tick, m);
	if (ret)
		profile_free(m);
	return ret;
}

static void forget(struct profile *p)
{
	free(p->stack);
	free(p->text);
	p->stack = NULL;
	p->text = NULL;
	p->room = p->ntext = p->text_room = 0;
	memset(p->bucket, 0, sizeof(p->bucket));
	p->f = (struct profile_figures){0};
}

void profile_free(struct machine *m)
{
	struct profile *p = m->insight->profile;

	if (!p)
		return;
	if (p->timer >= 0) {
		loop_del(m->loop, p->timer);
		close(p->timer);
	}
	forget(p);
	free(p);
	m->insight->profile = NULL;
}

int profile_start(struct machine *m, u32 hz, u64 ms)
{
	struct profile *p = m->insight->profile;
	struct itimerspec its = {.it_interval.tv_nsec = 999999999 / hz, .it_value.tv_nsec = 999999999 / hz};

	forget(p);
	p->end_ns = now_ns() + ms * 1000000;
	p->f.running = true;
	return timerfd_settime(p->timer, 0, &its, NULL) < 0 ? -errno : 0;
}

void profile_stop(struct machine *m)
{
	struct profile *p = m->insight->profile;
	struct itimerspec off = {0};

	timerfd_settime(p->timer, 0, &off, NULL);
	p->f.running = false;
}

void profile_figures(const struct machine *m, struct profile_figures *out)
{
	*out = m->insight->profile->f;
}

size_t profile_read(const struct machine *m, u32 *next, char *buf, size_t size)
{
	const struct profile *p = m->insight->profile;
	size_t used = 0;

	buf[0] = 0;
	for (; *next < p->f.stacks && size - used > LINE_MAX_ + 24; ++*next)
		used += (size_t)snprintf(buf + used, size - used, "%s %llu\n", p->text + p->stack[*next].text,
					 (unsigned long long)p->stack[*next].count);
	return used;
}
