#include "backends/disk_aio.h"

#include <errno.h>
#include <linux/falloc.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { IOV_AT_ONCE = 1024 };

static void append(struct disk_aio *a, struct disk_req *r)
{
	r->next = NULL;
	*a->tail = r;
	a->tail = &r->next;
}

static struct disk_req *take(struct disk_aio *a)
{
	struct disk_req *r = a->head;
	a->head = r->next;
	if (!a->head)
		a->tail = &a->head;
	return r;
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

static void fill_zero(struct disk_req *r)
{
	for (unsigned i = 0; i < r->n_iov; i++)
		memset(r->iov[i].iov_base, 0, r->iov[i].iov_len);
}

/* Turns what the kernel answered into the request's fate; true: it has to be submitted again. */
static bool settle(struct disk_aio *a, struct disk_req *r, s64 res)
{
	bool transfer = r->op == DISK_READ || r->op == DISK_WRITE;
	if (res == -EINTR || res == -EAGAIN)
		return true;
	if (res == -EINVAL && transfer && r->other_fd >= 0) {
		r->fd = r->other_fd;
		r->other_fd = -1;
		return true;
	}
	if (transfer && res > 0 && !advance(r, (u64)res))
		return true;
	if (transfer && res == 0 && r->len) {
		if (r->op == DISK_READ && r->zero_at_end)
			fill_zero(r);
		else
			res = -EIO; /* the file was cut short under us */
	}
	a->in_flight--;
	a->settled(a->arg, r, res < 0 ? (int)res : 0);
	return false;
}

static void wake(struct disk_aio *a)
{
	const u64 one = 1;
	if (write(a->event_fd, &one, sizeof(one)) != sizeof(one))
		return; /* full: awake already */
}

/* ---- by io_uring ---- */
static void prepare(struct io_uring_sqe *s, struct disk_req *r)
{
	unsigned n = MIN(r->n_iov, (unsigned)IOV_AT_ONCE);
	switch (r->op) {
	case DISK_READ:
		io_uring_prep_readv(s, r->fd, r->iov, n, r->offset);
		break;
	case DISK_WRITE:
		io_uring_prep_writev(s, r->fd, r->iov, n, r->offset);
		break;
	case DISK_FLUSH:
		if (r->fd < 0)
			io_uring_prep_nop(s);
		else
			io_uring_prep_fsync(s, r->fd, IORING_FSYNC_DATASYNC);
		break;
	default:
		io_uring_prep_fallocate(s, r->fd, falloc_mode(r), (off_t)r->offset, (off_t)r->len);
	}
	io_uring_sqe_set_data(s, r);
}

static void fill_ring(struct disk_aio *a)
{
	while (a->head && a->in_ring < DISK_AIO_DEPTH) {
		struct io_uring_sqe *s = io_uring_get_sqe(&a->ring);
		if (!s)
			break;
		prepare(s, take(a));
		a->in_ring++;
	}
	if (io_uring_submit(&a->ring) < 0)
		wake(a); /* out of some resource: the entries stay queued, the next reap tries again */
}

static void reap_ring(struct disk_aio *a)
{
	struct io_uring_cqe *c;
	while (io_uring_peek_cqe(&a->ring, &c) == 0) {
		struct disk_req *r = io_uring_cqe_get_data(c);
		s64 res = c->res;
		io_uring_cqe_seen(&a->ring, c);
		a->in_ring--;
		if (settle(a, r, res))
			append(a, r);
	}
	fill_ring(a);
}

/* ---- without it ---- */
static s64 perform(struct disk_req *r)
{
	int n = (int)MIN(r->n_iov, (unsigned)IOV_AT_ONCE);
	s64 res = 0;
	switch (r->op) {
	case DISK_READ:
		res = preadv(r->fd, r->iov, n, (off_t)r->offset);
		break;
	case DISK_WRITE:
		res = pwritev(r->fd, r->iov, n, (off_t)r->offset);
		break;
	case DISK_FLUSH:
		res = r->fd < 0 ? 0 : fdatasync(r->fd);
		break;
	default:
		res = fallocate(r->fd, falloc_mode(r), (off_t)r->offset, (off_t)r->len);
	}
	return res < 0 ? -errno : res;
}

static void perform_all(struct disk_aio *a)
{
	while (a->head) {
		struct disk_req *r = take(a);
		while (settle(a, r, perform(r)))
			;
	}
}

/* ---- operations ---- */
void disk_aio_submit(struct disk_aio *a, struct disk_req *r)
{
	a->in_flight++;
	append(a, r);
}

void disk_aio_go(struct disk_aio *a)
{
	if (!a->head)
		return;
	if (a->uring)
		fill_ring(a);
	else
		wake(a);
}

void disk_aio_reap(struct disk_aio *a)
{
	u64 n;
	if (read(a->event_fd, &n, sizeof(n)) < 0 && errno != EAGAIN)
		return;
	if (a->uring)
		reap_ring(a);
	else
		perform_all(a);
}

void disk_aio_wait(struct disk_aio *a)
{
	if (!a->in_flight)
		return;
	if (!a->uring) {
		perform_all(a);
		return;
	}
	fill_ring(a);
	if (a->in_ring)
		io_uring_submit_and_wait(&a->ring, 1);
	reap_ring(a);
}

/* What is done through a ring no seccomp filter sees: it is bound to these operations for good. */
static int restrict_ring(struct io_uring *ring)
{
	static const u8 ops[] = {IORING_OP_READV, IORING_OP_WRITEV, IORING_OP_FSYNC, IORING_OP_FALLOCATE, IORING_OP_NOP};
	struct io_uring_restriction r[ARRAY_SIZE(ops)];
	memset(r, 0, sizeof(r));
	for (size_t i = 0; i < ARRAY_SIZE(ops); i++) {
		r[i].opcode = IORING_RESTRICTION_SQE_OP;
		r[i].sqe_op = ops[i];
	}
	/* Debian 12's liburing declares these two and has them not */
	long ret = syscall(SYS_io_uring_register, ring->ring_fd, IORING_REGISTER_RESTRICTIONS, r, ARRAY_SIZE(r));
	return ret < 0 ? -errno : (int)syscall(SYS_io_uring_register, ring->ring_fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
}

static void open_ring(struct disk_aio *a)
{
	if (getenv("DOPPEL_NO_URING") || io_uring_queue_init(DISK_AIO_DEPTH, &a->ring, IORING_SETUP_R_DISABLED))
		return;
	if (io_uring_register_eventfd(&a->ring, a->event_fd) || restrict_ring(&a->ring)) {
		io_uring_queue_exit(&a->ring);
		return;
	}
	a->uring = true;
}

int disk_aio_init(struct disk_aio *a, void (*settled)(void *arg, struct disk_req *r, int result), void *arg)
{
	*a = (struct disk_aio){.event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), .settled = settled, .arg = arg};
	if (a->event_fd < 0)
		return -errno;
	a->tail = &a->head;
	open_ring(a);
	return 0;
}

void disk_aio_fini(struct disk_aio *a)
{
	if (a->uring)
		io_uring_queue_exit(&a->ring);
	if (a->event_fd >= 0)
		close(a->event_fd);
	a->event_fd = -1;
}
