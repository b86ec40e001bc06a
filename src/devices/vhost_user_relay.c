/*
 * See vhost_user.h. Memory of a queue towards the server (all offsets from its start; N: its size):
 *   0                descriptors, one for each chain in flight, at the index that the guest's chain has
 *   USED, AVAIL      the rings
 *   TABLES           for each chain a table of N descriptors, to which its one descriptor points (indirect)
 * The area lies behind the guest's RAM in the address space that the server is told of, not in the guest's.
 *
 * The server may write all of that at any time; nothing is read back from it but the used ring, and of that
 * only numbers that are checked. What a chain is, is kept here.
 */
#include <linux/virtio_ring.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "devices/vhost_user_int.h"

u64 relay_avail_at(const struct vhost_user *u)
{
	return 16 * (u64)u->o.queue_size;
}

u64 relay_used_at(const struct vhost_user *u)
{
	return ALIGN_UP(relay_avail_at(u) + 6 + 2 * (u64)u->o.queue_size, 64);
}

u64 relay_tables_at(const struct vhost_user *u)
{
	return ALIGN_UP(relay_used_at(u) + 6 + 8 * (u64)u->o.queue_size, PAGE_SIZE);
}

static u64 table_bytes(const struct vhost_user *u)
{
	return 16 * (u64)u->o.queue_size;
}

u64 relay_bytes(const struct vhost_user *u)
{
	return ALIGN_UP(relay_tables_at(u) + u->o.queue_size * table_bytes(u), PAGE_SIZE);
}

/* ---- chains ---- */
/* Out of what was kept; the guest's memory does not go away. */
static void rebuild(struct vhost_user *u, struct virtq_chain *c, u16 head, const struct flight *f)
{
	c->head = head;
	c->n_out = f->n_out;
	c->n_in = f->n_in;
	c->out_bytes = c->in_bytes = 0;
	for (unsigned i = 0; i < (unsigned)f->n_out + f->n_in; i++) {
		c->gpa[i] = f->seg[i].gpa;
		c->iov[i] =
		    (struct iovec){guest_ptr(u->machine, f->seg[i].gpa, f->seg[i].len), f->seg[i].len};
		*(i < f->n_out ? &c->out_bytes : &c->in_bytes) += f->seg[i].len;
	}
}

static bool keep(struct flight *f, const struct virtq_chain *c)
{
	unsigned n = c->n_out + c->n_in;

	if (f->room < n) {
		struct segment *bigger = realloc(f->seg, n * sizeof(*bigger));

		if (!bigger)
			return false;
		f->seg = bigger;
		f->room = (u16)n;
	}
	for (unsigned i = 0; i < n; i++)
		f->seg[i] = (struct segment){c->gpa[i], (u32)c->iov[i].iov_len};
	f->n_out = (u16)c->n_out;
	f->n_in = (u16)c->n_in;
	f->busy = true;
	return true;
}

static void fail_chain(struct vhost_user *u, unsigned queue, const struct virtq_chain *c)
{
	virtq_push(&u->v->queue[queue], c, u->o.fail(u->v, queue, c));
}

void relay_fail_all(struct vhost_user *u)
{
	for (unsigned i = 0; i < u->o.n_queues; i++) {
		struct relay *q = &u->relay[i];

		for (u16 head = 0; head < u->o.queue_size; head++) {
			if (!q->flight[head].busy)
				continue;
			q->flight[head].busy = false;
			rebuild(u, &u->chain, head, &q->flight[head]);
			fail_chain(u, i, &u->chain);
		}
		virtio_signal_queue(u->v, i);
	}
}

/* ---- from the guest to the server ---- */
static void put_desc(u8 *at, u64 addr, u32 len, u16 flags, u16 next)
{
	struct vring_desc d = {.addr = addr, .len = len, .flags = flags, .next = next};

	memcpy(at, &d, sizeof(d));
}

static void forward(struct relay *q, const struct virtq_chain *c)
{
	struct vhost_user *u = q->u;
	unsigned n = c->n_out + c->n_in;
	u64 table = relay_tables_at(u) + c->head * table_bytes(u);
	u8 *avail = q->area + relay_avail_at(u);

	for (unsigned i = 0; i < n; i++)
		put_desc(q->area + table + 16 * i, c->gpa[i], (u32)c->iov[i].iov_len,
			 (u16)((i < c->n_out ? 0 : VRING_DESC_F_WRITE) | (i + 1 < n ? VRING_DESC_F_NEXT : 0)),
			 (u16)(i + 1));
	put_desc(q->area + 16 * c->head, q->gpa + table, 16 * n, VRING_DESC_F_INDIRECT, 0);
	memcpy(avail + 4 + 2 * (q->avail_next & (u->o.queue_size - 1)), &c->head, 2);
	q->avail_next++;
	__atomic_store_n((u16 *)(avail + 2), q->avail_next, __ATOMIC_RELEASE);
}

