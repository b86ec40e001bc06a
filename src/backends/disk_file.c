#include "backends/disk_file.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

/* What is written at once the page cache keeps in one piece, a large folio. One of a MiB is dear to allocate, and ext4 walks through
 * the heads of all its blocks at each later write into it (Linux 6.18; figures are in docs/io.md). */
enum { WRITE_PIECE = 256 << 10 };
enum { SECTOR = 512, PHYSICAL_MAX = 65536, DIRECT_ALIGN = 4096, LOCK_TRIES = 20, LOCK_WAIT_US = 20000 };

/* ---- locks ---- */
#define RANGE_BASE (1ull << 62)
enum { QEMU_HELD = 100, QEMU_REFUSED = 200 };
enum { PERM_READ = 0, PERM_WRITE = 1, PERM_RESIZE = 3 }; /* numbers of QEMU's permissions */

static const char in_use[] = "%s: another machine uses this disk (stop it, or attach the disk read-only to both)";

static int lock_range(int fd, short type, u64 start, u64 n)
{
	struct flock l = {.l_type = type, .l_whence = SEEK_SET, .l_start = (off_t)start, .l_len = (off_t)n};
	return fcntl(fd, F_OFD_SETLK, &l) ? -errno : 0;
}

/* Would an exclusive lock of this byte find another owner? */
static bool held_elsewhere(int fd, u64 byte)
{
	struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = (off_t)byte, .l_len = 1};
	return !fcntl(fd, F_OFD_GETLK, &l) && l.l_type != F_UNLCK;
}

/* Shared locks of the permission bytes first, then a look whether others hold what excludes ours. */
static int lock_as_qemu(const struct disk_file *f, bool whole)
{
	int r = lock_range(f->fd, F_RDLCK, QEMU_HELD + PERM_READ, 1);
	if (!r && !f->read_only)
		r = lock_range(f->fd, F_RDLCK, QEMU_HELD + PERM_WRITE, 1);
	if (!r && whole) {
		r = lock_range(f->fd, F_RDLCK, QEMU_REFUSED + PERM_WRITE, 1);
		if (!r)
			r = lock_range(f->fd, F_RDLCK, QEMU_REFUSED + PERM_RESIZE, 1);
	}
	if (r)
		return r;
	if (held_elsewhere(f->fd, QEMU_REFUSED + PERM_READ))
		return -EAGAIN;
	if (!f->read_only && held_elsewhere(f->fd, QEMU_REFUSED + PERM_WRITE))
		return -EAGAIN;
	if (whole && (held_elsewhere(f->fd, QEMU_HELD + PERM_WRITE) || held_elsewhere(f->fd, QEMU_HELD + PERM_RESIZE)))
		return -EAGAIN;
	return 0;
}

static int try_lock(const struct disk_file *f, const struct disk_file_options *o)
{
	u64 n = o->lock_size; /* 0: to the end, however long the file gets */
	if (o->lock_offset >= RANGE_BASE || n >= RANGE_BASE - o->lock_offset)
		return -EINVAL;
	int r = lock_range(f->fd, f->read_only ? F_RDLCK : F_WRLCK, RANGE_BASE + o->lock_offset, n);
	return r ? r : lock_as_qemu(f, !o->lock_offset && !n);
}

/* The io_uring of a process that was just killed lets go of its files a little later than the process. */
static int lock_image(const struct disk_file *f, const struct disk_file_options *o, struct err *e)
{
	int r = try_lock(f, o);
	for (int i = 0; i < LOCK_TRIES && (r == -EAGAIN || r == -EACCES); i++) {
		usleep(LOCK_WAIT_US);
		r = try_lock(f, o);
	}
	if (r == -EAGAIN || r == -EACCES)
		return err_set(e, EBUSY, in_use, o->path);
	return r ? err_set(e, -r, "%s: cannot lock: %s", o->path, strerror(-r)) : 0;
}

