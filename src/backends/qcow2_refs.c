/*
 * Refcounts: a table of blocks of counters, one for each cluster of the file, 1 to 64 bits wide (spec "Refcount
 * table and refcount blocks"). What rises is changed in the cache at once; what falls waits for a commit.
 */
#include <fcntl.h>
#include <linux/falloc.h>
#include <string.h>

#include "backends/qcow2_int.h"

u32 qcow2_refs_per_block(const struct qcow2_image *q)
{
	return (u32)(q->cluster * 8 >> q->h.refcount_order);
}

/* Counters narrower than a byte fill it from the low bit on; wider ones are big-endian. */
u64 qcow2_ref_read(const struct qcow2_image *q, const u8 *block, u64 i)
{
	u32 order = q->h.refcount_order;
	if (order < 3) {
		u32 bits = 1u << order, per = 8 >> order;
		return (block[i / per] >> (i % per * bits)) & ((1u << bits) - 1);
	}
	u64 v = 0;
	u32 n = 1u << (order - 3);
	for (u32 k = 0; k < n; k++)
		v = v << 8 | block[i * n + k];
	return v;
}

int qcow2_ref_write(const struct qcow2_image *q, u8 *block, u64 i, u64 v)
{
	u32 order = q->h.refcount_order;
	if (order < 6 && v >> (1u << order))
		return -ERANGE;
	if (order < 3) {
		u32 bits = 1u << order, per = 8 >> order, shift = (u32)(i % per) * bits;
		u8 *p = &block[i / per];
		*p = (u8)((*p & ~(((1u << bits) - 1) << shift)) | v << shift);
		return 0;
	}
	u32 n = 1u << (order - 3);
	for (u32 k = n; k-- > 0; v >>= 8)
		block[i * n + k] = (u8)v;
	return 0;
}

/* -ENOENT: no block, so the count is 0. */
static int block_of(struct qcow2_image *q, u64 cluster, struct qcow2_table **t)
{
	u64 b = cluster / qcow2_refs_per_block(q);
	if (b >= q->reftable_entries || !q->reftable[b])
		return -ENOENT;
	return qcow2_cache_get(q, &q->refs, q->reftable[b], false, t);
}

int qcow2_ref_get(struct qcow2_image *q, u64 cluster, u64 *v)
{
	struct qcow2_table *t = NULL;
	int r = block_of(q, cluster, &t);
	*v = r ? 0 : qcow2_ref_read(q, t->data, cluster % qcow2_refs_per_block(q));
	return r == -ENOENT ? 0 : r;
}

int qcow2_ref_set(struct qcow2_image *q, u64 cluster, u64 v)
{
	struct qcow2_table *t = NULL;
	u64 i = cluster % qcow2_refs_per_block(q);
	int r = block_of(q, cluster, &t);
	if (!r)
		r = qcow2_ref_write(q, t->data, i, v);
	if (!r)
		qcow2_table_changed(&q->refs, t, (u32)((i << q->h.refcount_order) / 8),
				    MAX((1u << q->h.refcount_order) / 8, 1));
	return r;
}

/* The first free clusters from free_hint on: at most want, in a row. */
static int find_free(struct qcow2_image *q, u64 want, u64 *first, u64 *got)
{
	u64 c = q->free_hint, n = 0;
	u32 per = qcow2_refs_per_block(q);
	while (n < want) {
		struct qcow2_table *t = NULL;
		if (c > (QCOW2_OFFSET_MASK >> q->h.cluster_bits) - want)
			return -EFBIG;
		int r = block_of(q, c, &t);
		if (r == -ENOENT) {
			if (n)
				break;
			r = qcow2_add_refblock(q, c);
			if (!r)
				continue;
		}
		if (r)
			return r;
		do {
			bool used = qcow2_ref_read(q, t->data, c % per) != 0;
			if (used && n)
				goto out;
			if (!used && !n)
				*first = c;
			n += !used;
			c++;
		} while (c % per && n < want);
	}
out:
	*got = n;
	return 0;
}

int qcow2_alloc(struct qcow2_image *q, u64 want, u64 *host, u64 *got)
{
	u64 first = 0;
	int r = find_free(q, want, &first, got);
	if (r)
		return r;
	*host = first << q->h.cluster_bits;
	if (qcow2_is_metadata(q, *host, *got << q->h.cluster_bits))
		return qcow2_damaged(q, "a table has no reference count");
	for (u64 i = 0; i < *got && !r; i++)
		r = qcow2_ref_set(q, first + i, 1);
	q->free_hint = first + *got;
	q->end = MAX(q->end, q->free_hint << q->h.cluster_bits);
	return r;
}

int qcow2_unalloc(struct qcow2_image *q, u64 host, u64 n)
{
	u64 first = host >> q->h.cluster_bits;
	int r = 0;
	for (u64 i = 0; i < n && !r; i++)
		r = qcow2_ref_set(q, first + i, 0);
	q->free_hint = MIN(q->free_hint, first);
	return r;
}

int qcow2_free_later(struct qcow2_image *q, u64 host, u64 n)
{
	int r = 0;
	for (u64 i = 0; i < n && !r; i++) {
		if (q->n_freed == QCOW2_FREED_MAX)
			r = qcow2_commit(q);
		if (!r)
			q->freed[q->n_freed++] = (host >> q->h.cluster_bits) + i;
	}
	return r;
}

static int drop_reference(struct qcow2_image *q, u64 cluster, bool *gone)
{
	u64 v = 0;
	int r = qcow2_ref_get(q, cluster, &v);
	if (r)
		return r;
	if (!v)
		return qcow2_damaged(q, "a reference count would fall below zero");
	*gone = v == 1;
	return qcow2_ref_set(q, cluster, v - 1);
}

/* The host gets the space back; whether it takes it does not matter. */
static void punch(struct qcow2_image *q, u64 first, u64 n)
{
	if (n && fallocate(q->file.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)(first << q->h.cluster_bits),
			   (off_t)(n << q->h.cluster_bits)))
		return;
}

int qcow2_drop_references(struct qcow2_image *q)
{
	u32 n = 0;
	int r = 0;
	for (u32 i = 0; i < q->n_freed && !r; i++) {
		u64 c = q->freed[i];
		bool gone = false;
		r = drop_reference(q, c, &gone);
		if (r || !gone)
			continue;
		qcow2_cache_drop(&q->l2, c << q->h.cluster_bits);
		qcow2_metadata_del(q, c << q->h.cluster_bits);
		q->free_hint = MIN(q->free_hint, c);
		q->freed[n++] = c;
	}
	q->n_freed = 0;
	q->n_gone = n;
	return r ? r : qcow2_cache_write(q, &q->refs);
}

void qcow2_give_back(struct qcow2_image *q)
{
	u64 first = 0, n = 0;
	for (u32 i = 0; i < q->n_gone; i++) {
		u64 c = q->freed[i];
		if (n && c == first + n) {
			n++;
			continue;
		}
		punch(q, first, n);
		first = c;
		n = 1;
	}
	punch(q, first, n);
	q->n_gone = 0;
}
