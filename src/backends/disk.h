/*
 * A disk image as virtio-blk sees it: asynchronous requests on byte ranges. Main thread only, except where
 * said. A request's done is called from the main loop, or from disk_drain, never from within disk_submit.
 */
#ifndef BACKENDS_DISK_H
#define BACKENDS_DISK_H

#include <sys/uio.h>

#include "base/base.h"
#include "base/loop.h"

enum disk_op { DISK_READ, DISK_WRITE, DISK_FLUSH, DISK_DISCARD, DISK_WRITE_ZEROES, DISK_OPS };

struct disk_req {
	enum disk_op op;
	u64 offset, len;   /* READ, WRITE: len is the sum of iov */
	struct iovec *iov; /* consumed: the backend advances it over short transfers */
	unsigned n_iov;
	bool may_unmap;                               /* WRITE_ZEROES: a hole will do */
	void (*done)(struct disk_req *r, int result); /* 0 or -errno */
	struct disk_req *next;                        /* the backend's while in flight */
};

struct disk;
struct disk_ops {
	void (*submit)(struct disk *d, struct disk_req *r); /* range checked */
	void (*flush_queue)(struct disk *d);                /* hand over what submit has gathered */
	void (*drain)(struct disk *d);
	void (*destroy)(struct disk *d);
};
struct disk {
	const struct disk_ops *ops;
	u64 size;       /* bytes */
	u32 block_size; /* physical block, 512 .. 64 KiB */
	bool read_only;
	bool can_discard;
	u64 in_flight;
};

/* Checks the range and access; -EINVAL or -EROFS and no done, or 0 and done follows. Call disk_go after the
 * last of a batch. */
int disk_submit(struct disk *d, struct disk_req *r) __attribute__((warn_unused_result));
void disk_go(struct disk *d);
void disk_drain(struct disk *d);   /* waits until nothing is in flight */
void disk_destroy(struct disk *d); /* drains */

/* A plain file or block device. It stays locked against other users (open file description lock: exclusive
 * when writable) while it is open. On failure -errno, and e says what to do. */
int disk_open_raw(struct loop *l, const char *path, bool read_only, struct disk **out, struct err *e);

#endif
