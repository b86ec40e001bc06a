/*
 * The disk on a chain of qcow2 images. A thread of its own owns the images: it takes requests from the main
 * thread, looks up and changes tables with plain calls, and moves guest data by disk_aio, so that many transfers
 * are under way at once and the main loop never waits for a disk. Finished requests go back by an eventfd.
 *
 * What needs no waiting the main thread does itself, if it gets the images' lock at once: reads of what is in memory,
 * writes to clusters that are there. A hand-over to the thread and back costs several times as much as the copy.
 *
 * FLUSH covers the requests completed before it was submitted. With changed tables it is a commit; without, a
 * sync among the other transfers.
 */
#include "backends/qcow2_disk.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "backends/disk_aio.h"
#include "backends/qcow2_int.h"

enum { PARTS_MAX = 512, AT_ONCE_MAX = 2 << 20 };

struct queue {
	struct disk_req *head, **tail;
};

struct qcow2_disk {
	struct disk disk;
	struct loop *loop;
	struct qcow2_image *image;
	pthread_t thread;
	int in_fd, out_fd;
	pthread_mutex_t lock;
	struct queue in, out; /* under lock */
	bool quit;
	pthread_mutex_t images; /* their owner for the moment: the thread, or a main thread that reads */
	struct queue gathered; /* main thread: submitted, not yet handed over */
	/* the thread's */
	struct disk_aio aio;
	struct queue settled; /* all transfers done */
	unsigned parts;
};

/* One request under way. */
struct work {
	struct qcow2_disk *d;
	struct disk_req *r;
	unsigned pending;
	int result;
};
/* One transfer of a request. */
struct part {
	struct disk_req r;
	struct work *w;
	struct disk_file *file;
	struct iovec iov[];
};

static void queue_init(struct queue *q)
{
	q->head = NULL;
	q->tail = &q->head;
}

static void queue_put(struct queue *q, struct disk_req *r)
{
	r->next = NULL;
	*q->tail = r;
	q->tail = &r->next;
}

static struct disk_req *queue_take_all(struct queue *q)
{
	struct disk_req *r = q->head;
	queue_init(q);
	return r;
}

static void ring_bell(int fd)
{
	const u64 one = 1;
	if (write(fd, &one, sizeof(one)) != sizeof(one))
		return; /* full: awake already */
}

static void silence(int fd)
{
	u64 n;
	if (read(fd, &n, sizeof(n)) != sizeof(n))
		return;
}

/* ---- the thread: transfers ---- */
static void put_work(struct work *w)
{
	if (--w->pending)
		return;
	w->r->result = w->result;
	queue_put(&w->d->settled, w->r);
	free(w);
}

static void part_settled(void *arg, struct disk_req *r, int result)
{
	struct part *p = container_of(r, struct part, r);
	if (result && r->op == DISK_FLUSH)
		p->file->sync_failed = true;
	if (result && !p->w->result)
		p->w->result = result;
	p->w->d->parts--;
	put_work(p->w);
	free(p);
}

/* Through the page cache a small transfer is a copy, done sooner than handed to the ring. -EAGAIN: it is not. */
static int at_once(const struct disk_req *r, enum disk_op op, struct qcow2_image *q, u64 at, u64 host, u64 len)
{
	if (!len || len > AT_ONCE_MAX || q->file.direct_fd >= 0)
		return -EAGAIN;
	struct iovec iov[r->n_iov + 1];
	unsigned n = qcow2_slice(r->iov, r->n_iov, at, len, iov);
	if (op == DISK_WRITE)
		return qcow2_write_vec(q, host, iov, n, len);
	return disk_file_read_cached(&q->file, host, iov, n, len) ? 0 : -EAGAIN;
}

