/*
 * A disk as virtio-blk sees it: asynchronous requests on byte ranges. Main thread only, except where said. A
 * request's done is called from the main loop, or from disk_drain, never from within disk_submit.
 *
 * disk_open.c decides what a file is and stacks the parts; disk_raw.c and qcow2_disk.c are the formats,
 * disk_limit.c the I/O limits, disk_file.c the host's files and their locks, disk_aio.c the io_uring below.
 */
#ifndef BACKENDS_DISK_H
#define BACKENDS_DISK_H

#include <sys/uio.h>

#include "base/base.h"
#include "base/loop.h"

enum disk_op { DISK_READ, DISK_WRITE, DISK_FLUSH, DISK_DISCARD, DISK_WRITE_ZEROES, DISK_OPS };

struct disk_req {
	enum disk_op op;
	u64 offset, len;   /* READ, WRITE: len is the sum of iov. The backend changes both */
	struct iovec *iov; /* consumed: the backend advances it over short transfers */
	unsigned n_iov;
	bool may_unmap;                               /* WRITE_ZEROES: a hole will do */
	void (*done)(struct disk_req *r, int result); /* 0 or -errno */
	/* the backend's while in flight */
	struct disk_req *next;
	int result;
	int fd, other_fd;  /* disk_aio: where; and where else, when the first cannot (alignment). -1: nowhere */
	bool zero_at_end;  /* disk_aio: reading behind the end of the file gives zeroes */
};

struct disk;
struct disk_ops {
	void (*submit)(struct disk *d, struct disk_req *r); /* range checked */
	/* A transfer that the page cache takes or gives at once: true; false: it has to be submitted (a write may have been done in
	 * part). May be NULL. */
	bool (*now)(struct disk *d, const struct disk_req *r, u64 offset);
	void (*flush_queue)(struct disk *d);                /* hand over what submit has gathered */
	void (*drain)(struct disk *d);
	void (*destroy)(struct disk *d);
};
struct disk_limit;
struct disk {
	const struct disk_ops *ops;
	u64 base;       /* where the disk begins in the image: a minidisk's offset */
	u64 size;       /* bytes */
	u32 block_size; /* physical block, 512 .. 64 KiB */
	u32 discard_align; /* what is smaller is not given back */
	bool read_only;
	bool can_discard;
	bool write_through;       /* a completed write is on stable storage: the guest needs no flush */
	struct disk_limit *limit; /* NULL: none */
	u64 in_flight;            /* in the backend; those that a limit holds back are not */
};

/* Checks the range and access; -EINVAL or -EROFS and no done, or 0 and done follows. Call disk_go after the
 * last of a batch. */
int disk_submit(struct disk *d, struct disk_req *r) __attribute__((warn_unused_result));
/* Instead of disk_submit, for a transfer that needs no waiting: true: it is done, successfully, and no done
 * follows; false: submit it. */
bool disk_now(struct disk *d, const struct disk_req *r);
void disk_go(struct disk *d);
void disk_drain(struct disk *d);   /* waits until nothing is in flight; limits do not hold it up */
void disk_destroy(struct disk *d); /* drains */

enum disk_format { DISK_FORMAT_BY_NAME, DISK_FORMAT_RAW, DISK_FORMAT_QCOW2 };
enum disk_cache {
	DISK_CACHE_WRITEBACK,  /* the host's page cache; a flush is a flush */
	DISK_CACHE_NONE,       /* O_DIRECT; a flush is a flush */
	DISK_CACHE_DIRECTSYNC, /* O_DIRECT; every write is stable when it completes */
	DISK_CACHE_UNSAFE,     /* a flush does nothing */
};
struct disk_config {
	const char *path;
	bool read_only;
	bool overlay; /* writes go to a temporary file that vanishes with the disk; the image stays as it is */
	enum disk_format format;
	enum disk_cache cache;
	u64 offset, size; /* minidisk; size 0: to the end */
	u64 iops, bps;    /* 0: unlimited */
	bool no_discard;
};
/* The image stays locked against other users while it is open (disk_file.h). On failure -errno, and e says
 * what to do. */
int disk_open(struct loop *l, const struct disk_config *c, struct disk **out, struct err *e);
/* Raw, whole, write-back. */
int disk_open_raw(struct loop *l, const char *path, bool read_only, struct disk **out, struct err *e);

#endif
