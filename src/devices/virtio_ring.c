/*
 * Split virtqueues (Virtio 1.2, 2.7): the only code that reads descriptors. See virtio.h for the ring and the
 * rules.
 *
 * Barriers pair with the driver's: its avail->idx store is a release, ours an acquire load; our used->idx
 * store is a release. The two "publish mine, then look at yours" steps (interrupt decision, listen) need a
 * full barrier on both sides (2.7.7.1, 2.7.10.1).
 */
#include <errno.h>
#include <linux/virtio_ring.h>
#include <string.h>

#include "base/base.h"
#include "devices/virtio.h"

static u16 load_u16(const void *p)
{
	return __atomic_load_n((const u16 *)p, __ATOMIC_RELAXED);
}

static u16 avail_idx(const struct virtq *q)
{
	return __atomic_load_n((const u16 *)((const u8 *)q->avail_p + 2), __ATOMIC_ACQUIRE);
}

static u16 avail_flags(const struct virtq *q)
{
	return load_u16(q->avail_p);
}

static u16 avail_ring(const struct virtq *q, u16 i)
{
	return load_u16((const u8 *)q->avail_p + 4 + 2 * (i & (q->size - 1)));
}

static u16 used_event(const struct virtq *q)
{
	return load_u16((const u8 *)q->avail_p + 4 + 2 * q->size);
}

static u64 avail_bytes(const struct virtq *q)
{
	return 6 + 2 * (u64)q->size;
}

static u64 used_bytes(const struct virtq *q)
{
	return 6 + 8 * (u64)q->size;
}

static void store_used_u16(struct virtq *q, u64 off, u16 v, int order)
{
	u16 *p = (u16 *)((u8 *)q->used_p + off);
	if (order == __ATOMIC_RELEASE)
		__atomic_store_n(p, v, __ATOMIC_RELEASE);
	else
		__atomic_store_n(p, v, __ATOMIC_RELAXED);
	guest_written(q->machine, q->used + off, 2);
}

int virtq_enable(struct virtq *q, bool event_idx)
{
	if (!q->size || q->size > q->size_max || (q->size & (q->size - 1)))
		return -EINVAL;
	if ((q->desc & 15) || (q->avail & 1) || (q->used & 3))
		return -EINVAL;
	const void *desc = guest_ptr(q->machine, q->desc, 16 * (u64)q->size);
	const void *avail = guest_ptr(q->machine, q->avail, avail_bytes(q));
	void *used = guest_ptr(q->machine, q->used, used_bytes(q));
	if (!desc || !avail || !used)
		return -EFAULT;
	q->desc_p = desc;
	q->avail_p = avail;
	q->used_p = used;
	q->event_idx = event_idx;
	q->avail_next = q->used_next = 0;
	q->signalled_valid = false;
	q->broken = false;
	q->enabled = true;
	return 0;
}

void virtq_reset(struct virtq *q)
{
	*q = (struct virtq){.machine = q->machine, .size = q->size_max, .size_max = q->size_max, .tolerant = q->tolerant};
}

/* One descriptor table during a walk: the queue's own, or an indirect one. */
struct table {
	const u8 *p;
	u32 n;
};

static struct vring_desc read_desc(const struct table *t, u32 i)
{
	struct vring_desc d;
	memcpy(&d, t->p + i * sizeof(d), sizeof(d));
	__asm__ volatile("" ::: "memory"); /* the copy is read once; checks and uses see the same values */
	return d;
}

