/*
 * I/O limits: two buckets, of requests and of bytes, which fill at the given rate and hold a tenth of a second's
 * worth. A request goes when both are above zero and takes what it needs, below zero if need be: so one larger
 * than the bucket passes too, and the next ones wait the longer. Flushes are free: they carry no data, and a
 * guest's durability should not depend on its quota.
 */
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "backends/disk_int.h"

#define NS 1000000000ull
enum { BURST_DIV = 10 };

struct bucket {
	u64 rate;    /* per second; 0: no limit */
	s64 level;   /* in billionths, so that slow rates lose nothing between two looks */
	s64 cap;
};
struct disk_limit {
	struct disk *disk;
	struct loop *loop;
	int timer;
	u64 last;
	struct bucket ops, bytes;
	struct disk_req *head, **tail;
};

static void bucket_init(struct bucket *b, u64 rate)
{
	b->rate = MIN(rate, 1ull << 33);
	b->cap = (s64)(MAX(b->rate / BURST_DIV, 1) * NS);
	b->level = b->cap;
}

static void bucket_fill(struct bucket *b, u64 ns)
{
	__int128 level = (__int128)b->level + (__int128)b->rate * ns;
	b->level = level > b->cap ? b->cap : (s64)level;
}

static bool bucket_ready(const struct bucket *b)
{
	return !b->rate || b->level > 0;
}

static void bucket_take(struct bucket *b, u64 n)
{
	if (b->rate)
		b->level -= (s64)(MIN(n, 1ull << 31) * NS);
}

/* Nanoseconds until it is above zero. */
static u64 bucket_wait(const struct bucket *b)
{
	return bucket_ready(b) ? 0 : (u64)-b->level / b->rate + 1;
}

static u64 cost(const struct disk_req *r)
{
	return r->op == DISK_READ || r->op == DISK_WRITE ? r->len : 0;
}

static void fill(struct disk_limit *m)
{
	u64 t = now_ns();
	bucket_fill(&m->ops, t - m->last);
	bucket_fill(&m->bytes, t - m->last);
	m->last = t;
}

static bool admit(struct disk_limit *m, const struct disk_req *r)
{
	if (r->op == DISK_FLUSH)
		return true;
	if (!bucket_ready(&m->ops) || !bucket_ready(&m->bytes))
		return false;
	bucket_take(&m->ops, 1);
	bucket_take(&m->bytes, cost(r));
	return true;
}

static void arm(struct disk_limit *m)
{
	u64 ns = MAX(bucket_wait(&m->ops), bucket_wait(&m->bytes)) + 1;
	struct itimerspec t = {.it_value = {.tv_sec = (time_t)(ns / NS), .tv_nsec = (long)(ns % NS)}};
	timerfd_settime(m->timer, 0, &t, NULL);
}

static void pass_first(struct disk_limit *m)
{
	struct disk_req *r = m->head;
	m->head = r->next;
	if (!m->head)
		m->tail = &m->head;
	m->disk->in_flight++;
	m->disk->ops->submit(m->disk, r);
}

static void on_timer(void *arg, u32 events)
{
	struct disk_limit *m = arg;
	u64 n;
	if (read(m->timer, &n, sizeof(n)) < 0)
		return;
	fill(m);
	while (m->head && admit(m, m->head))
		pass_first(m);
	if (m->head)
		arm(m);
	disk_go(m->disk);
}

bool disk_limit_delays(struct disk_limit *m, struct disk_req *r)
{
	if (!m->head) {
		fill(m);
		if (admit(m, r))
			return false;
	}
	r->next = NULL;
	*m->tail = r;
	m->tail = &r->next;
	if (m->head == r)
		arm(m);
	return true;
}

void disk_limit_release(struct disk_limit *m)
{
	while (m->head)
		pass_first(m);
}

bool disk_limit_holds(const struct disk_limit *m)
{
	return m->head != NULL;
}

int disk_limit_create(struct loop *l, struct disk *d, u64 iops, u64 bps, struct disk_limit **out)
{
	struct disk_limit *m = calloc(1, sizeof(*m));
	if (!m)
		return -ENOMEM;
	*m = (struct disk_limit){.disk = d, .loop = l, .last = now_ns(), .tail = NULL};
	m->tail = &m->head;
	bucket_init(&m->ops, iops);
	bucket_init(&m->bytes, bps);
	m->timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	int r = m->timer < 0 ? -errno : loop_add(l, m->timer, EPOLLIN, on_timer, m);
	if (r) {
		if (m->timer >= 0)
			close(m->timer);
		free(m);
		return r;
	}
	*out = m;
	return 0;
}

void disk_limit_destroy(struct disk_limit *m)
{
	if (!m)
		return;
	loop_del(m->loop, m->timer);
	close(m->timer);
	free(m);
}