/* ---- opening ---- */
static int open_fd(const struct disk_file_options *o, struct disk_file *f, struct err *e)
{
	int sync = o->cache == DISK_CACHE_DIRECTSYNC ? O_DSYNC : 0;
	f->fd = open(o->path, (o->read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NONBLOCK | sync);
	if (f->fd >= 0) {
		/* O_NONBLOCK was for opening a FIFO; io_uring would give up instead of waiting */
		fcntl(f->fd, F_SETFL, 0);
		return 0;
	}
	int n = errno;
	if (n == ENOENT)
		return err_set(
		    e, n, "%s: no such disk image (check the path; `truncate -s 10G %s` makes an empty one)",
		    o->path, o->path);
	if (n == EISDIR)
		return err_set(e, n, "%s: is a directory, not a disk image (--share shares folders)", o->path);
	if ((n == EACCES || n == EROFS || n == EPERM) && !o->read_only)
		return err_set(e, n, "%s: cannot be written: %s (add ,ro to attach it read-only)", o->path,
			       strerror(n));
	return err_set(e, n, "%s: cannot open: %s", o->path, strerror(n));
}

static int measure(struct disk_file *f, const char *path, struct err *e)
{
	struct stat st;
	if (fstat(f->fd, &st))
		return err_set(e, errno, "%s: %s", path, strerror(errno));
	u64 size = (u64)st.st_size, block = (u64)st.st_blksize;
	f->dev = st.st_dev;
	f->ino = st.st_ino;
	if (S_ISBLK(st.st_mode)) {
		unsigned physical = SECTOR;
		f->device = true;
		if (ioctl(f->fd, BLKGETSIZE64, &size))
			return err_set(e, errno, "%s: cannot tell its size: %s", path, strerror(errno));
		if (ioctl(f->fd, BLKPBSZGET, &physical) == 0)
			block = physical;
	} else if (S_ISDIR(st.st_mode)) {
		return err_set(e, EISDIR, "%s: is a directory, not a disk image (--share shares folders)",
			       path);
	} else if (!S_ISREG(st.st_mode)) {
		return err_set(e, EINVAL, "%s: neither a file nor a block device", path);
	}
	bool sane = block >= SECTOR && block <= PHYSICAL_MAX && !(block & (block - 1));
	f->size = size;
	f->block_size = sane ? (u32)block : 4096;
	return 0;
}

/* The same file once more, unbuffered. The kernel keeps both views of a page equal, as long as no page is
 * written both ways at once; qcow2_image.c sees to that. */
static int open_direct(const struct disk_file_options *o, struct disk_file *f, struct err *e)
{
	char path[40];
	int sync = o->cache == DISK_CACHE_DIRECTSYNC ? O_DSYNC : 0;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", f->fd);
	f->direct_align = DIRECT_ALIGN;
	f->direct_fd = open(path, (o->read_only ? O_RDONLY : O_RDWR) | O_DIRECT | O_CLOEXEC | sync);
	if (f->direct_fd >= 0)
		return 0;
	return err_set(e, errno, "%s: its file system cannot do without the page cache: %s (use cache=writeback)",
		       o->path, strerror(errno));
}

int disk_file_open(struct disk_file *f, const struct disk_file_options *o, struct err *e)
{
	*f = (struct disk_file){.fd = -1, .direct_fd = -1, .read_only = o->read_only,
				.unsafe = o->cache == DISK_CACHE_UNSAFE};
	int r = open_fd(o, f, e);
	if (!r)
		r = measure(f, o->path, e);
	if (!r)
		r = lock_image(f, o, e);
	if (!r && (o->cache == DISK_CACHE_NONE || o->cache == DISK_CACHE_DIRECTSYNC))
		r = open_direct(o, f, e);
	if (r)
		disk_file_close(f);
	return r;
}

int disk_file_temporary(struct disk_file *f, struct err *e)
{
	const char *dir = getenv("TMPDIR");
	char path[4096];
	if (!dir || !*dir)
		dir = "/var/tmp";
	*f = (struct disk_file){.direct_fd = -1, .block_size = 4096, .unsafe = true};
	f->fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC | O_EXCL, 0600);
	if (f->fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR || errno == ENOENT) &&
	    snprintf(path, sizeof(path), "%s/doppel-overlay-XXXXXX", dir) < (int)sizeof(path)) {
		f->fd = mkostemp(path, O_CLOEXEC);
		if (f->fd >= 0)
			unlink(path);
	}
	return f->fd < 0 ? err_set(e, errno, "%s: no temporary file for the overlay: %s (set TMPDIR)", dir,
				   strerror(errno))
			 : 0;
}