static int add_segment(struct virtq *q, struct virtq_chain *c, const struct vring_desc *d)
{
	bool in = d->flags & VRING_DESC_F_WRITE;
	unsigned n = c->n_out + c->n_in;
	if (n >= q->size || !d->len || (!in && c->n_in))
		return -EIO;
	void *p = guest_ptr(q->machine, d->addr, d->len);
	if (!p && !(q->tolerant && guest_is_window(q->machine, d->addr, d->len)))
		return -EIO;
	c->unreachable |= !p;
	c->iov[n] = (struct iovec){.iov_base = p, .iov_len = d->len};
	c->gpa[n] = d->addr;
	*(in ? &c->n_in : &c->n_out) += 1;
	*(in ? &c->in_bytes : &c->out_bytes) += d->len;
	return c->in_bytes + c->out_bytes > UINT32_MAX ? -EIO : 0;
}

/* 2.7.5.3: not nested, not chained on, a multiple of 16 bytes. */
static int enter_indirect(struct virtq *q, const struct vring_desc *d, struct table *t)
{
	u32 n = d->len / sizeof(struct vring_desc);
	if ((d->flags & VRING_DESC_F_NEXT) || d->len % sizeof(struct vring_desc) || !n || n > q->size)
		return -EIO;
	t->p = guest_ptr(q->machine, d->addr, d->len);
	t->n = n;
	return t->p ? 0 : -EIO;
}

static int walk(struct virtq *q, struct virtq_chain *c)
{
	struct table t = {.p = q->desc_p, .n = q->size};
	bool indirect = false;
	u32 i = c->head;
	/* Each round adds a segment or enters the one indirect table: a loop runs into one of the two limits.
	 */
	for (;;) {
		if (i >= t.n)
			return -EIO;
		struct vring_desc d = read_desc(&t, i);
		if (d.flags & VRING_DESC_F_INDIRECT) {
			if (indirect || enter_indirect(q, &d, &t))
				return -EIO;
			indirect = true;
			i = 0;
			continue;
		}
		if (add_segment(q, c, &d))
			return -EIO;
		if (!(d.flags & VRING_DESC_F_NEXT))
			return 0;
		i = d.next;
	}
}

int virtq_walk_head(struct virtq *q, u16 head, struct virtq_chain *c)
{
	c->n_out = c->n_in = 0;
	c->out_bytes = c->in_bytes = 0;
	c->unreachable = false;
	c->head = head;
	return walk(q, c);
}

int virtq_pop(struct virtq *q, struct virtq_chain *c)
{
	if (!q->enabled || q->broken)
		return 0;
	u16 pending = avail_idx(q) - q->avail_next;
	if (!pending)
		return 0;
	if (pending > q->size || virtq_walk_head(q, avail_ring(q, q->avail_next), c)) {
		q->broken = true;
		return -EIO;
	}
	q->avail_next++;
	return 1;
}

void virtq_resume(struct virtq *q, u16 avail_next)
{
	q->avail_next = avail_next;
	q->used_next = load_u16((const u8 *)q->used_p + 2);
	q->signalled_valid = false;
}

u32 virtq_last_used(const struct virtq *q)
{
	struct vring_used_elem e;
	memcpy(&e, (const u8 *)q->used_p + 4 + 8 * (u64)((u16)(q->used_next - 1) & (q->size - 1)), sizeof(e));
	return q->enabled ? e.id : UINT32_MAX;
}

u32 virtq_next_head(const struct virtq *q)
{
	return virtq_published(q) == q->avail_next ? UINT32_MAX : avail_ring(q, q->avail_next);
}

void virtq_unpop(struct virtq *q)
{
	q->avail_next--;
}

static void report_written(struct virtq *q, const struct virtq_chain *c, u64 n)
{
	for (unsigned i = c->n_out; n && i < c->n_out + c->n_in; i++) {
		u64 now = MIN(n, c->iov[i].iov_len);
		(i == c->n_out ? guest_written : guest_written_too)(q->machine, c->gpa[i], now); /* all of it was written before */
		n -= now;
	}
}

