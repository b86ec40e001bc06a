/* Takes events out of the rings. */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "debug/trace.h"

static bool header_good(const struct trace_header *h, u64 size)
{
	return h->magic == TRACE_MAGIC && h->version == TRACE_VERSION && h->ncpus >= 1 && h->ncpus <= TRACE_CPUS &&
	       size >= TRACE_SIZE(h->ncpus) && h->tsc_khz >= 1000 && h->tsc_khz < 100000000;
}

int trace_reader_open(struct trace_reader *r, int fd)
{
	struct stat st;

	memset(r, 0, sizeof(*r));
	if (fstat(fd, &st) < 0)
		return -errno;
	if ((u64)st.st_size < TRACE_HEADER_SIZE || (u64)st.st_size > TRACE_SIZE(TRACE_CPUS))
		return -EPROTO;
	r->size = (size_t)st.st_size;
	r->map = mmap(NULL, r->size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (r->map == MAP_FAILED) {
		r->map = NULL;
		return -ENOMEM;
	}
	memcpy(&r->h, r->map, sizeof(r->h));
	if (!header_good(&r->h, r->size)) {
		trace_reader_close(r);
		return -EPROTO;
	}
	r->ring = (struct trace_ring *)((char *)r->map + TRACE_HEADER_SIZE);
	return 0;
}

void trace_reader_close(struct trace_reader *r)
{
	if (r->map)
		munmap(r->map, r->size);
	r->map = NULL;
}

/* How many events of a ring can be read. A count that cannot be is nobody's: the ring goes on from there. */
static u64 available(struct trace_reader *r, u32 cpu)
{
	u64 head = __atomic_load_n(&r->ring[cpu].head, __ATOMIC_ACQUIRE);

	if (head - r->next[cpu] > TRACE_SLOTS) {
		r->next[cpu] = head;
		__atomic_store_n(&r->ring[cpu].tail, head, __ATOMIC_RELEASE);
	}
	return head - r->next[cpu];
}

static const struct trace_event *peek(const struct trace_reader *r, u32 cpu)
{
	return &r->ring[cpu].event[r->next[cpu] % TRACE_SLOTS];
}

bool trace_reader_next(struct trace_reader *r, struct trace_event *e, u32 *cpu)
{
	u64 best = ~0ull;
	u32 from = TRACE_CPUS;

	for (u32 i = 0; i < r->h.ncpus; i++) {
		u64 tsc = 0;

		if (!available(r, i))
			continue;
		tsc = __atomic_load_n(&peek(r, i)->tsc, __ATOMIC_RELAXED);
		if (from == TRACE_CPUS || tsc < best) {
			best = tsc;
			from = i;
		}
	}
	if (from == TRACE_CPUS)
		return false;
	memcpy(e, peek(r, from), sizeof(*e));
	*cpu = from;
	r->next[from]++;
	__atomic_store_n(&r->ring[from].tail, r->next[from], __ATOMIC_RELEASE);
	return true;
}

u64 trace_reader_lost(struct trace_reader *r)
{
	u64 sum = 0;

	for (u32 i = 0; i < r->h.ncpus; i++)
		sum += __atomic_load_n(&r->ring[i].lost, __ATOMIC_RELAXED);
	return sum;
}
