/*
 * Reads a file into guest memory, which is lazy: a page may have no memory yet, or have some that this
 * process has not mapped. Touching it here costs a fault either way, and the first kind a page of zeroes that
 * the data then overwrite: ten times the copy. So a big read into pages that have no memory goes through a
 * pipe into the memory's file (splice(2): whole pages are not cleared first, nothing is mapped); one into
 * pages that are there maps them all at once. What was mapped is remembered in a bit for each page.
 */
#ifndef FS_FILL_H
#define FS_FILL_H

#include <sys/uio.h>

#include "base/base.h"

enum { FILL_REGIONS = 8 };

struct fill_region {
	u8 *base;
	u64 size, offset; /* where in fd */
	int fd;           /* ours */
	u64 *mapped;      /* a bit for each page; set by any queue's thread */
	bool no_splice;   /* a file that cannot (hugetlbfs) */
};
struct fill_ram {
	unsigned n;
	struct fill_region region[FILL_REGIONS];
};
struct fill_pipe { /* of one thread */
	bool open;
	int fd[2];
};

/* fd is duplicated. Without memory or descriptors for it the region is left out: reads are slower, no more. */
void fill_add_region(struct fill_ram *ram, void *base, u64 size, int fd, u64 offset);
void fill_drop_regions(struct fill_ram *ram);
void fill_close_pipe(struct fill_pipe *p);

/* preadv(2) of n entries of iov, which may be joined. ram: NULL, no guest's memory. */
ssize_t fill_read(struct fill_ram *ram, struct fill_pipe *p, int fd, struct iovec *iov, unsigned n, off_t at);

#endif
