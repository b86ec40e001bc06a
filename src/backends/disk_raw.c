/*
 * Raw disk images: a file or block device whose bytes are the disk's. Completions wake the main loop by the
 * ring's eventfd.
 *
 * Order: the disk promises none between requests in flight (Virtio 1.2, 5.2.6), so they run as the kernel
 * likes. FLUSH covers what was completed before it was submitted: fdatasync is enough.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "backends/disk_aio.h"
#include "backends/disk_int.h"

enum { SECTOR = 512 };

struct disk_raw {
	struct disk disk;
	struct loop *loop;
	struct disk_file file;
	struct disk_aio aio;
};

static struct disk_raw *raw_of(struct disk *d)
{
	return container_of(d, struct disk_raw, disk);
}

/* Neither punching nor ZERO_RANGE is known everywhere. A discard may be ignored; zeroes have to be written. */
static int write_zeroes_slowly(struct disk_raw *d, const struct disk_req *r)
{
	static const u8 zeroes[65536];
	int ret = 0;
	for (u64 at = 0; at < r->len && !ret; at += sizeof(zeroes))
		ret = disk_file_write(&d->file, r->offset + at, zeroes, MIN(r->len - at, sizeof(zeroes)));
	return ret;
}

static int mend(struct disk_raw *d, const struct disk_req *r, int res)
{
	bool unknown = res == -EOPNOTSUPP || res == -EINVAL || res == -ENOSYS;
	if (r->op == DISK_DISCARD && unknown)
		return 0;
	if (r->op == DISK_WRITE_ZEROES && unknown)
		return write_zeroes_slowly(d, r);
	if (r->op == DISK_FLUSH && res)
		d->file.sync_failed = true; /* the kernel tells of a lost page once */
	return r->op == DISK_FLUSH && d->file.sync_failed ? -EIO : res;
}

static void raw_settled(void *arg, struct disk_req *r, int res)
{
	struct disk_raw *d = arg;
	res = mend(d, r, res);
	if (!res && d->disk.write_through && (r->op == DISK_DISCARD || r->op == DISK_WRITE_ZEROES))
		res = disk_file_sync(&d->file); /* O_DSYNC is not for fallocate */
	d->disk.in_flight--;
	r->done(r, res);
}

static void raw_ready(void *arg, u32 events)
{
	disk_aio_reap(&((struct disk_raw *)arg)->aio);
}

static void raw_submit(struct disk *disk, struct disk_req *r)
{
	struct disk_raw *d = raw_of(disk);
	disk_file_aim(&d->file, r);
	r->zero_at_end = false;
	if (r->op == DISK_FLUSH && d->file.unsafe)
		r->fd = -1;
	disk_aio_submit(&d->aio, r);
}

/* To and from the page cache a transfer is a copy, done sooner than handed to the ring. */
static bool raw_now(struct disk *disk, const struct disk_req *r, u64 offset)
{
	const struct disk_file *f = &raw_of(disk)->file;
	if (r->op == DISK_READ)
		return disk_file_read_cached(f, offset, r->iov, r->n_iov, r->len);
	return !disk->write_through && disk_file_write_cached(f, offset, r->iov, r->n_iov, r->len);
}

static void raw_flush_queue(struct disk *disk)
{
	disk_aio_go(&raw_of(disk)->aio);
}

static void raw_drain(struct disk *disk)
{
	disk_aio_wait(&raw_of(disk)->aio);
}

static void raw_destroy(struct disk *disk)
{
	struct disk_raw *d = raw_of(disk);
	loop_del(d->loop, d->aio.event_fd);
	disk_aio_fini(&d->aio);
	disk_file_close(&d->file);
	free(d);
}

static const struct disk_ops raw_ops = {
    .submit = raw_submit, .now = raw_now, .flush_queue = raw_flush_queue, .drain = raw_drain, .destroy = raw_destroy};

int disk_raw_create(struct loop *l, const char *path, struct disk_file *f, struct disk **out, struct err *e)
{
	struct disk_raw *d = calloc(1, sizeof(*d));
	if (!d)
		return err_set(e, ENOMEM, "%s: out of memory", path);
	if (f->size < SECTOR) {
		free(d);
		return err_set(e, EINVAL, "%s: is empty (a disk has at least one sector of 512 bytes)", path);
	}
	d->disk = (struct disk){.ops = &raw_ops, .read_only = f->read_only, .can_discard = !f->read_only,
				.size = f->size & ~(u64)(SECTOR - 1), .block_size = f->block_size,
				.discard_align = f->block_size};
	d->loop = l;
	int r = disk_aio_init(&d->aio, raw_settled, d);
	if (r) {
		free(d);
		return err_set(e, -r, "%s: no eventfd: %s", path, strerror(-r));
	}
	r = loop_add(l, d->aio.event_fd, EPOLLIN, raw_ready, d);
	if (r) {
		disk_aio_fini(&d->aio);
		free(d);
		return err_set(e, -r, "%s: cannot watch: %s", path, strerror(-r));
	}
	d->file = *f;
	*out = &d->disk;
	return 0;
}
