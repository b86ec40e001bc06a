/*
 * Raw disk images: a file or block device whose bytes are the disk's. Requests go to an io_uring, whose
 * completions wake the main loop by an eventfd. Where io_uring is forbidden (many containers filter it) the
 * same requests are done one by one when the loop comes round: slower, same answers. DOPPEL_NO_URING=1 in the
 * environment asks for that.
 *
 * Order: the disk promises none between requests in flight (Virtio 1.2, 5.2.6), so they run as the kernel
 * likes. FLUSH covers what was completed before it was submitted: fdatasync is enough.
 */
#include <fcntl.h>
#include <liburing.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backends/disk.h"

enum { RING_ENTRIES = 128, SECTOR = 512, PHYSICAL_MAX = 65536, IOV_AT_ONCE = 1024 };

struct disk_raw {
	struct disk disk;
	struct loop *loop;
	int fd;
	int event_fd;
	bool uring;
	struct io_uring ring;
	unsigned in_ring;              /* requests the ring holds, at most RING_ENTRIES */
	struct disk_req *head, **tail; /* waiting for a place in the ring, or for the loop */
};

static void append(struct disk_raw *d, struct disk_req *r)
{
	r->next = NULL;
	*d->tail = r;
	d->tail = &r->next;
}

static struct disk_req *take(struct disk_raw *d)
{
	struct disk_req *r = d->head;
	d->head = r->next;
	if (!d->head)
		d->tail = &d->head;
	return r;
}

static void finish(struct disk_raw *d, struct disk_req *r, int result)
{
	d->disk.in_flight--;
	r->done(r, result);
}

static int falloc_mode(const struct disk_req *r)
{
	bool punch = r->op == DISK_DISCARD || r->may_unmap;
	return (punch ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE) | FALLOC_FL_KEEP_SIZE;
}

/* A short transfer: go on behind it. True when the request is complete. */
static bool advance(struct disk_req *r, u64 n)
{
	r->offset += n;
	r->len -= n;
	while (n && r->n_iov) {
		u64 now = MIN(n, r->iov->iov_len);
		r->iov->iov_base = (u8 *)r->iov->iov_base + now;
		r->iov->iov_len -= now;
		n -= now;
		if (r->iov->iov_len)
			break;
		r->iov++;
		r->n_iov--;
	}
	return r->len == 0;
}

/* Neither punching nor ZERO_RANGE is known everywhere. A discard may be ignored; zeroes have to be written.
 */
static int write_zeroes_slowly(struct disk_raw *d, const struct disk_req *r)
{
	static const u8 zeroes[65536];
	u64 off = r->offset, left = r->len;
	while (left) {
		ssize_t n = pwrite(d->fd, zeroes, MIN(left, sizeof(zeroes)), (off_t)off);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? -errno : -EIO;
		off += (u64)n;
		left -= (u64)n;
	}
	return 0;
}

/* Turns what the kernel answered into the request's fate; true: it has to be submitted again. */
static bool settle(struct disk_raw *d, struct disk_req *r, s64 res)
{
	if (res == -EINTR || res == -EAGAIN)
		return true;
	bool transfer = r->op == DISK_READ || r->op == DISK_WRITE;
	if (transfer && res > 0 && !advance(r, (u64)res))
		return true;
	if (transfer && res == 0 && r->len)
		res = -EIO; /* the file was cut short under us */
	if ((res == -EOPNOTSUPP || res == -EINVAL || res == -ENOSYS) && r->op == DISK_DISCARD)
		res = 0;
	if ((res == -EOPNOTSUPP || res == -EINVAL || res == -ENOSYS) && r->op == DISK_WRITE_ZEROES)
		res = write_zeroes_slowly(d, r);
	finish(d, r, res < 0 ? (int)res : 0);
	return false;
}

static void wake(struct disk_raw *d)
{
	const u64 one = 1;
	if (write(d->event_fd, &one, sizeof(one)) != sizeof(one))
		return; /* full: the loop is awake already */
}

