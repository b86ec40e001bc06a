/*
 * A bus: port I/O space or MMIO space, a sorted array of regions. The lock covers the look-up only, never a handler: a handler
 * may move regions (PCI BARs). A region's memory outlives the VM's vCPU threads, so a region that is removed while another vCPU
 * sits in its handler does no harm.
 *
 * Accesses reach a handler in naturally aligned pieces of a size that the region declares.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include "base/base.h"
#include "devices/bus.h"

struct bus {
	pthread_rwlock_t lock;
	struct region **v; /* by base, no overlap */
	u32 n, cap;
	void (*changed)(void *arg); /* set before vCPUs run */
	void *arg;
};

struct bus *bus_new(void)
{
	struct bus *b = calloc(1, sizeof(*b));

	if (b)
		pthread_rwlock_init(&b->lock, NULL);
	return b;
}

void bus_free(struct bus *b)
{
	if (!b)
		return;
	pthread_rwlock_destroy(&b->lock);
	free(b->v);
	free(b);
}

/* Index of the first region that ends after addr. */
static u32 lower_bound(const struct bus *b, u64 addr)
{
	u32 lo = 0, hi = b->n;

	while (lo < hi) {
		u32 mid = (lo + hi) / 2;

		if (b->v[mid]->base + (b->v[mid]->size - 1) < addr)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static int insert_locked(struct bus *b, struct region *r)
{
	u32 at = lower_bound(b, r->base);

	if (at < b->n && b->v[at]->base <= r->base + (r->size - 1))
		return -EBUSY;
	if (b->n == b->cap) {
		u32 cap = b->cap ? b->cap * 2 : 32;
		struct region **v = realloc(b->v, cap * sizeof(*v));

		if (!v)
			return -ENOMEM;
		b->v = v;
		b->cap = cap;
	}
	memmove(&b->v[at + 1], &b->v[at], (b->n - at) * sizeof(*b->v));
	b->v[at] = r;
	b->n++;
	return 0;
}

int bus_add(struct bus *b, struct region *r)
{
	int ret = 0;

	if (!r->size || add_overflows(r->base, r->size - 1) || !r->min_size || r->min_size > r->max_size ||
	    r->max_size > 8)
		return -EINVAL;
	pthread_rwlock_wrlock(&b->lock);
	ret = insert_locked(b, r);
	pthread_rwlock_unlock(&b->lock);
	if (!ret && b->changed)
		b->changed(b->arg);
	return ret;
}

void bus_del(struct bus *b, struct region *r)
{
	pthread_rwlock_wrlock(&b->lock);
	for (u32 i = 0; i < b->n; i++) {
		if (b->v[i] != r)
			continue;
		memmove(&b->v[i], &b->v[i + 1], (b->n - i - 1) * sizeof(*b->v));
		b->n--;
		break;
	}
	pthread_rwlock_unlock(&b->lock);
	if (b->changed)
		b->changed(b->arg);
}

void bus_watch(struct bus *b, void (*changed)(void *arg), void *arg)
{
	b->arg = arg;
	b->changed = changed;
}

void bus_free_map(struct bus *b, u8 *map, u32 bits)
{
	memset(map, 0xff, bits / 8);
	pthread_rwlock_rdlock(&b->lock);
	for (u32 i = 0; i < b->n && b->v[i]->base < bits; i++) {
		u64 end = MIN(b->v[i]->base + (b->v[i]->size - 1), (u64)bits - 1);

		for (u64 a = b->v[i]->base; a <= end; a++)
			map[a / 8] &= (u8)~BIT(a % 8);
	}
	pthread_rwlock_unlock(&b->lock);
}

/* The region at addr and its present base, or NULL with *gap = bytes until the next region. */
static struct region *lookup(struct bus *b, u64 addr, u64 *base, u64 *gap)
{
	struct region *r = NULL;
	u32 i = 0;

	*gap = UINT64_MAX;
	pthread_rwlock_rdlock(&b->lock);
	for (i = lower_bound(b, addr); i < b->n; i++) {
		if (!b->v[i]->enabled)
			continue;
		if (b->v[i]->base > addr) {
			*gap = b->v[i]->base - addr;
			break;
		}
		r = b->v[i];
		*base = r->base;
		break;
	}
	pthread_rwlock_unlock(&b->lock);
	return r;
}

static u64 mask_of(unsigned size)
{
	return size >= 8 ? UINT64_MAX : (1ull << (size * 8)) - 1;
}

/* The largest naturally aligned piece of [offset, offset+len) that the region takes; sizes below its minimum are widened later. */
static unsigned piece(const struct region *r, u64 offset, unsigned len)
{
	unsigned size = 1;

	while (size * 2 <= len && size * 2 <= r->max_size && !(offset & (size * 2 - 1)))
		size *= 2;
	return size;
}

static u64 region_read(struct region *r, u64 offset, unsigned size)
{
	u64 aligned = offset & ~(u64)(r->min_size - 1);

	if (size >= r->min_size)
		return r->ops->read ? r->ops->read(r->dev, offset, size) & mask_of(size) : mask_of(size);
	if (!r->ops->read || !range_within(aligned, r->min_size, r->size))
		return mask_of(size);
	return r->ops->read(r->dev, aligned, r->min_size) >> ((offset - aligned) * 8) & mask_of(size);
}

/* A write narrower than the region's registers: the other bytes keep their value. */
static void region_write(struct region *r, u64 offset, unsigned size, u64 value)
{
	u64 aligned = offset & ~(u64)(r->min_size - 1);
	unsigned shift = (unsigned)(offset - aligned) * 8;
	u64 old = 0;

	if (!r->ops->write)
		return;
	if (size >= r->min_size) {
		r->ops->write(r->dev, offset, size, value);
		return;
	}
	if (!range_within(aligned, r->min_size, r->size))
		return;
	old = r->ops->read ? r->ops->read(r->dev, aligned, r->min_size) : 0;
	old &= ~(mask_of(size) << shift);
	r->ops->write(r->dev, aligned, r->min_size, old | value << shift);
}

void bus_read(struct bus *b, u64 addr, void *data, unsigned len)
{
	u8 *p = data;

	while (len) {
		u64 base = 0, gap = 0;
		struct region *r = lookup(b, addr, &base, &gap);
		unsigned n = 0;

		if (r) {
			u64 offset = addr - base, value = 0;

			n = piece(r, offset, (unsigned)MIN((u64)len, r->size - offset));
			value = region_read(r, offset, n);
			memcpy(p, &value, n);
		} else {
			n = (unsigned)MIN((u64)len, gap);
			memset(p, 0xff, n);
		}
		p += n;
		addr += n;
		len -= n;
	}
}

void bus_write(struct bus *b, u64 addr, const void *data, unsigned len)
{
	const u8 *p = data;

	while (len) {
		u64 base = 0, gap = 0;
		struct region *r = lookup(b, addr, &base, &gap);
		unsigned n = 0;

		if (r) {
			u64 offset = addr - base, value = 0;

			n = piece(r, offset, (unsigned)MIN((u64)len, r->size - offset));
			memcpy(&value, p, n);
			region_write(r, offset, n, value);
		} else {
			n = (unsigned)MIN((u64)len, gap);
		}
		p += n;
		addr += n;
		len -= n;
	}
}
