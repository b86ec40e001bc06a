/* Writing changed tables in the order that qcow2_int.h gives. */
#include "backends/qcow2_int.h"

bool qcow2_clean(const struct qcow2_image *q)
{
	return !q->l2.n_dirty && q->l1_lo >= q->l1_hi && !q->n_freed;
}

static int write_l1(struct qcow2_image *q)
{
	u8 p[512 * 8];
	int r = 0;
	while (q->l1_lo < q->l1_hi && !r) {
		u32 n = MIN(q->l1_hi - q->l1_lo, 512u);
		for (u32 i = 0; i < n; i++)
			qcow2_put64(p + 8 * i, q->l1[q->l1_lo + i]);
		r = disk_file_write(&q->file, q->h.l1_offset + 8ull * q->l1_lo, p, 8ull * n);
		if (!r)
			q->l1_lo += n;
	}
	if (!r)
		q->l1_lo = q->l1_hi = 0;
	return r;
}

int qcow2_commit(struct qcow2_image *q)
{
	if (qcow2_clean(q))
		return 0;
	if (q->broken)
		return -EIO;
	int r = disk_file_sync(&q->file);
	if (!r)
		r = qcow2_cache_write(q, &q->refs);
	if (!r && q->h.version < 3)
		r = disk_file_sync(&q->file);
	if (!r)
		r = qcow2_cache_write(q, &q->l2);
	if (!r)
		r = write_l1(q);
	if (!r && q->h.version < 3 && q->n_freed)
		r = disk_file_sync(&q->file);
	if (!r && q->n_freed && q->quiesce)
		q->quiesce(q->arg); /* transfers may still be under way in what will be used again */
	if (!r && q->n_freed)
		r = qcow2_drop_references(q);
	if (!r)
		r = disk_file_sync(&q->file);
	if (!r)
		qcow2_give_back(q);
	return r;
}

/* The three feature words are next to each other; no one else's autoclear bits survive a change (spec). */
int qcow2_write_features(struct qcow2_image *q)
{
	u8 p[24];
	if (q->h.version < 3)
		return 0;
	qcow2_put64(p, q->h.incompatible);
	qcow2_put64(p + 8, q->h.compatible);
	qcow2_put64(p + 16, q->h.autoclear);
	int r = disk_file_write(&q->file, 72, p, sizeof(p));
	return r ? r : disk_file_sync(&q->file);
}

int qcow2_begin_changes(struct qcow2_image *q)
{
	if (q->marked_dirty)
		return 0;
	q->h.incompatible |= QCOW2_INCOMPAT_DIRTY;
	q->h.autoclear = 0;
	int r = qcow2_write_features(q);
	q->marked_dirty = !r;
	return r;
}

int qcow2_end_changes(struct qcow2_image *q)
{
	int r = qcow2_commit(q);
	if (!r)
		r = qcow2_cache_write(q, &q->refs); /* those that fell */
	if (!r)
		r = disk_file_sync(&q->file);
	if (r || q->broken || !q->marked_dirty)
		return r;
	q->h.incompatible &= ~(u64)QCOW2_INCOMPAT_DIRTY;
	q->marked_dirty = false;
	return qcow2_write_features(q);
}
