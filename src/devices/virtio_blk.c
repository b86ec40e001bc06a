/*
 * Block device (Virtio 1.2, 5.2), the half that serves. A request is a chain: header {type, sector}, data, one
 * status byte. It is taken apart and checked on the main thread, goes to the disk as host pointers into guest RAM, and is pushed
 * when the disk has finished.
 *
 * A reset while requests are in flight waits for them: the disk may still be writing into guest memory. Until
 * then the driver reads a status other than 0 and waits.
 *
 * With stop_on_enospc a request for which the host has no room is held, unanswered, and the VM pauses; it is
 * tried again when the VM goes on.
 */
#include "devices/virtio_blk.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "backends/disk.h"

enum { SECTOR = 512, ID_BYTES = VIRTIO_BLK_ID_BYTES };
enum { SEG_MAX = BLK_QUEUE_SIZE - 2, RANGE_SECTORS_MAX = 1 << 22 };
#define SECTOR_MAX (UINT64_MAX / SECTOR)

struct request {
	struct disk_req disk, again; /* again: as it was submitted */
	struct virtio_blk *blk;
	unsigned queue;
	u32 type; /* VIRTIO_BLK_T_* */
	struct request *next; /* in free or held */
	struct virtq_chain chain;
	struct iovec iov[VIRTQ_SIZE_MAX];
};

struct virtio_blk {
	struct virtio v;
	struct disk *disk;
	struct request *free, *held;
	unsigned in_flight; /* of all queues, held ones too */
	unsigned queued[BLK_QUEUES_MAX];
	bool stop_on_enospc;
	char id[ID_BYTES];
	struct blk_shared *shared, own; /* own: without anybody else to look */
};

static struct virtio_blk *blk_of(struct virtio *v)
{
	return container_of(v, struct virtio_blk, v);
}

/* ---- requests; v.lock held ---- */
static struct request *get_request(struct virtio_blk *b)
{
	struct request *r = b->free;
	if (r)
		b->free = r->next;
	else
		r = malloc(sizeof(*r));
	if (r)
		r->blk = b;
	return r;
}

static void put_request(struct virtio_blk *b, struct request *r)
{
	r->next = b->free;
	b->free = r;
}

/* Between pop and push a chain is in the books. used_next there is behind the ring's for a moment only: who finds it one behind
 * knows that the last entry of the ring is answered (virtio_disk_dead.c). */
static void book_in(struct virtio_blk *b, const struct request *r)
{
	struct blk_books *k = &b->shared->queue[r->queue];
	__atomic_store_n(&k->busy[r->chain.head], 1, __ATOMIC_RELEASE);
	__atomic_store_n(&k->avail_next, b->v.queue[r->queue].avail_next, __ATOMIC_RELEASE);
}

static void book_out(struct virtio_blk *b, const struct request *r)
{
	struct blk_books *k = &b->shared->queue[r->queue];
	__atomic_store_n(&k->busy[r->chain.head], 0, __ATOMIC_RELEASE);
	__atomic_store_n(&k->used_next, b->v.queue[r->queue].used_next, __ATOMIC_RELEASE);
}

static void count(struct blk_counters *c, const struct request *r, u8 status)
{
	if (status != VIRTIO_BLK_S_OK) {
		c->errors++;
		return;
	}
	u64 in = r->chain.in_bytes - 1, out = r->chain.out_bytes - sizeof(struct virtio_blk_outhdr);
	switch (r->type) {
	case VIRTIO_BLK_T_IN:
		c->reads++;
		c->read_bytes += in;
		break;
	case VIRTIO_BLK_T_OUT:
		c->writes++;
		c->written_bytes += out;
		break;
	case VIRTIO_BLK_T_FLUSH:
		c->flushes++;
		break;
	case VIRTIO_BLK_T_DISCARD:
	case VIRTIO_BLK_T_WRITE_ZEROES:
		c->discards++;
		break;
	}
}

/* The status byte is the last writable one, so all of the writable part counts as written. */
static void complete_locked(struct virtio_blk *b, struct request *r, u8 status)
{
	count(&b->shared->counters, r, status);
	if (chain_write(&r->chain, r->chain.in_bytes - 1, &status, 1))
		virtq_push(&b->v.queue[r->queue], &r->chain, (u32)r->chain.in_bytes);
	book_out(b, r);
	put_request(b, r);
}

static u8 status_of(int result)
{
	return !result ? VIRTIO_BLK_S_OK : result == -EOPNOTSUPP ? VIRTIO_BLK_S_UNSUPP : VIRTIO_BLK_S_IOERR;
}

