/*
 * Requests on files, by io_uring where that is allowed, else one by one: slower, same answers. Belongs to one
 * thread. DOPPEL_NO_URING=1 in the environment asks for the second way.
 */
#ifndef BACKENDS_DISK_AIO_H
#define BACKENDS_DISK_AIO_H

#include <liburing.h>

#include "backends/disk.h"

enum { DISK_AIO_DEPTH = 128 };

struct disk_aio {
	int event_fd; /* readable: call disk_aio_reap */
	bool uring;
	struct io_uring ring;
	unsigned in_ring;              /* at most DISK_AIO_DEPTH */
	unsigned in_flight;            /* in the ring, or waiting for it */
	struct disk_req *head, **tail; /* waiting for a place in the ring, or for the next reap */
	void (*settled)(void *arg, struct disk_req *r, int result);
	void *arg;
};

/* settled is called from reap and wait only: 0, or -errno; transfers are whole. */
int disk_aio_init(struct disk_aio *a, void (*settled)(void *arg, struct disk_req *r, int result), void *arg);
void disk_aio_fini(struct disk_aio *a); /* nothing in flight */
/* r->op, offset, len, iov and fd say what; a FLUSH of fd -1 is only an answer in due course. */
void disk_aio_submit(struct disk_aio *a, struct disk_req *r);
void disk_aio_go(struct disk_aio *a);
void disk_aio_reap(struct disk_aio *a);
void disk_aio_wait(struct disk_aio *a); /* until at least one has settled, if any is in flight */

#endif