/* 1: for the server, 2: answered here, 0: none, < 0: the driver broke the rules */
static int take_one(struct vhost_user *u, unsigned queue)
{
	struct relay *q = &u->relay[queue];
	struct virtq_chain *c = &u->chain;
	int got = virtq_pop(&u->v->queue[queue], c);

	if (got <= 0)
		return got;
	if (u->dead || c->unreachable) {
		fail_chain(u, queue, c);
		return 2;
	}
	u32 written = u->o.answer ? u->o.answer(u->v, queue, c) : 0;

	if (written) {
		virtq_push(&u->v->queue[queue], c, written);
		return 2;
	}
	if (q->flight[c->head].busy)
		return -EIO; /* a buffer given twice */
	if (!keep(&q->flight[c->head], c)) {
		virtq_unpop(&u->v->queue[queue]);
		return 0; /* out of memory: the next notification brings us back */
	}
	forward(q, c);
	return 1;
}

void vhost_user_notify(struct vhost_user *u, unsigned queue)
{
	struct virtq *q = &u->v->queue[queue];
	const u64 one = 1;
	int budget = VIRTIO_BUDGET, got = 0;
	bool any = false, answered = false;

	if (!u->running || (u->direct && !u->dead))
		return;
	do {
		virtq_quiet(q);
		while (budget > 0 && (got = take_one(u, queue)) > 0) {
			any |= got == 1;
			answered |= got == 2;
			budget--;
		}
	} while (!got && virtq_listen(q) && budget > 0);
	if (any && write(u->relay[queue].kick, &one, sizeof(one)) < 0)
		log_msg(LOG_DEBUG, "%s: kick lost",
			u->o.name); /* the counter is full: the server has not looked yet */
	if (got < 0)
		virtio_needs_reset_locked(u->v, "bad descriptor chain");
	else if (budget <= 0)
		virtio_again(u->v, queue);
	if (answered)
		virtio_signal_queue(u->v, queue);
}

/* ---- and back ---- */
static bool complete(struct relay *q, u32 id, u32 len)
{
	struct vhost_user *u = q->u;
	struct flight *f = id < u->o.queue_size ? &q->flight[id] : NULL;
	struct virtq_chain *c = &u->chain;

	if (!f || !f->busy)
		return false;
	rebuild(u, c, (u16)id, f);
	if (len > c->in_bytes)
		return false;
	f->busy = false;
	for (unsigned i = c->n_out; i < c->n_out + c->n_in; i++) /* whatever it says it wrote */
		guest_written(u->machine, c->gpa[i], c->iov[i].iov_len);
	virtq_push(&u->v->queue[q->index], c, len);
	return true;
}

static void collect_locked(struct relay *q)
{
	struct vhost_user *u = q->u;
	const u8 *used = q->area + relay_used_at(u);
	u16 idx = __atomic_load_n((const u16 *)(used + 2), __ATOMIC_ACQUIRE);

	if ((u16)(idx - q->used_next) > u->o.queue_size) {
		vhost_user_die(u, -EPROTO);
		return;
	}
	while (q->used_next != idx) {
		struct vring_used_elem e;

		memcpy(&e, used + 4 + sizeof(e) * (q->used_next & (u->o.queue_size - 1)), sizeof(e));
		__asm__ volatile("" ::: "memory"); /* read once */
		q->used_next++;
		if (!complete(q, e.id, e.len)) {
			vhost_user_die(u, -EPROTO);
			return;
		}
	}
	virtio_signal_queue(u->v, q->index);
}

void relay_on_call(void *arg, u32 events)
{
	struct relay *q = arg;
	struct vhost_user *u = q->u;
	u64 count;

	if (read(q->call, &count, sizeof(count)) != sizeof(count))
		return;
	pthread_mutex_lock(&u->v->lock);
	if (u->running && !u->dead)
		collect_locked(q);
	pthread_mutex_unlock(&u->v->lock);
}