static void leave_locked(struct virtio_blk *b, struct request *r)
{
	b->in_flight--;
	b->queued[r->queue]--;
}

/* Reset, or the end: nobody waits for an answer. */
static void forget_locked(struct virtio_blk *b, struct request *r)
{
	leave_locked(b, r);
	book_out(b, r);
	put_request(b, r);
	if (b->v.resetting && !b->in_flight)
		virtio_reset_done_locked(&b->v);
}

static void hold_locked(struct virtio_blk *b, struct request *r)
{
	if (!b->held)
		log_msg(LOG_ERROR, "disk: no space left on the host: the VM is paused (make room, then `doppel resume`)");
	r->next = b->held;
	b->held = r;
}

static void disk_done(struct disk_req *dr, int result)
{
	struct request *r = container_of(dr, struct request, disk);
	struct virtio_blk *b = r->blk;
	struct machine *m = b->v.machine;
	bool stop = false;
	pthread_mutex_lock(&b->v.lock);
	if (b->v.resetting) {
		forget_locked(b, r);
	} else if (b->stop_on_enospc && (result == -ENOSPC || result == -EDQUOT)) {
		hold_locked(b, r);
		stop = true;
	} else {
		unsigned queue = r->queue;
		leave_locked(b, r);
		complete_locked(b, r, status_of(result));
		virtio_signal_queue(&b->v, queue);
	}
	pthread_mutex_unlock(&b->v.lock);
	if (stop)
		machine_request(m, MACHINE_STOP, 0);
}

/* ---- request types: each checks and fills r->disk; returns IN_FLIGHT to have it submitted, or the status to
 * answer with ---- */
enum { IN_FLIGHT = -1 };

/* Data sits behind the header in the readable part, or before the status byte in the writable one. */
static int prepare_transfer(struct request *r, bool in)
{
	u64 len = in ? r->chain.in_bytes - 1 : r->chain.out_bytes - sizeof(struct virtio_blk_outhdr);
	if (!len || len % SECTOR)
		return VIRTIO_BLK_S_IOERR;
	r->disk.len = len;
	r->disk.iov = r->iov;
	r->disk.n_iov = chain_slice(&r->chain, in, in ? 0 : sizeof(struct virtio_blk_outhdr), len, r->iov);
	return IN_FLIGHT;
}

static int do_read(struct virtio_blk *b, struct request *r)
{
	r->disk.op = DISK_READ;
	return prepare_transfer(r, true);
}

static int do_write(struct virtio_blk *b, struct request *r)
{
	r->disk.op = DISK_WRITE;
	return prepare_transfer(r, false);
}

static int do_flush(struct virtio_blk *b, struct request *r)
{
	r->disk.op = DISK_FLUSH;
	return IN_FLIGHT;
}

static int do_get_id(struct virtio_blk *b, struct request *r)
{
	u64 n = MIN(r->chain.in_bytes - 1, ID_BYTES);
	return chain_write(&r->chain, 0, b->id, n) ? VIRTIO_BLK_S_OK : VIRTIO_BLK_S_IOERR;
}

/* 5.2.6: the sector range is in a segment of its own, not in the header. */
static int prepare_range(struct virtio_blk *b, struct request *r, u32 flags_allowed)
{
	struct virtio_blk_discard_write_zeroes seg;
	if (r->chain.out_bytes != sizeof(struct virtio_blk_outhdr) + sizeof(seg) ||
	    !chain_read(&r->chain, sizeof(struct virtio_blk_outhdr), &seg, sizeof(seg)))
		return VIRTIO_BLK_S_IOERR;
	if (seg.flags & ~flags_allowed)
		return VIRTIO_BLK_S_UNSUPP;
	if (!seg.num_sectors || seg.num_sectors > RANGE_SECTORS_MAX || seg.sector > SECTOR_MAX)
		return VIRTIO_BLK_S_IOERR;
	r->disk.offset = seg.sector * SECTOR;
	r->disk.len = (u64)seg.num_sectors * SECTOR;
	r->disk.may_unmap = seg.flags & VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP;
	return IN_FLIGHT;
}

static int do_discard(struct virtio_blk *b, struct request *r)
{
	r->disk.op = DISK_DISCARD;
	return prepare_range(b, r, 0);
}

static int do_write_zeroes(struct virtio_blk *b, struct request *r)
{
	r->disk.op = DISK_WRITE_ZEROES;
	return prepare_range(b, r, VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP);
}

