/*
 * Zeroes and discards: whole clusters by their entries, the rest by writing. Version 2 has no entry that says
 * zero; there an image with another one behind it gets real zeroes.
 */
#include <stdlib.h>

#include "backends/qcow2_int.h"

enum { PIECE = 65536 };

static bool reads_zero(struct qcow2_image *q, const struct qcow2_extent *x)
{
	return x->kind == QCOW2_EXT_ZERO || (x->kind == QCOW2_EXT_HOLE && !q->backing);
}

static int write_plain(struct qcow2_image *q, u64 off, u64 len)
{
	static const u8 zeroes[PIECE];
	int r = 0;
	while (len && !r) {
		struct iovec iov = {(void *)zeroes, MIN(len, sizeof(zeroes))};
		struct qcow2_extent x;
		u64 n = iov.iov_len;
		r = qcow2_map(q, off, n, &x);
		if (r)
			break;
		if (reads_zero(q, &x)) {
			n = x.len;
		} else if (x.kind == QCOW2_EXT_DATA && x.in_place) {
			n = x.len;
			if (qcow2_is_metadata(q, x.host, n))
				r = qcow2_damaged(q, "an entry points at a table");
			else
				r = disk_file_write(&q->file, x.host, zeroes, n);
		} else {
			r = qcow2_write_new(q, off, n, &iov, 1, &n);
		}
		off += n;
		len -= n;
	}
	return r;
}

/* What the entry of a cluster becomes; false: it is so already. */
static bool zero_entry(const struct qcow2_image *q, const struct qcow2_entry *old, bool drop, bool hole, struct qcow2_entry *v)
{
	bool keep = !drop && old->entry & QCOW2_COPIED && !(old->entry & QCOW2_COMPRESSED);
	u64 host = keep ? old->entry & (QCOW2_OFFSET_MASK | QCOW2_COPIED) : 0;
	if (!(host & QCOW2_OFFSET_MASK))
		host = 0;
	if (hole && !host)
		*v = (struct qcow2_entry){0};
	else if (q->per_cluster > 1)
		*v = (struct qcow2_entry){host, (u64)UINT32_MAX << 32};
	else
		*v = (struct qcow2_entry){host | QCOW2_ZERO, 0};
	return v->entry != old->entry || v->bitmap != old->bitmap;
}

/* off and len are whole clusters. */
static int zero_clusters(struct qcow2_image *q, u64 off, u64 len, bool drop)
{
	bool hole = !q->backing;
	int r = 0;
	while (len && !r) {
		struct qcow2_extent x;
		struct qcow2_table *t = NULL;
		struct qcow2_entry old, v;
		u32 at = 0;
		u64 n = q->cluster;
		r = qcow2_map(q, off, len, &x);
		if (!r && x.kind == QCOW2_EXT_HOLE && hole && x.len >= q->cluster) {
			n = x.len & ~(q->cluster - 1);
		} else if (!r) {
			r = qcow2_l2_for_write(q, off, &t, &at);
			if (r)
				break;
			old = qcow2_entry_get(q, t, at);
			if (zero_entry(q, &old, drop, hole, &v)) {
				qcow2_entry_set(q, t, at, v);
				if (!(v.entry & QCOW2_OFFSET_MASK))
					r = qcow2_release(q, old.entry);
			}
		}
		off += n;
		len -= n;
	}
	return r;
}

/* The disk's last cluster counts as whole. */
static void inner(const struct qcow2_image *q, u64 off, u64 len, u64 *from, u64 *to)
{
	*from = ALIGN_UP(off, q->cluster);
	*to = off + len == q->size ? ALIGN_UP(off + len, q->cluster) : (off + len) & ~(q->cluster - 1);
	if (*to < *from)
		*to = *from;
}

int qcow2_write_zeroes(struct qcow2_image *q, u64 off, u64 len, bool unmap)
{
	u64 from, to, end = off + len;
	inner(q, off, len, &from, &to);
	if (q->h.version < 3 && (q->backing || !unmap))
		to = from;
	if (to == from)
		return write_plain(q, off, len);
	int r = write_plain(q, off, from - off);
	if (!r)
		r = zero_clusters(q, from, to - from, unmap);
	return !r && to < end ? write_plain(q, to, end - to) : r;
}

/* Discarded data must not come back as what an image behind this one holds. */
int qcow2_discard(struct qcow2_image *q, u64 off, u64 len)
{
	u64 from, to;
	inner(q, off, len, &from, &to);
	if (to == from || (q->h.version < 3 && q->backing))
		return 0;
	return zero_clusters(q, from, to - from, true);
}
