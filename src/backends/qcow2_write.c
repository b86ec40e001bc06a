/*
 * Writes that need a cluster, or a subcluster, that is not there yet, or is shared with a snapshot, or
 * compressed. The data and what has to be around it (copy on write) goes to the disk in one call; then the L2
 * entries name it; then what they named before loses a reference.
 *
 * A cluster that the file has never reached reads as zeroes, so zeroes around the data need not be written there.
 */
#include <string.h>
#include <unistd.h>

#include "backends/qcow2_int.h"

enum { IOV_MAX_HERE = 1024 };

/* [from, to) in the cluster at host goes to the disk; the guest's data is [at, at + n) of it. */
struct span {
	u64 host; /* of the first cluster */
	u64 from, at, n, to; /* bytes from there */
};

int qcow2_write_vec(struct qcow2_image *q, u64 off, struct iovec *iov, unsigned n, u64 len)
{
	struct disk_req r = {.op = DISK_WRITE, .offset = off, .len = len, .iov = iov, .n_iov = n};
	if (disk_file_write_cached(&q->file, off, iov, n, len))
		return 0;
	disk_file_aim(&q->file, &r);
	while (r.len) {
		ssize_t put = pwritev(r.fd, r.iov, (int)MIN(r.n_iov, (unsigned)IOV_MAX_HERE), (off_t)r.offset);
		if (put < 0 && errno == EINTR)
			continue;
		if (put < 0 && errno == EINVAL && r.fd != q->file.fd) {
			r.fd = q->file.fd;
			continue;
		}
		if (put <= 0)
			return put ? -errno : -EIO;
		r.offset += (u64)put;
		r.len -= (u64)put;
		for (u64 left = (u64)put; left;) {
			u64 now = MIN(left, r.iov->iov_len);
			r.iov->iov_base = (u8 *)r.iov->iov_base + now;
			r.iov->iov_len -= now;
			left -= now;
			if (!r.iov->iov_len) {
				r.iov++;
				r.n_iov--;
			}
		}
	}
	return 0;
}

static bool all_zero(const u8 *p, u64 n)
{
	return !n || (!p[0] && !memcmp(p, p + 1, n - 1));
}

/* guest: offset in the image that corresponds to s->host. fresh: the file never was that long. */
static int write_span(struct qcow2_image *q, struct span *s, u64 guest, const struct iovec *iov, unsigned n_iov, bool fresh)
{
	u64 head = s->at - s->from, tail = s->to - s->at - s->n;
	u8 *h = q->bounce, *t = q->bounce + q->cluster;
	struct iovec v[IOV_MAX_HERE];
	unsigned k = 0;
	if (n_iov > IOV_MAX_HERE - 2)
		return -EINVAL;
	int r = qcow2_read_now(q, guest + s->from, h, head);
	if (!r)
		r = qcow2_read_now(q, guest + s->at + s->n, t, tail);
	if (r)
		return r;
	if (fresh && all_zero(h, head)) {
		s->from = s->at;
		head = 0;
	}
	if (fresh && all_zero(t, tail))
		tail = 0;
	if (head)
		v[k++] = (struct iovec){h, head};
	k += qcow2_slice(iov, n_iov, 0, s->n, v + k);
	if (tail)
		v[k++] = (struct iovec){t, tail};
	return qcow2_write_vec(q, s->host + s->from, v, k, head + s->n + tail);
}

/* Bits of the subclusters that [from, to) of a cluster touches. */
static u64 touched(const struct qcow2_image *q, u64 from, u64 to)
{
	u32 first = (u32)(from >> q->subcluster_bits), last = (u32)((to - 1) >> q->subcluster_bits);
	return (BIT64(last + 1) - 1) & ~(BIT64(first) - 1);
}

int qcow2_release(struct qcow2_image *q, u64 entry)
{
	u64 host = entry & QCOW2_OFFSET_MASK, bytes = q->cluster;
	if (entry & QCOW2_COMPRESSED) {
		qcow2_packed_place(q, entry, &host, &bytes);
		bytes += qcow2_in_cluster(q, host);
		host -= qcow2_in_cluster(q, host);
	} else if (!host) {
		return 0;
	}
	if (host >= q->end)
		return qcow2_damaged(q, "an entry points outside the file");
	return qcow2_free_later(q, host, qcow2_clusters(q, bytes));
}