static const struct request_type {
	u32 type;
	int feature; /* that must have been negotiated; -1: none */
	int (*prepare)(struct virtio_blk *b, struct request *r);
	const char *name;
} request_types[] = {
    {VIRTIO_BLK_T_IN, -1, do_read, "read"},
    {VIRTIO_BLK_T_OUT, -1, do_write, "write"},
    {VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_F_FLUSH, do_flush, "flush"},
    {VIRTIO_BLK_T_GET_ID, -1, do_get_id, "get ID"},
    {VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_F_DISCARD, do_discard, "discard"},
    {VIRTIO_BLK_T_WRITE_ZEROES, VIRTIO_BLK_F_WRITE_ZEROES, do_write_zeroes, "write zeroes"},
};

static int prepare(struct virtio_blk *b, struct request *r)
{
	struct virtio_blk_outhdr h;
	r->type = UINT32_MAX;
	if (r->chain.unreachable || !chain_read(&r->chain, 0, &h, sizeof(h)) || h.sector > SECTOR_MAX)
		return VIRTIO_BLK_S_IOERR;
	r->disk = (struct disk_req){.offset = h.sector * SECTOR, .done = disk_done};
	r->type = h.type;
	for (size_t i = 0; i < ARRAY_SIZE(request_types); i++) {
		const struct request_type *t = &request_types[i];
		if (t->type == h.type && (t->feature < 0 || virtio_has(&b->v, t->feature)))
			return t->prepare(b, r);
	}
	return VIRTIO_BLK_S_UNSUPP;
}

static bool submit_locked(struct virtio_blk *b, struct request *r)
{
	r->again = r->disk;
	if (disk_submit(b->disk, &r->disk))
		return false;
	b->in_flight++;
	b->queued[r->queue]++;
	return true;
}

static void start(struct virtio_blk *b, struct request *r)
{
	int status = prepare(b, r);
	if (status == IN_FLIGHT && disk_now(b->disk, &r->disk))
		status = VIRTIO_BLK_S_OK;
	if (status == IN_FLIGHT) {
		if (submit_locked(b, r))
			return;
		status = VIRTIO_BLK_S_IOERR; /* outside the disk, or read-only */
	}
	complete_locked(b, r, (u8)status);
}

/* Takes one request off the queue: 1 taken, 0 none, -1 the driver broke the rules. */
static int take_one(struct virtio_blk *b, unsigned queue)
{
	struct virtq *q = &b->v.queue[queue];
	struct request *r = get_request(b);
	if (!r)
		return 0; /* out of memory: what is in flight will bring us back */
	r->queue = queue;
	int got = virtq_pop(q, &r->chain);
	if (got > 0 && r->chain.in_bytes && r->chain.out_bytes >= sizeof(struct virtio_blk_outhdr) &&
	    b->queued[queue] < q->size) {
		book_in(b, r);
		start(b, r);
		return 1;
	}
	put_request(b, r);
	return got ? -1 : 0;
}

bool virtio_blk_idle(const struct virtio_blk *b)
{
	return !b->in_flight;
}

static void blk_notify(struct virtio *v, unsigned queue)
{
	struct virtio_blk *b = blk_of(v);
	struct virtq *q = &v->queue[queue];
	int budget = VIRTIO_BUDGET, got = 0;
	do {
		virtq_quiet(q);
		while (budget > 0 && (got = take_one(b, queue)) > 0)
			budget--;
	} while (!got && virtq_listen(q) && b->free && budget > 0);
	disk_go(b->disk);
	if (got < 0)
		virtio_needs_reset_locked(v, "bad request");
	else if (budget <= 0)
		virtio_again(v, queue);
	virtio_signal_queue(v, queue); /* for those answered at once */
}

/* What was held, as it was: its buffers are cut anew, for the first attempt may have used up a part of them. */
static void retry_locked(struct virtio_blk *b, struct request *r)
{
	leave_locked(b, r);
	r->disk = r->again;
	if (r->disk.op == DISK_WRITE || r->disk.op == DISK_READ)
		prepare_transfer(r, r->disk.op == DISK_READ);
	if (!submit_locked(b, r))
		complete_locked(b, r, VIRTIO_BLK_S_IOERR);
}

static struct request *take_held(struct virtio_blk *b)
{
	struct request *r = b->held;
	b->held = NULL;
	return r;
}

static void drop_held_locked(struct virtio_blk *b)
{
	for (struct request *r = take_held(b), *next = NULL; r; r = next) {
		next = r->next;
		forget_locked(b, r);
	}
}

