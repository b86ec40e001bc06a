/*
 * The host's file or block device under a disk image: opening, locking, measuring.
 *
 * Locks are open file description locks, gone with the process however it ends. Two kinds, both taken:
 *   - ranges of the image, from byte 2^62 on: exclusive for writers, shared for readers. Minidisks of one file
 *     lock only their part, so that many may be written at once, and none that overlap;
 *   - the bytes that QEMU and qemu-img lock (100 + permission held, 200 + permission not granted to others), so
 *     that they refuse to write what a VM uses, and the other way round.
 */
#ifndef BACKENDS_DISK_FILE_H
#define BACKENDS_DISK_FILE_H

#include <sys/types.h>

#include "backends/disk.h"

struct disk_file {
	int fd;        /* -1: not open */
	int direct_fd; /* the same file with O_DIRECT; -1: none */
	u32 direct_align; /* 0: never use it */
	u64 size;
	u32 block_size;
	bool read_only, device, unsafe;
	bool sync_failed; /* the kernel has lost writes: no flush succeeds any more */
	dev_t dev;
	ino_t ino;
};

struct disk_file_options {
	const char *path;
	bool read_only;
	enum disk_cache cache;
	u64 lock_offset, lock_size; /* size 0: all of it */
};
int disk_file_open(struct disk_file *f, const struct disk_file_options *o, struct err *e);
/* An unlinked file in $TMPDIR or /var/tmp, in which flushes do nothing. */
int disk_file_temporary(struct disk_file *f, struct err *e);
void disk_file_close(struct disk_file *f);
/* Sets r->fd and other_fd: unbuffered where the file is, and the request is aligned. */
void disk_file_aim(const struct disk_file *f, struct disk_req *r);

/* From the page cache, all of it, or not at all. */
bool disk_file_read_cached(const struct disk_file *f, u64 off, const struct iovec *iov, unsigned n, u64 len);

/* Into the page cache. False: nothing, or a part of it. */
bool disk_file_write_cached(const struct disk_file *f, u64 off, const struct iovec *iov, unsigned n, u64 len);

/* Whole transfers: 0 or -errno. Reading behind the end gives zeroes. */
int disk_file_read(const struct disk_file *f, u64 off, void *p, u64 n);
int disk_file_write(const struct disk_file *f, u64 off, const void *p, u64 n);
int disk_file_sync(struct disk_file *f);

#endif
