/*
 * From guest offsets to clusters: L1 entry, L2 table, L2 entry (spec "Cluster mapping"). Extended L2 entries
 * divide a cluster into 32 subclusters, each with its own state; an ordinary cluster is its own only one.
 */
#include <string.h>

#include "backends/qcow2_int.h"

struct qcow2_entry qcow2_entry_get(const struct qcow2_image *q, const struct qcow2_table *t, u32 at)
{
	return (struct qcow2_entry){qcow2_get64(t->data + at), q->entry_bytes == 16 ? qcow2_get64(t->data + at + 8) : 0};
}

void qcow2_entry_set(struct qcow2_image *q, struct qcow2_table *t, u32 at, struct qcow2_entry v)
{
	qcow2_put64(t->data + at, v.entry);
	if (q->entry_bytes == 16)
		qcow2_put64(t->data + at + 8, v.bitmap);
	qcow2_table_changed(&q->l2, t, at, q->entry_bytes);
}

int qcow2_check_data(struct qcow2_image *q, u64 host, bool write)
{
	if (qcow2_in_cluster(q, host) || host >= q->end)
		return qcow2_damaged(q, "an entry points outside the file");
	if (write && qcow2_is_metadata(q, host, q->cluster))
		return qcow2_damaged(q, "an entry points at a table");
	return 0;
}

/* -EIO: cannot be. */
static int kind_of(const struct qcow2_image *q, const struct qcow2_entry *v, u32 sub)
{
	bool host = v->entry & QCOW2_OFFSET_MASK;
	if (v->entry & QCOW2_COMPRESSED)
		return QCOW2_EXT_PACKED;
	if (q->per_cluster > 1) {
		bool data = v->bitmap >> sub & 1, zero = v->bitmap >> (32 + sub) & 1;
		if (data && (zero || !host))
			return -EIO;
		return data ? QCOW2_EXT_DATA : zero ? QCOW2_EXT_ZERO : QCOW2_EXT_HOLE;
	}
	if (q->h.version >= 3 && v->entry & QCOW2_ZERO)
		return QCOW2_EXT_ZERO;
	return host ? QCOW2_EXT_DATA : QCOW2_EXT_HOLE;
}

static u64 l1_index(const struct qcow2_image *q, u64 off)
{
	return off >> (q->h.cluster_bits + q->l2_bits);
}

static u32 l2_at(const struct qcow2_image *q, u64 off)
{
	return (u32)(off >> q->h.cluster_bits & ((1u << q->l2_bits) - 1)) * q->entry_bytes;
}

/* The state of off's subcluster. */
static int look(struct qcow2_image *q, const struct qcow2_table *t, u64 off, struct qcow2_extent *x)
{
	struct qcow2_entry v = qcow2_entry_get(q, t, l2_at(q, off));
	int kind = kind_of(q, &v, (u32)(qcow2_in_cluster(q, off) >> q->subcluster_bits));
	if (kind < 0)
		return qcow2_damaged(q, "an L2 entry contradicts itself");
	u64 unit = kind == QCOW2_EXT_PACKED ? q->cluster : 1ull << q->subcluster_bits;
	*x = (struct qcow2_extent){.kind = (enum qcow2_kind)kind, .len = unit - (off & (unit - 1)), .entry = v.entry};
	if (kind != QCOW2_EXT_DATA)
		return 0;
	x->host = (v.entry & QCOW2_OFFSET_MASK) + qcow2_in_cluster(q, off);
	x->in_place = v.entry & QCOW2_COPIED;
	return qcow2_check_data(q, v.entry & QCOW2_OFFSET_MASK, false);
}

static bool continues(const struct qcow2_extent *x, const struct qcow2_extent *y)
{
	if (x->kind != y->kind || x->kind == QCOW2_EXT_PACKED)
		return false;
	return x->kind != QCOW2_EXT_DATA || (y->host == x->host + x->len && y->in_place == x->in_place);
}

int qcow2_map(struct qcow2_image *q, u64 off, u64 len, struct qcow2_extent *x)
{
	u64 l2 = q->l1[l1_index(q, off)] & QCOW2_OFFSET_MASK, span = q->cluster << q->l2_bits;
	u64 most = MIN(len, span - (off & (span - 1)));
	struct qcow2_table *t = NULL;
	if (!l2) {
		*x = (struct qcow2_extent){.kind = QCOW2_EXT_HOLE, .len = most};
		return 0;
	}
	int r = qcow2_cache_get(q, &q->l2, l2, false, &t);
	if (!r)
		r = look(q, t, off, x);
	while (!r && x->len < most) {
		struct qcow2_extent y;
		r = look(q, t, off + x->len, &y);
		if (r || !continues(x, &y))
			break;
		x->len += y.len;
	}
	x->len = MIN(x->len, most);
	return r;
}

/* ---- for writing ---- */
/* A new table, empty or with what the old one, which a snapshot shares, holds. It is on the disk before an L1
 * entry is there to name it. */
static int new_l2(struct qcow2_image *q, u64 index, struct qcow2_table **t)
{
	u64 old = q->l1[index] & QCOW2_OFFSET_MASK, host = 0, got = 0;
	int r = qcow2_alloc(q, 1, &host, &got);
	if (r)
		return r;
	if (old)
		r = qcow2_cache_get(q, &q->l2, old, false, t);
	if (!r && old)
		memcpy(q->bounce, (*t)->data, q->cluster);
	if (!r)
		r = qcow2_metadata_add(q, host, 1);
	if (!r) {
		r = qcow2_cache_get(q, &q->l2, host, true, t);
		if (r)
			qcow2_metadata_del(q, host);
	}
	if (r) {
		qcow2_unalloc(q, host, 1);
		return r;
	}
	if (old)
		memcpy((*t)->data, q->bounce, q->cluster);
	r = disk_file_write(&q->file, host, (*t)->data, q->cluster);
	if (!r)
		r = disk_file_sync(&q->file);
	if (r) {
		qcow2_cache_drop(&q->l2, host);
		qcow2_metadata_del(q, host);
		qcow2_unalloc(q, host, 1);
		return r;
	}
	q->l1[index] = host | QCOW2_COPIED;
	q->l1_lo = q->l1_lo < q->l1_hi ? MIN(q->l1_lo, (u32)index) : (u32)index;
	q->l1_hi = MAX(q->l1_hi, (u32)index + 1);
	return old ? qcow2_free_later(q, old, 1) : 0;
}

int qcow2_l2_for_write(struct qcow2_image *q, u64 off, struct qcow2_table **t, u32 *at)
{
	u64 index = l1_index(q, off), entry = q->l1[index];
	if (q->broken)
		return -EIO;
	*at = l2_at(q, off);
	int r = qcow2_begin_changes(q);
	if (r)
		return r;
	if (entry & QCOW2_OFFSET_MASK && entry & QCOW2_COPIED)
		return qcow2_cache_get(q, &q->l2, entry & QCOW2_OFFSET_MASK, false, t);
	return new_l2(q, index, t);
}