static int start_part(struct work *w, enum disk_op op, struct qcow2_image *q, u64 at, u64 host, u64 len)
{
	struct qcow2_disk *d = w->d;
	int ret = at_once(w->r, op, q, at, host, len);
	if (ret != -EAGAIN)
		return ret;
	while (d->parts >= PARTS_MAX)
		disk_aio_wait(&d->aio);
	struct part *p = malloc(sizeof(*p) + w->r->n_iov * sizeof(p->iov[0]));
	if (!p)
		return -ENOMEM;
	*p = (struct part){.r = {.op = op, .offset = host, .len = len, .iov = p->iov}, .w = w, .file = &q->file};
	if (len)
		p->r.n_iov = qcow2_slice(w->r->iov, w->r->n_iov, at, len, p->iov);
	disk_file_aim(&q->file, &p->r);
	p->r.zero_at_end = !q->raw;
	if (op == DISK_FLUSH && q->file.unsafe)
		p->r.fd = -1;
	w->pending++;
	d->parts++;
	disk_aio_submit(&d->aio, &p->r);
	return 0;
}

static void quiesce(void *arg)
{
	struct qcow2_disk *d = arg;
	while (d->aio.in_flight)
		disk_aio_wait(&d->aio);
}

/* Copies one cluster's bytes, or zeroes (from NULL), to [at, at + len) of the request. */
static void give(const struct disk_req *r, u64 at, u64 len, const u8 *from)
{
	for (unsigned i = 0; i < r->n_iov && len; i++) {
		u64 have = r->iov[i].iov_len;
		if (at >= have) {
			at -= have;
			continue;
		}
		u64 now = MIN(have - at, len);
		u8 *to = (u8 *)r->iov[i].iov_base + at;
		if (from) {
			memcpy(to, from, now);
			from += now;
		} else {
			memset(to, 0, now);
		}
		len -= now;
		at = 0;
	}
}

/* ---- the thread: requests ---- */
static int do_read(struct work *w)
{
	const struct disk_req *r = w->r;
	int ret = 0;
	for (u64 at = 0; at < r->len && !ret;) {
		struct qcow2_source s;
		const u8 *data = NULL;
		ret = qcow2_find(w->d->image, r->offset + at, r->len - at, &s);
		if (ret)
			break;
		if (s.kind == QCOW2_EXT_DATA) {
			ret = start_part(w, DISK_READ, s.image, at, s.host, s.len);
		} else if (s.kind == QCOW2_EXT_ZERO) {
			give(r, at, s.len, NULL);
		} else {
			ret = qcow2_unpack(s.image, s.entry, &data);
			if (!ret)
				give(r, at, s.len, data + qcow2_in_cluster(s.image, s.off));
		}
		at += s.len;
	}
	return ret;
}

static int write_new(struct work *w, u64 at, u64 len, u64 *done)
{
	const struct disk_req *r = w->r;
	struct iovec iov[r->n_iov + 1];
	unsigned n = qcow2_slice(r->iov, r->n_iov, at, len, iov);
	return qcow2_write_new(w->d->image, r->offset + at, len, iov, n, done);
}

static int do_write(struct work *w)
{
	struct qcow2_image *q = w->d->image;
	const struct disk_req *r = w->r;
	int ret = q->broken ? -EIO : 0;
	for (u64 at = 0; at < r->len && !ret;) {
		struct qcow2_extent x;
		u64 n = 0;
		ret = qcow2_map(q, r->offset + at, r->len - at, &x);
		if (ret)
			break;
		if (x.kind != QCOW2_EXT_DATA || !x.in_place) {
			ret = write_new(w, at, r->len - at, &n);
		} else if (qcow2_is_metadata(q, x.host, x.len)) {
			ret = qcow2_damaged(q, "an entry points at a table");
		} else {
			n = x.len;
			ret = start_part(w, DISK_WRITE, q, at, x.host, n);
		}
		at += n;
	}
	return ret;
}

static int do_flush(struct work *w)
{
	struct qcow2_image *q = w->d->image;
	if (!q->reftable)
		return 0;
	if (!qcow2_clean(q))
		return qcow2_commit(q);
	if (q->file.sync_failed)
		return -EIO;
	return start_part(w, DISK_FLUSH, q, 0, 0, 0);
}

static int do_discard(struct work *w)
{
	return qcow2_discard(w->d->image, w->r->offset, w->r->len);
}

static int do_write_zeroes(struct work *w)
{
	return qcow2_write_zeroes(w->d->image, w->r->offset, w->r->len, w->r->may_unmap);
}