void virtq_fill(struct virtq *q, unsigned ahead, const struct virtq_chain *c, u32 written)
{
	report_written(q, c, written);
	if (!q->enabled || q->broken)
		return;
	struct vring_used_elem e = {.id = c->head, .len = written};
	u64 off = 4 + 8 * (u64)((q->used_next + ahead) & (q->size - 1));
	memcpy((u8 *)q->used_p + off, &e, sizeof(e));
	guest_written(q->machine, q->used + off, sizeof(e));
}

void virtq_publish(struct virtq *q, unsigned n)
{
	if (!q->enabled || q->broken)
		return;
	q->used_next += n;
	store_used_u16(q, 2, q->used_next, __ATOMIC_RELEASE);
}

void virtq_push(struct virtq *q, const struct virtq_chain *c, u32 written)
{
	virtq_fill(q, 0, c, written);
	virtq_publish(q, 1);
}

bool virtq_wants_interrupt(struct virtq *q)
{
	if (!q->enabled || q->broken)
		return false;
	u16 old = q->signalled, now = q->used_next;
	bool valid = q->signalled_valid;
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	q->signalled = now;
	q->signalled_valid = true;
	if (!q->event_idx)
		return !(avail_flags(q) & VRING_AVAIL_F_NO_INTERRUPT);
	return !valid || vring_need_event(used_event(q), now, old);
}

void virtq_quiet(struct virtq *q)
{
	if (q->enabled && !q->event_idx) /* with EVENT_IDX an old event index is quiet enough */
		store_used_u16(q, 0, VRING_USED_F_NO_NOTIFY, __ATOMIC_RELAXED);
}

u16 virtq_published(const struct virtq *q)
{
	return q->enabled && !q->broken ? avail_idx(q) : q->avail_next;
}

bool virtq_listen(struct virtq *q)
{
	if (!q->enabled || q->broken)
		return false;
	if (q->watched)
		return avail_idx(q) != q->avail_next;
	if (q->event_idx)
		store_used_u16(q, 4 + 8 * (u64)q->size, q->avail_next, __ATOMIC_RELAXED);
	else
		store_used_u16(q, 0, 0, __ATOMIC_RELAXED);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return avail_idx(q) != q->avail_next;
}

/* ---- chains ---- */
unsigned chain_slice(const struct virtq_chain *c, bool in, u64 off, u64 n, struct iovec *iov)
{
	unsigned first = in ? c->n_out : 0, end = first + (in ? c->n_in : c->n_out), out = 0;
	if (c->unreachable || !range_within(off, n, in ? c->in_bytes : c->out_bytes))
		return 0;
	for (unsigned i = first; n && i < end; i++) {
		u64 len = c->iov[i].iov_len;
		if (off >= len) {
			off -= len;
			continue;
		}
		u64 now = MIN(n, len - off);
		iov[out++] = (struct iovec){.iov_base = (u8 *)c->iov[i].iov_base + off, .iov_len = now};
		off = 0;
		n -= now;
	}
	return out;
}

static bool chain_copy(const struct virtq_chain *c, bool in, u64 off, void *buf, u64 n)
{
	unsigned first = in ? c->n_out : 0, end = first + (in ? c->n_in : c->n_out);
	u8 *b = buf;
	if (!range_within(off, n, in ? c->in_bytes : c->out_bytes))
		return false;
	for (unsigned i = first; n && i < end; i++) {
		u64 len = c->iov[i].iov_len;
		if (off >= len) {
			off -= len;
			continue;
		}
		if (!c->iov[i].iov_base)
			return false;
		u64 now = MIN(n, len - off);
		u8 *g = (u8 *)c->iov[i].iov_base + off;
		memcpy(in ? g : b, in ? b : g, now);
		b += now;
		off = 0;
		n -= now;
	}
	return true;
}

bool chain_read(const struct virtq_chain *c, u64 off, void *buf, u64 n)
{
	return chain_copy(c, false, off, buf, n);
}

bool chain_write(const struct virtq_chain *c, u64 off, const void *buf, u64 n)
{
	return chain_copy(c, true, off, (void *)buf, n);
}
