/*
 * An image with the dirty bit: whoever wrote it last did not end. Its tables are intact, its refcounts may be
 * too high (leaked clusters) or, with lazy refcounts, too low. They are counted anew from all L1 and L2 tables,
 * snapshots' too, in memory that is bounded, and corrected.
 */
#include <stdlib.h>
#include <string.h>

#include "backends/qcow2_int.h"

enum { CLUSTERS_MAX = 32 << 20, TABLES_MAX = 1 << 20, ENTRIES_MAX = 16 << 20 };

struct census {
	struct qcow2_image *q;
	u32 *count;
	u64 clusters;
	u32 tables;  /* L2 tables looked at: what snapshots share, once for each */
	u64 entries; /* L1 entries */
};

static int give_up(struct qcow2_image *q, struct err *e, const char *why)
{
	return err_set(e, EUCLEAN, "%s: was not closed cleanly and %s (qemu-img check -r all mends it)", q->name, why);
}

static int count(struct census *c, u64 host, u64 bytes)
{
	u64 first = host >> c->q->h.cluster_bits, last = (host + bytes - 1) >> c->q->h.cluster_bits;
	if (last >= c->clusters)
		return -EINVAL;
	for (u64 i = first; i <= last; i++)
		c->count[i]++;
	return 0;
}

static int count_entry(struct census *c, u64 entry)
{
	u64 host = entry & QCOW2_OFFSET_MASK, bytes = c->q->cluster;
	if (entry & QCOW2_COMPRESSED) {
		qcow2_packed_place(c->q, entry, &host, &bytes);
		/* the last sectors may lie beyond the end of the file, not beyond that of its last cluster */
		return count(c, host, bytes);
	}
	return host ? count(c, host, bytes) : 0;
}

static int count_l2(struct census *c, u64 host)
{
	struct qcow2_table *t = NULL;
	if (host & (c->q->cluster - 1) || c->tables++ >= TABLES_MAX)
		return -EINVAL;
	int r = count(c, host, c->q->cluster);
	if (!r)
		r = qcow2_cache_get(c->q, &c->q->l2, host, false, &t);
	for (u32 at = 0; at < c->q->cluster && !r; at += c->q->entry_bytes)
		r = count_entry(c, qcow2_entry_get(c->q, t, at).entry);
	return r;
}

static int count_l1(struct census *c, u64 host, u32 entries)
{
	u8 p[512 * 8];
	c->entries += entries;
	if (c->entries > ENTRIES_MAX)
		return -EINVAL;
	int r = entries ? count(c, host, (u64)entries * 8) : 0;
	for (u32 i = 0; i < entries && !r; i++) {
		if (i % 512 == 0)
			r = disk_file_read(&c->q->file, host + 8ull * i, p, sizeof(p));
		u64 l2 = qcow2_get64(p + i % 512 * 8) & QCOW2_OFFSET_MASK;
		if (!r && l2)
			r = count_l2(c, l2);
	}
	return r;
}

static int count_all(struct census *c, struct err *e)
{
	struct qcow2_image *q = c->q;
	struct qcow2_snapshot *s = NULL;
	u64 table = 0;
	int r = qcow2_snapshots_read(q, &s, &table, e);
	if (r)
		return r;
	r = count(c, 0, q->cluster);
	if (!r)
		r = count_l1(c, q->h.l1_offset, q->h.l1_entries);
	if (!r)
		r = count(c, q->h.reftable_offset, (u64)q->h.reftable_clusters << q->h.cluster_bits);
	for (u32 i = 0; i < q->reftable_entries && !r; i++)
		if (q->reftable[i])
			r = count(c, q->reftable[i], q->cluster);
	if (!r && table)
		r = count(c, q->h.snapshots_offset, table);
	for (u32 i = 0; i < q->h.n_snapshots && !r; i++)
		r = count_l1(c, s[i].l1_offset, s[i].l1_entries);
	free(s);
	return r ? give_up(q, e, "its tables cannot be counted") : 0;
}

/* Blocks that are missing altogether are not made: only lazy refcounts leave such a gap. */
static int correct(struct census *c, u32 *wrong, struct err *e)
{
	for (u64 i = 0; i < c->clusters; i++) {
		u64 v = 0;
		int r = qcow2_ref_get(c->q, i, &v);
		if (!r && v != c->count[i]) {
			r = qcow2_ref_set(c->q, i, c->count[i]);
			++*wrong;
		}
		if (r)
			return give_up(c->q, e, "its refcounts cannot be corrected");
	}
	return 0;
}

int qcow2_repair(struct qcow2_image *q, struct err *e)
{
	struct census c = {.q = q, .clusters = q->end >> q->h.cluster_bits};
	u32 wrong = 0;
	if (c.clusters > CLUSTERS_MAX)
		return give_up(q, e, "is too large to be mended in passing");
	c.count = calloc(c.clusters, sizeof(*c.count));
	if (!c.count)
		return give_up(q, e, "there is no memory to mend it");
	int r = count_all(&c, e);
	if (!r)
		r = correct(&c, &wrong, e);
	free(c.count);
	if (r)
		return r;
	r = qcow2_cache_write(q, &q->refs);
	if (!r)
		r = disk_file_sync(&q->file);
	if (r)
		return give_up(q, e, "its refcounts cannot be written");
	q->marked_dirty = true; /* and so cleared at the end */
	log_msg(LOG_INFO, "%s: was not closed cleanly; %u refcounts corrected", q->name, wrong);
	return 0;
}