static void start(struct qcow2_disk *d, struct disk_req *r)
{
	static int (*const handlers[DISK_OPS])(struct work *w) = {[DISK_READ] = do_read,
								   [DISK_WRITE] = do_write,
								   [DISK_FLUSH] = do_flush,
								   [DISK_DISCARD] = do_discard,
								   [DISK_WRITE_ZEROES] = do_write_zeroes};
	struct work *w = malloc(sizeof(*w));
	if (!w) {
		r->result = -ENOMEM;
		queue_put(&d->settled, r);
		return;
	}
	*w = (struct work){.d = d, .r = r, .pending = 1};
	pthread_mutex_lock(&d->images);
	int ret = handlers[r->op](w);
	pthread_mutex_unlock(&d->images);
	if (ret && !w->result)
		w->result = ret;
	put_work(w);
}

/* Hands over what has settled; in write-through mode not before its tables are safe. */
static void finish(struct qcow2_disk *d)
{
	int ret = 0;
	if (d->disk.write_through && d->settled.head) { /* it may wait, and so settle more: which it covers too */
		pthread_mutex_lock(&d->images);
		ret = qcow2_commit(d->image);
		pthread_mutex_unlock(&d->images);
	}
	struct disk_req *r = queue_take_all(&d->settled), *next = NULL;
	if (!r)
		return;
	pthread_mutex_lock(&d->lock);
	for (; r; r = next) {
		next = r->next;
		if (ret && r->op != DISK_READ && !r->result)
			r->result = ret;
		queue_put(&d->out, r);
	}
	pthread_mutex_unlock(&d->lock);
	ring_bell(d->out_fd);
}

static void *serve(void *arg)
{
	struct qcow2_disk *d = arg;
	struct pollfd p[2] = {{d->in_fd, POLLIN, 0}, {d->aio.event_fd, POLLIN, 0}};
	bool quit = false;
	while (!quit) {
		poll(p, 2, -1);
		if (p[0].revents)
			silence(d->in_fd);
		pthread_mutex_lock(&d->lock);
		struct disk_req *r = queue_take_all(&d->in), *next = NULL;
		quit = d->quit;
		pthread_mutex_unlock(&d->lock);
		for (; r; r = next) {
			next = r->next;
			start(d, r);
		}
		disk_aio_go(&d->aio);
		if (d->aio.in_flight || p[1].revents)
			disk_aio_reap(&d->aio);
		finish(d);
	}
	return NULL;
}

/* ---- main thread ---- */
static struct qcow2_disk *disk_of(struct disk *d)
{
	return container_of(d, struct qcow2_disk, disk);
}

static void deliver(struct qcow2_disk *d)
{
	silence(d->out_fd);
	pthread_mutex_lock(&d->lock);
	struct disk_req *r = queue_take_all(&d->out), *next = NULL;
	pthread_mutex_unlock(&d->lock);
	for (; r; r = next) {
		next = r->next;
		d->disk.in_flight--;
		r->done(r, r->result);
	}
}

static void disk_ready(void *arg, u32 events)
{
	deliver(arg);
}

static void disk_submit_op(struct disk *disk, struct disk_req *r)
{
	queue_put(&disk_of(disk)->gathered, r);
}

static void allow_reading(struct qcow2_image *q, bool allow)
{
	for (; q && !q->raw; q = q->backing)
		q->no_reading = !allow;
}

static bool read_pieces(struct qcow2_image *q, const struct disk_req *r, u64 offset)
{
	for (u64 at = 0; at < r->len;) {
		struct qcow2_source s;
		if (qcow2_find(q, offset + at, r->len - at, &s) || s.kind == QCOW2_EXT_PACKED)
			return false;
		if (s.kind == QCOW2_EXT_ZERO)
			give(r, at, s.len, NULL);
		else if (at_once(r, DISK_READ, s.image, at, s.host, s.len))
			return false;
		at += s.len;
	}
	return true;
}

/* As do_write(), where nothing but data changes. */
static bool write_pieces(struct qcow2_image *q, const struct disk_req *r, u64 offset)
{
	if (q->broken)
		return false;
	for (u64 at = 0; at < r->len;) {
		struct qcow2_extent x;
		if (qcow2_map(q, offset + at, r->len - at, &x) || x.kind != QCOW2_EXT_DATA || !x.in_place ||
		    qcow2_is_metadata(q, x.host, x.len) || at_once(r, DISK_WRITE, q, at, x.host, x.len))
			return false;
		at += x.len;
	}
	return true;
}

