/* What all disk formats share: checking requests, counting them. */
#include "backends/disk_int.h"

enum { DISK_NOW_MAX = 2 << 20 }; /* more would hold up other requests */

static int check(const struct disk *d, const struct disk_req *r)
{
	if (r->op == DISK_FLUSH)
		return 0;
	if (r->op != DISK_READ && d->read_only)
		return -EROFS;
	return range_within(r->offset, r->len, d->size) ? 0 : -EINVAL;
}

int disk_submit(struct disk *d, struct disk_req *r)
{
	int e = check(d, r);
	if (e)
		return e;
	r->offset += d->base;
	if (d->limit && disk_limit_delays(d->limit, r))
		return 0;
	d->in_flight++;
	d->ops->submit(d, r);
	return 0;
}

bool disk_now(struct disk *d, const struct disk_req *r)
{
	if (r->op > DISK_WRITE || d->limit || !d->ops->now || r->len > DISK_NOW_MAX || check(d, r))
		return false;
	return d->ops->now(d, r, r->offset + d->base);
}

void disk_go(struct disk *d)
{
	d->ops->flush_queue(d);
}

void disk_drain(struct disk *d)
{
	do { /* a completion may bring new requests, and a limit may hold those */
		if (d->limit)
			disk_limit_release(d->limit);
		d->ops->flush_queue(d);
		if (d->in_flight)
			d->ops->drain(d);
	} while (d->in_flight || (d->limit && disk_limit_holds(d->limit)));
}

void disk_destroy(struct disk *d)
{
	if (!d)
		return;
	disk_drain(d);
	disk_limit_destroy(d->limit);
	d->ops->destroy(d);
}