/* ---- by io_uring ---- */
static void prepare(struct disk_raw *d, struct io_uring_sqe *s, struct disk_req *r)
{
	unsigned n = MIN(r->n_iov, (unsigned)IOV_AT_ONCE);
	switch (r->op) {
	case DISK_READ:
		io_uring_prep_readv(s, d->fd, r->iov, n, r->offset);
		break;
	case DISK_WRITE:
		io_uring_prep_writev(s, d->fd, r->iov, n, r->offset);
		break;
	case DISK_FLUSH:
		io_uring_prep_fsync(s, d->fd, IORING_FSYNC_DATASYNC);
		break;
	default:
		io_uring_prep_fallocate(s, d->fd, falloc_mode(r), (off_t)r->offset, (off_t)r->len);
	}
	io_uring_sqe_set_data(s, r);
}

static void fill_ring(struct disk_raw *d)
{
	while (d->head && d->in_ring < RING_ENTRIES) {
		struct io_uring_sqe *s = io_uring_get_sqe(&d->ring);
		if (!s)
			break;
		prepare(d, s, take(d));
		d->in_ring++;
	}
	if (io_uring_submit(&d->ring) < 0)
		wake(d); /* out of some resource: the entries stay queued, the loop tries again */
}

static void reap(struct disk_raw *d)
{
	struct io_uring_cqe *c;
	while (io_uring_peek_cqe(&d->ring, &c) == 0) {
		struct disk_req *r = io_uring_cqe_get_data(c);
		s64 res = c->res;
		io_uring_cqe_seen(&d->ring, c);
		d->in_ring--;
		if (settle(d, r, res))
			append(d, r);
	}
	fill_ring(d);
}

/* ---- without it ---- */
static s64 perform(struct disk_raw *d, struct disk_req *r)
{
	int n = (int)MIN(r->n_iov, (unsigned)IOV_AT_ONCE);
	s64 res = 0;
	switch (r->op) {
	case DISK_READ:
		res = preadv(d->fd, r->iov, n, (off_t)r->offset);
		break;
	case DISK_WRITE:
		res = pwritev(d->fd, r->iov, n, (off_t)r->offset);
		break;
	case DISK_FLUSH:
		res = fdatasync(d->fd);
		break;
	default:
		res = fallocate(d->fd, falloc_mode(r), (off_t)r->offset, (off_t)r->len);
	}
	return res < 0 ? -errno : res;
}

static void perform_all(struct disk_raw *d)
{
	while (d->head) {
		struct disk_req *r = take(d);
		while (settle(d, r, perform(d, r)))
			;
	}
}

/* ---- operations ---- */
static void raw_ready(void *arg, u32 events)
{
	struct disk_raw *d = arg;
	u64 n;
	if (read(d->event_fd, &n, sizeof(n)) != sizeof(n))
		return;
	if (d->uring)
		reap(d);
	else
		perform_all(d);
}

static void raw_submit(struct disk *disk, struct disk_req *r)
{
	append(container_of(disk, struct disk_raw, disk), r);
}

static void raw_flush_queue(struct disk *disk)
{
	struct disk_raw *d = container_of(disk, struct disk_raw, disk);
	if (!d->head)
		return;
	if (d->uring)
		fill_ring(d);
	else
		wake(d);
}

static void raw_drain(struct disk *disk)
{
	struct disk_raw *d = container_of(disk, struct disk_raw, disk);
	if (!d->uring) {
		perform_all(d);
		return;
	}
	if (d->in_ring)
		io_uring_submit_and_wait(&d->ring, 1);
	reap(d);
}

static void raw_destroy(struct disk *disk)
{
	struct disk_raw *d = container_of(disk, struct disk_raw, disk);
	loop_del(d->loop, d->event_fd);
	if (d->uring)
		io_uring_queue_exit(&d->ring);
	close(d->event_fd);
	close(d->fd); /* and with it the lock */
	free(d);
}

static const struct disk_ops raw_ops = {
    .submit = raw_submit, .flush_queue = raw_flush_queue, .drain = raw_drain, .destroy = raw_destroy};

/* ---- opening ---- */
static int lock_image(int fd, const char *path, bool read_only, struct err *e)
{
	struct flock l = {.l_type = read_only ? F_RDLCK : F_WRLCK, .l_whence = SEEK_SET};
	if (fcntl(fd, F_OFD_SETLK, &l) == 0)
		return 0;
	if (errno == EAGAIN || errno == EACCES)
		return err_set(
		    e, EBUSY,
		    "%s: another machine uses this disk (stop it, or attach the disk read-only to both)",
		    path);
	return err_set(e, errno, "%s: cannot lock: %s", path, strerror(errno));
}