static bool disk_now_op(struct disk *disk, const struct disk_req *r, u64 offset)
{
	struct qcow2_disk *d = disk_of(disk);
	if ((r->op == DISK_WRITE && disk->write_through) || pthread_mutex_trylock(&d->images))
		return false;
	allow_reading(d->image, false);
	bool done = (r->op == DISK_WRITE ? write_pieces : read_pieces)(d->image, r, offset);
	allow_reading(d->image, true);
	pthread_mutex_unlock(&d->images);
	return done;
}

static void disk_flush_queue(struct disk *disk)
{
	struct qcow2_disk *d = disk_of(disk);
	if (!d->gathered.head)
		return;
	pthread_mutex_lock(&d->lock);
	*d->in.tail = d->gathered.head;
	d->in.tail = d->gathered.tail;
	pthread_mutex_unlock(&d->lock);
	queue_init(&d->gathered);
	ring_bell(d->in_fd);
}

static void disk_drain_op(struct disk *disk)
{
	struct qcow2_disk *d = disk_of(disk);
	struct pollfd p = {d->out_fd, POLLIN, 0};
	poll(&p, 1, -1);
	deliver(d);
}

static void free_disk(struct qcow2_disk *d)
{
	disk_aio_fini(&d->aio);
	if (d->in_fd >= 0)
		close(d->in_fd);
	if (d->out_fd >= 0)
		close(d->out_fd);
	pthread_mutex_destroy(&d->lock);
	pthread_mutex_destroy(&d->images);
	free(d);
}

static void disk_destroy_op(struct disk *disk)
{
	struct qcow2_disk *d = disk_of(disk);
	loop_del(d->loop, d->out_fd);
	pthread_mutex_lock(&d->lock);
	d->quit = true;
	pthread_mutex_unlock(&d->lock);
	ring_bell(d->in_fd);
	pthread_join(d->thread, NULL);
	qcow2_image_close(d->image);
	free_disk(d);
}

static const struct disk_ops qcow2_ops = {.submit = disk_submit_op,
					  .now = disk_now_op,
					  .flush_queue = disk_flush_queue,
					  .drain = disk_drain_op,
					  .destroy = disk_destroy_op};

/* Signals are for the main thread. */
static int start_thread(struct qcow2_disk *d)
{
	sigset_t all, old;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	int r = -pthread_create(&d->thread, NULL, serve, d);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return r;
}

int qcow2_disk_create(struct loop *l, struct qcow2_image *q, bool write_through, struct disk **out, struct err *e)
{
	struct qcow2_disk *d = calloc(1, sizeof(*d));
	if (!d)
		return err_set(e, ENOMEM, "%s: out of memory", q->name);
	d->disk = (struct disk){.ops = &qcow2_ops, .size = q->size, .read_only = q->file.read_only,
				.can_discard = !q->file.read_only, .write_through = write_through,
				.block_size = (u32)MIN(1ull << q->subcluster_bits, 4096),
				.discard_align = (u32)q->cluster};
	d->loop = l;
	d->image = q;
	pthread_mutex_init(&d->lock, NULL);
	pthread_mutex_init(&d->images, NULL);
	queue_init(&d->in);
	queue_init(&d->out);
	queue_init(&d->gathered);
	queue_init(&d->settled);
	d->in_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	d->out_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	int r = disk_aio_init(&d->aio, part_settled, d);
	if (!r && (d->in_fd < 0 || d->out_fd < 0))
		r = -EMFILE;
	if (!r)
		r = loop_add(l, d->out_fd, EPOLLIN, disk_ready, d);
	if (!r) {
		r = start_thread(d);
		if (r)
			loop_del(l, d->out_fd);
	}
	if (r) {
		free_disk(d);
		return err_set(e, -r, "%s: cannot start its thread: %s", q->name, strerror(-r));
	}
	q->quiesce = quiesce;
	q->arg = d;
	*out = &d->disk;
	return 0;
}