void disk_file_close(struct disk_file *f)
{
	if (f->direct_fd >= 0)
		close(f->direct_fd);
	if (f->fd >= 0) {
		lock_range(f->fd, F_UNLCK, 0, 0); /* an io_uring may hold the file a little longer than we do */
		close(f->fd);
	}
	f->fd = f->direct_fd = -1;
}

/* ---- transfers ---- */
static bool aligned(const struct disk_file *f, const struct disk_req *r)
{
	u64 bits = r->offset | r->len;
	for (unsigned i = 0; i < r->n_iov; i++)
		bits |= (uintptr_t)r->iov[i].iov_base | r->iov[i].iov_len;
	return !(bits & (f->direct_align - 1));
}

void disk_file_aim(const struct disk_file *f, struct disk_req *r)
{
	bool transfer = r->op == DISK_READ || r->op == DISK_WRITE;
	r->fd = f->fd;
	r->other_fd = -1;
	if (transfer && f->direct_fd >= 0 && f->direct_align && aligned(f, r)) {
		r->fd = f->direct_fd;
		r->other_fd = f->fd;
	}
}

bool disk_file_read_cached(const struct disk_file *f, u64 off, const struct iovec *iov, unsigned n, u64 len)
{
	if (f->direct_fd >= 0)
		return false;
	return preadv2(f->fd, iov, (int)n, (off_t)off, RWF_NOWAIT) == (ssize_t)len;
}

bool disk_file_write_cached(const struct disk_file *f, u64 off, const struct iovec *iov, unsigned n, u64 len)
{
	u64 skip = 0; /* of *iov: done */

	if (f->direct_fd >= 0)
		return false;
	if (len <= WRITE_PIECE - off % WRITE_PIECE)
		return pwritev(f->fd, iov, (int)n, (off_t)off) == (ssize_t)len;
	while (len) {
		u64 want = MIN(len, WRITE_PIECE - off % WRITE_PIECE), have = 0;
		struct iovec part[WRITE_PIECE / 4096 + 1];
		unsigned k = 0;

		for (; have < want && k < ARRAY_SIZE(part); k++) {
			part[k] = (struct iovec){(u8 *)iov->iov_base + skip, MIN(iov->iov_len - skip, want - have)};
			have += part[k].iov_len;
			skip += part[k].iov_len;
			if (skip == iov->iov_len) {
				skip = 0;
				iov++;
			}
		}
		if (pwritev(f->fd, part, (int)k, (off_t)off) != (ssize_t)have)
			return false;
		off += have;
		len -= have;
	}
	return true;
}

int disk_file_read(const struct disk_file *f, u64 off, void *p, u64 n)
{
	while (n) {
		ssize_t got = pread(f->fd, p, n, (off_t)off);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -errno;
		if (!got) {
			memset(p, 0, n);
			return 0;
		}
		off += (u64)got;
		n -= (u64)got;
		p = (u8 *)p + got;
	}
	return 0;
}

int disk_file_write(const struct disk_file *f, u64 off, const void *p, u64 n)
{
	while (n) {
		ssize_t put = pwrite(f->fd, p, n, (off_t)off);
		if (put < 0 && errno == EINTR)
			continue;
		if (put <= 0)
			return put ? -errno : -EIO;
		off += (u64)put;
		n -= (u64)put;
		p = (const u8 *)p + put;
	}
	return 0;
}

int disk_file_sync(struct disk_file *f)
{
	if (f->unsafe)
		return 0;
	if (f->sync_failed)
		return -EIO;
	if (!fdatasync(f->fd))
		return 0;
	f->sync_failed = true; /* the kernel reports a lost page once, and then forgets it */
	return -errno;
}