/* ---- into the cluster that is there already ---- */
static int fill_own(struct qcow2_image *q, u64 off, u64 len, const struct iovec *iov, unsigned n_iov, u64 host, u64 *done)
{
	u64 a = qcow2_in_cluster(q, off), n = MIN(len, q->cluster - a), sub = 1ull << q->subcluster_bits;
	struct span s = {host, a & ~(sub - 1), a, n, ALIGN_UP(a + n, sub)};
	struct qcow2_extent x;
	struct qcow2_table *t = NULL;
	u32 at = 0;
	int r = qcow2_check_data(q, host, true);
	if (!r)
		r = qcow2_map(q, off, 1, &x);
	if (!r && x.kind == QCOW2_EXT_DATA)
		s.from = a;
	if (!r)
		r = qcow2_map(q, off + n - 1, 1, &x);
	if (!r && x.kind == QCOW2_EXT_DATA)
		s.to = a + n;
	if (!r)
		r = write_span(q, &s, off - a, iov, n_iov, false);
	if (!r)
		r = qcow2_l2_for_write(q, off, &t, &at);
	if (r)
		return r;
	struct qcow2_entry v = qcow2_entry_get(q, t, at);
	if (q->per_cluster > 1) {
		u64 bits = touched(q, a, a + n);
		v.bitmap = (v.bitmap | bits) & ~(bits << 32);
	} else {
		v.entry &= ~QCOW2_ZERO;
	}
	qcow2_entry_set(q, t, at, v);
	*done = n;
	return 0;
}

/* ---- into new clusters ---- */
static bool has_own(const struct qcow2_entry *v)
{
	return !(v->entry & QCOW2_COMPRESSED) && v->entry & QCOW2_OFFSET_MASK && v->entry & QCOW2_COPIED;
}

/* Does its cluster hold data that has to move as a whole? */
static bool has_data(const struct qcow2_entry *v)
{
	return v->entry & (QCOW2_COMPRESSED | QCOW2_OFFSET_MASK);
}

/* Clusters from at on that all need a new one, up to max and the table's end. */
static u64 count_new(const struct qcow2_image *q, const struct qcow2_table *t, u32 at, u64 max)
{
	u64 n = 0;
	for (; n < max && at < q->cluster; n++, at += q->entry_bytes) {
		struct qcow2_entry v = qcow2_entry_get(q, t, at);
		if (has_own(&v))
			break;
	}
	return n;
}

/* The entry of a cluster of which [from, to) is written. */
static struct qcow2_entry new_entry(const struct qcow2_image *q, const struct qcow2_entry *old, u64 host, u64 from, u64 to)
{
	struct qcow2_entry v = {host | QCOW2_COPIED, 0};
	if (q->per_cluster == 1)
		return v;
	u64 bits = has_data(old) ? UINT32_MAX : touched(q, from, to);
	v.bitmap = bits | ((old->bitmap >> 32 & ~bits) << 32);
	return v;
}

static int link_clusters(struct qcow2_image *q, u64 off, u64 n, u64 host)
{
	u64 a = qcow2_in_cluster(q, off), end = a + n;
	struct qcow2_table *t = NULL;
	u32 at = 0;
	int r = qcow2_l2_for_write(q, off, &t, &at);
	for (u64 c = 0; c < end && !r; c += q->cluster, at += q->entry_bytes) {
		struct qcow2_entry old = qcow2_entry_get(q, t, at);
		qcow2_entry_set(q, t, at, new_entry(q, &old, host + c, c ? 0 : a, MIN(end - c, q->cluster)));
		r = qcow2_release(q, old.entry);
	}
	return r;
}

static int fill_new(struct qcow2_image *q, u64 off, u64 len, const struct iovec *iov, unsigned n_iov, u64 *done)
{
	u64 a = qcow2_in_cluster(q, off), sub = 1ull << q->subcluster_bits, host = 0, got = 0, was_end = q->end;
	struct qcow2_table *t = NULL;
	u32 at = 0;
	int r = qcow2_l2_for_write(q, off, &t, &at);
	if (r)
		return r;
	u64 want = count_new(q, t, at, qcow2_clusters(q, a + len));
	struct qcow2_entry first = qcow2_entry_get(q, t, at);
	r = qcow2_alloc(q, want, &host, &got);
	if (r)
		return r;
	u64 n = MIN(len, got * q->cluster - a);
	struct qcow2_entry last = qcow2_entry_get(q, t, at + (u32)(got - 1) * q->entry_bytes);
	struct span s = {host, has_data(&first) ? 0 : a & ~(sub - 1), a, n,
			 has_data(&last) ? got * q->cluster : ALIGN_UP(a + n, sub)};
	r = write_span(q, &s, off - a, iov, n_iov, host >= was_end);
	if (r) {
		qcow2_unalloc(q, host, got);
		return r;
	}
	*done = n;
	return link_clusters(q, off, n, host);
}

int qcow2_write_new(struct qcow2_image *q, u64 off, u64 len, const struct iovec *iov, unsigned n_iov, u64 *done)
{
	struct qcow2_table *t = NULL;
	u32 at = 0;
	int r = qcow2_l2_for_write(q, off, &t, &at);
	if (r)
		return r;
	struct qcow2_entry v = qcow2_entry_get(q, t, at);
	if (has_own(&v))
		return fill_own(q, off, len, iov, n_iov, v.entry & QCOW2_OFFSET_MASK, done);
	return fill_new(q, off, len, iov, n_iov, done);
}