static int open_file(const char *path, bool read_only, int *out, struct err *e)
{
	int fd = open(path, (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NONBLOCK);
	if (fd >= 0) {
		fcntl(fd, F_SETFL,
		      0); /* O_NONBLOCK was for opening a FIFO; io_uring would give up instead of waiting */
		*out = fd;
		return 0;
	}
	int n = errno;
	if (n == ENOENT)
		return err_set(
		    e, n, "%s: no such disk image (check the path; `truncate -s 10G %s` makes an empty one)",
		    path, path);
	if (n == EISDIR)
		return err_set(e, n, "%s: is a directory, not a disk image (--share shares folders)", path);
	if ((n == EACCES || n == EROFS || n == EPERM) && !read_only)
		return err_set(e, n, "%s: cannot be written: %s (add ,ro to attach it read-only)", path,
			       strerror(n));
	return err_set(e, n, "%s: cannot open: %s", path, strerror(n));
}

static int measure(struct disk_raw *d, const char *path, struct err *e)
{
	struct stat st;
	if (fstat(d->fd, &st))
		return err_set(e, errno, "%s: %s", path, strerror(errno));
	u64 size = (u64)st.st_size, block = (u64)st.st_blksize;
	if (S_ISBLK(st.st_mode)) {
		unsigned physical = SECTOR;
		if (ioctl(d->fd, BLKGETSIZE64, &size))
			return err_set(e, errno, "%s: cannot tell its size: %s", path, strerror(errno));
		if (ioctl(d->fd, BLKPBSZGET, &physical) == 0)
			block = physical;
	} else if (S_ISDIR(st.st_mode)) {
		return err_set(e, EISDIR, "%s: is a directory, not a disk image (--share shares folders)",
			       path);
	} else if (!S_ISREG(st.st_mode)) {
		return err_set(e, EINVAL, "%s: neither a file nor a block device", path);
	}
	if (size < SECTOR)
		return err_set(e, EINVAL, "%s: is empty (a disk has at least one sector of 512 bytes)", path);
	bool sane = block >= SECTOR && block <= PHYSICAL_MAX && !(block & (block - 1));
	d->disk.size = size & ~(u64)(SECTOR - 1);
	d->disk.block_size = sane ? (u32)block : 4096;
	return 0;
}

static void open_ring(struct disk_raw *d)
{
	if (getenv("DOPPEL_NO_URING") || io_uring_queue_init(RING_ENTRIES, &d->ring, 0))
		return;
	if (io_uring_register_eventfd(&d->ring, d->event_fd)) {
		io_uring_queue_exit(&d->ring);
		return;
	}
	d->uring = true;
}

int disk_open_raw(struct loop *l, const char *path, bool read_only, struct disk **out, struct err *e)
{
	struct disk_raw *d = calloc(1, sizeof(*d));
	if (!d)
		return err_set(e, ENOMEM, "%s: out of memory", path);
	d->disk = (struct disk){.ops = &raw_ops, .read_only = read_only, .can_discard = !read_only};
	d->loop = l;
	d->tail = &d->head;
	int r = open_file(path, read_only, &d->fd, e);
	if (r)
		goto fail;
	r = measure(d, path, e);
	if (!r)
		r = lock_image(d->fd, path, read_only, e);
	if (r)
		goto fail_fd;
	d->event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (d->event_fd < 0) {
		r = err_set(e, errno, "%s: no eventfd: %s", path, strerror(errno));
		goto fail_fd;
	}
	open_ring(d);
	r = loop_add(l, d->event_fd, EPOLLIN, raw_ready, d);
	if (r) {
		err_set(e, -r, "%s: cannot watch: %s", path, strerror(-r));
		goto fail_ring;
	}
	*out = &d->disk;
	return 0;
fail_ring:
	if (d->uring)
		io_uring_queue_exit(&d->ring);
	close(d->event_fd);
fail_fd:
	close(d->fd);
fail:
	free(d);
	return r;
}
