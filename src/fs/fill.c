#include "fs/fill.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
	FILL_MIN = 64 << 10,  /* below, the calls cost more than the faults */
	FILL_MAX = 1 << 20,   /* what a READ has at most, by our INIT */
	PIPE_BYTES = 1 << 20, /* what the kernel lets anyone have */
};
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22 /* Linux 5.14 */
#endif

/* ---- regions ---- */
void fill_add_region(struct fill_ram *ram, void *base, u64 size, int fd, u64 offset)
{
	struct fill_region *r = &ram->region[ram->n];

	if (ram->n >= FILL_REGIONS || ((u64)base | offset) % PAGE_SIZE)
		return;
	*r = (struct fill_region){.base = base, .size = size, .offset = offset};
	r->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	r->mapped = calloc(size / PAGE_SIZE / 64 + 1, 8); /* memory of what is read into only */
	if (r->fd >= 0 && r->mapped) {
		ram->n++;
		return;
	}
	if (r->fd >= 0)
		close(r->fd);
	free(r->mapped);
}

void fill_drop_regions(struct fill_ram *ram)
{
	for (unsigned i = 0; i < ram->n; i++) {
		close(ram->region[i].fd);
		free(ram->region[i].mapped);
	}
	ram->n = 0;
}

static struct fill_region *find(struct fill_ram *ram, const struct iovec *v)
{
	for (unsigned i = 0; i < ram->n; i++) {
		struct fill_region *r = &ram->region[i];
		u64 at = (u64)v->iov_base - (u64)r->base;

		if (at < r->size && v->iov_len <= r->size - at)
			return r;
	}
	return NULL;
}

/* ---- pages ---- */
struct pages {
	struct fill_region *r;
	u64 first, n;
};

static struct pages pages_of(struct fill_region *r, const struct iovec *v)
{
	u64 at = (u64)v->iov_base - (u64)r->base;
	u64 first = at / PAGE_SIZE;

	return (struct pages){r, first, (at + v->iov_len - 1) / PAGE_SIZE - first + 1};
}

static bool all_mapped(const struct pages *p)
{
	for (u64 i = p->first; i < p->first + p->n; i++)
		if (!(__atomic_load_n(&p->r->mapped[i / 64], __ATOMIC_RELAXED) & BIT64(i % 64)))
			return false;
	return true;
}

/* Without MADV_POPULATE_READ, or memory, the read itself will see. */
static void map_pages(const struct pages *p)
{
	madvise(p->r->base + p->first * PAGE_SIZE, p->n * PAGE_SIZE, MADV_POPULATE_READ);
	for (u64 i = p->first; i < p->first + p->n; i++)
		__atomic_fetch_or(&p->r->mapped[i / 64], BIT64(i % 64), __ATOMIC_RELAXED);
}

static unsigned count_absent(const struct pages *p)
{
	unsigned char there[FILL_MAX / PAGE_SIZE + 1];
	unsigned absent = 0;

	if (p->n > sizeof(there) || mincore(p->r->base + p->first * PAGE_SIZE, p->n * PAGE_SIZE, there) < 0)
		return 0;
	for (u64 i = 0; i < p->n; i++)
		absent += !(there[i] & 1);
	return absent;
}

/* ---- through the pipe ---- */
static bool open_pipe(struct fill_pipe *p)
{
	if (p->open)
		return true;
	if (pipe2(p->fd, O_CLOEXEC) < 0)
		return false;
	fcntl(p->fd[1], F_SETPIPE_SZ, PIPE_BYTES); /* refused: it takes more turns */
	p->open = true;
	return true;
}

void fill_close_pipe(struct fill_pipe *p)
{
	if (p->open) {
		close(p->fd[0]);
		close(p->fd[1]);
	}
	p->open = false;
}

/* len bytes that are in the pipe into the memory that iov names, from byte skip of it on */
static bool empty_pipe(struct fill_ram *ram, struct fill_pipe *p, const struct iovec *v, u64 skip, u64 len)
{
	for (; len; v++) {
		if (skip >= v->iov_len) {
			skip -= v->iov_len;
			continue;
		}
		struct fill_region *r = find(ram, v);
		u64 now = MIN(v->iov_len - skip, len);
		loff_t to = (loff_t)((u64)v->iov_base + skip - (u64)r->base + r->offset);

		skip = 0;
		len -= now;
		while (now) {
			ssize_t put = splice(p->fd[0], NULL, r->fd, &to, now, 0);

			if (put <= 0) {
				if (put < 0 && errno != EINTR && errno != ENOMEM && errno != ENOSPC)
					__atomic_store_n(&r->no_splice, true, __ATOMIC_RELAXED);
				return false;
			}
			now -= (u64)put;
		}
	}
	return true;
}

/* -1: nothing is in the memory that counts, read it otherwise */
static ssize_t splice_read(struct fill_ram *ram, struct fill_pipe *p, int fd, const struct iovec *iov, u64 size,
			   off_t at)
{
	u64 done = 0;

	while (done < size) {
		loff_t from = at + (off_t)done;
		ssize_t got = splice(fd, &from, p->fd[1], NULL, size - done, 0);

		if (!got)
			break;
		if (got < 0)
			return -1;
		if (!empty_pipe(ram, p, iov, done, (u64)got)) {
			fill_close_pipe(p); /* and what is left in it */
			return -1;
		}
		done += (u64)got;
	}
	return (ssize_t)done;
}

/* ---- reading ---- */
static unsigned join(struct iovec *iov, unsigned n, u64 *size)
{
	unsigned out = 0;

	*size = 0;
	for (unsigned i = 0; i < n; i++) {
		if (!iov[i].iov_len)
			continue;
		*size += iov[i].iov_len;
		if (out && (u8 *)iov[out - 1].iov_base + iov[out - 1].iov_len == iov[i].iov_base)
			iov[out - 1].iov_len += iov[i].iov_len;
		else
			iov[out++] = iov[i];
	}
	return out;
}

/* Maps what is there already; true: most of the rest has no memory, and can be spliced into. */
static bool prepare(struct fill_ram *ram, const struct iovec *iov, unsigned n)
{
	u64 unmapped = 0, absent = 0;
	bool splices = true;

	for (unsigned i = 0; i < n; i++) {
		struct fill_region *r = find(ram, &iov[i]);

		if (!r)
			return false;
		struct pages p = pages_of(r, &iov[i]);

		splices &= !__atomic_load_n(&r->no_splice, __ATOMIC_RELAXED);
		if (all_mapped(&p))
			continue;
		unsigned none = count_absent(&p);

		unmapped += p.n;
		absent += none;
		if (!none || !splices)
			map_pages(&p);
	}
	return splices && absent > unmapped / 2;
}

ssize_t fill_read(struct fill_ram *ram, struct fill_pipe *p, int fd, struct iovec *iov, unsigned n, off_t at)
{
	u64 size = 0;

	n = join(iov, n, &size);
	if (ram && size >= FILL_MIN && size <= FILL_MAX && prepare(ram, iov, n) && open_pipe(p)) {
		ssize_t got = splice_read(ram, p, fd, iov, size, at);

		if (got >= 0)
			return got;
	}
	return preadv(fd, iov, (int)n, at);
}
