/*
 * Where an image's own tables lie: so that no guest write ever reaches one, whatever the image claims. Built
 * when the image is opened, which refuses tables that overlap or lie outside the file.
 */
#include <stdlib.h>
#include <string.h>

#include "backends/qcow2_int.h"

enum { TABLES_MAX = 8 << 20 }; /* clusters of tables: as many as tables of 512 GiB in the smallest clusters */

/* Index of the first entry >= cluster. */
static u32 find(const struct qcow2_image *q, u64 cluster)
{
	u32 lo = 0, hi = q->n_metadata;
	while (lo < hi) {
		u32 mid = lo + (hi - lo) / 2;
		if (q->metadata[mid] < cluster)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

bool qcow2_is_metadata(const struct qcow2_image *q, u64 host, u64 len)
{
	u64 first = host >> q->h.cluster_bits, last = (host + len - 1) >> q->h.cluster_bits;
	u32 i = find(q, first);
	return i < q->n_metadata && q->metadata[i] <= last;
}

static int make_room(struct qcow2_image *q, u64 n)
{
	if (q->n_metadata + n <= q->metadata_room)
		return 0;
	u64 room = (q->n_metadata + n) * 2;
	u64 *p = n <= TABLES_MAX && room <= 2 * TABLES_MAX ? realloc(q->metadata, room * sizeof(*p)) : NULL;
	if (!p)
		return -ENOMEM;
	q->metadata = p;
	q->metadata_room = (u32)room;
	return 0;
}

int qcow2_metadata_add(struct qcow2_image *q, u64 host, u64 clusters)
{
	u64 first = host >> q->h.cluster_bits;
	u32 i = find(q, first);
	int r = make_room(q, clusters);
	if (r)
		return r;
	memmove(q->metadata + i + clusters, q->metadata + i, (q->n_metadata - i) * sizeof(*q->metadata));
	for (u64 k = 0; k < clusters; k++)
		q->metadata[i + k] = first + k;
	q->n_metadata += (u32)clusters;
	return 0;
}

void qcow2_metadata_del(struct qcow2_image *q, u64 host)
{
	u64 cluster = host >> q->h.cluster_bits;
	u32 i = find(q, cluster);
	if (i == q->n_metadata || q->metadata[i] != cluster)
		return;
	q->n_metadata--;
	memmove(q->metadata + i, q->metadata + i + 1, (q->n_metadata - i) * sizeof(*q->metadata));
}

/* ---- opening ---- */
static int bad(struct qcow2_image *q, struct err *e, const char *what)
{
	return err_set(e, EINVAL, "%s: damaged qcow2 image: %s (qemu-img check may know more)", q->name, what);
}

/* Adds at the end; sorted afterwards. */
static int put(struct qcow2_image *q, u64 host, u64 bytes, const char *outside, struct err *e)
{
	u64 n = qcow2_clusters(q, bytes);
	if (qcow2_in_cluster(q, host) || !range_within(host, bytes, q->end))
		return bad(q, e, outside);
	if (make_room(q, n))
		return err_set(e, ENOMEM, "%s: too many tables for the memory doppel gives them", q->name);
	for (u64 i = 0; i < n; i++)
		q->metadata[q->n_metadata++] = (host >> q->h.cluster_bits) + i;
	return 0;
}

static int put_l2_tables(struct qcow2_image *q, struct err *e)
{
	int r = 0;
	for (u32 i = 0; i < q->h.l1_entries && !r; i++)
		if (q->l1[i] & QCOW2_OFFSET_MASK)
			r = put(q, q->l1[i] & QCOW2_OFFSET_MASK, q->cluster, "an L2 table is misaligned or outside the file", e);
	return r;
}

static int put_snapshots(struct qcow2_image *q, struct err *e)
{
	struct qcow2_snapshot *s = NULL;
	u64 bytes = 0;
	int r = qcow2_snapshots_read(q, &s, &bytes, e);
	if (!r && bytes)
		r = put(q, q->h.snapshots_offset, bytes, "the snapshot table is outside the file", e);
	for (u32 i = 0; i < q->h.n_snapshots && !r; i++)
		if (s[i].l1_entries)
			r = put(q, s[i].l1_offset, (u64)s[i].l1_entries * 8, "a snapshot's L1 table is outside the file", e);
	free(s);
	return r;
}

static int put_refcounts(struct qcow2_image *q, struct err *e)
{
	int r = put(q, q->h.reftable_offset, (u64)q->h.reftable_clusters << q->h.cluster_bits,
		    "the refcount table is outside the file", e);
	for (u32 i = 0; i < q->reftable_entries && !r; i++)
		if (q->reftable[i])
			r = put(q, q->reftable[i], q->cluster, "a refcount block is misaligned or outside the file", e);
	return r;
}

static int order(const void *a, const void *b)
{
	u64 x = *(const u64 *)a, y = *(const u64 *)b;
	return x < y ? -1 : x > y;
}

int qcow2_layout_check(struct qcow2_image *q, struct err *e)
{
	int r = put(q, 0, q->cluster, "it has no header", e);
	if (!r && q->h.l1_entries)
		r = put(q, q->h.l1_offset, (u64)q->h.l1_entries * 8, "the L1 table is outside the file", e);
	if (!r)
		r = put_l2_tables(q, e);
	if (!r && q->reftable)
		r = put_refcounts(q, e);
	if (!r && q->reftable)
		r = put_snapshots(q, e);
	if (r)
		return r;
	qsort(q->metadata, q->n_metadata, sizeof(*q->metadata), order);
	for (u32 i = 1; i < q->n_metadata; i++)
		if (q->metadata[i] == q->metadata[i - 1])
			return bad(q, e, "its tables overlap");
	return 0;
}