void virtio_blk_resume(struct virtio_blk *b)
{
	pthread_mutex_lock(&b->v.lock);
	if (b->v.resetting)
		drop_held_locked(b);
	for (struct request *r = take_held(b), *next = NULL; r; r = next) {
		next = r->next;
		retry_locked(b, r);
	}
	disk_go(b->disk);
	pthread_mutex_unlock(&b->v.lock);
}

static bool blk_reset_queues(struct virtio *v)
{
	return !blk_of(v)->in_flight;
}

static const struct virtio_ops blk_ops = {.name = "virtio-blk",
					  .id = VIRTIO_ID_BLOCK,
					  .pci_class = BLK_CLASS,
					  .notify = blk_notify,
					  .reset = blk_reset_queues};

/* ---- lifecycle ---- */
void virtio_blk_drain(struct virtio_blk *b)
{
	disk_drain(b->disk);
	pthread_mutex_lock(&b->v.lock);
	drop_held_locked(b);
	pthread_mutex_unlock(&b->v.lock);
}

void virtio_blk_close(struct virtio_blk *b)
{
	disk_destroy(b->disk);
	b->disk = NULL;
}

void virtio_blk_free(struct virtio_blk *b)
{
	drop_held_locked(b);
	virtio_fini(&b->v);
	while (b->free) {
		struct request *r = b->free;
		b->free = r->next;
		free(r);
	}
	free(b);
}

struct virtio *virtio_blk_virtio(struct virtio_blk *b)
{
	return &b->v;
}

void virtio_blk_shape(const struct virtio_blk *b, struct blk_shape *s)
{
	const struct disk *d = b->disk;
	*s = (struct blk_shape){.size = d->size,
				.block_size = d->block_size,
				.discard_align = d->discard_align,
				.read_only = d->read_only,
				.can_discard = d->can_discard,
				.write_through = d->write_through};
}

int virtio_blk_create(struct machine *m, const struct virtio_blk_options *o, struct virtio_blk **out)
{
	struct virtio_blk *b = calloc(1, sizeof(*b));
	if (!b)
		return -ENOMEM;
	struct blk_shape shape;
	unsigned queues = MIN(MAX(o->queues, 1), BLK_QUEUES_MAX);
	b->disk = o->disk;
	b->stop_on_enospc = o->stop_on_enospc;
	b->shared = o->shared ? o->shared : &b->own;
	if (o->serial)
		memcpy(b->id, o->serial, strnlen(o->serial, ID_BYTES));
	virtio_blk_shape(b, &shape);
	virtio_init(&b->v, m, &blk_ops, blk_features(&shape, queues), queues, BLK_QUEUE_SIZE);
	virtio_tolerate(&b->v);
	*out = b;
	return 0;
}

/* ---- what the guest is told ---- */
u64 blk_features(const struct blk_shape *s, unsigned queues)
{
	u64 f = BIT64(VIRTIO_BLK_F_SEG_MAX) | BIT64(VIRTIO_BLK_F_BLK_SIZE) | BIT64(VIRTIO_BLK_F_TOPOLOGY);
	if (queues > 1)
		f |= BIT64(VIRTIO_BLK_F_MQ);
	if (!s->write_through) /* without it a driver knows that writes are stable (5.2.6.2) */
		f |= BIT64(VIRTIO_BLK_F_FLUSH);
	if (s->read_only)
		return f | BIT64(VIRTIO_BLK_F_RO);
	return f | BIT64(VIRTIO_BLK_F_WRITE_ZEROES) | (s->can_discard ? BIT64(VIRTIO_BLK_F_DISCARD) : 0);
}

void blk_config(struct virtio_blk_config *c, const struct blk_shape *s, unsigned queues)
{
	*c = (struct virtio_blk_config){
	    .capacity = s->size / SECTOR,
	    .seg_max = SEG_MAX,
	    .blk_size = SECTOR,
	    .physical_block_exp = (u8)__builtin_ctz(s->block_size / SECTOR),
	    .min_io_size = (u16)MIN(s->block_size / SECTOR, 0xffff),
	    .num_queues = (u16)queues,
	    .max_discard_sectors = RANGE_SECTORS_MAX,
	    .max_discard_seg = 1,
	    .discard_sector_alignment = MAX(s->discard_align / SECTOR, 1),
	    .max_write_zeroes_sectors = RANGE_SECTORS_MAX,
	    .max_write_zeroes_seg = 1,
	    .write_zeroes_may_unmap = 1,
	};
}
