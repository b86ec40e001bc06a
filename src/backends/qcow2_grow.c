/*
 * More refcount blocks, and a larger refcount table. New tables are complete and on the disk before anything
 * names them, so a crash leaves the old state, or the new one.
 */
#include <stdlib.h>
#include <string.h>

#include "backends/qcow2_int.h"

/* The table has an entry for the block: it goes into the very cluster that is asked for, which is free as all
 * its neighbours are, and counts itself. */
static int add_block(struct qcow2_image *q, u64 cluster)
{
	u64 b = cluster / qcow2_refs_per_block(q), host = cluster << q->h.cluster_bits;
	struct qcow2_table *t = NULL;
	u8 entry[8];
	if (qcow2_is_metadata(q, host, q->cluster))
		return qcow2_damaged(q, "a table has no reference count");
	int r = qcow2_metadata_add(q, host, 1);
	if (!r)
		r = qcow2_cache_get(q, &q->refs, host, true, &t);
	if (r) {
		qcow2_metadata_del(q, host);
		return r;
	}
	r = qcow2_ref_write(q, t->data, cluster % qcow2_refs_per_block(q), 1);
	if (!r)
		r = disk_file_write(&q->file, host, t->data, q->cluster);
	if (!r)
		r = disk_file_sync(&q->file);
	qcow2_put64(entry, host);
	if (!r)
		r = disk_file_write(&q->file, q->h.reftable_offset + b * 8, entry, 8);
	if (r) {
		qcow2_cache_drop(&q->refs, host);
		qcow2_metadata_del(q, host);
		return r;
	}
	q->reftable[b] = host;
	q->end = MAX(q->end, host + q->cluster);
	return 0;
}

struct growth {
	u64 start;          /* first cluster: the new table, then the new blocks */
	u64 table_clusters; /* of the new table */
	u64 blocks, first_block;
	u64 entries;
	u64 *table;
};

static int plan(struct qcow2_image *q, struct growth *g)
{
	u64 per = qcow2_refs_per_block(q), per_table = q->cluster / 8;
	g->first_block = q->reftable_entries;
	g->start = g->first_block * per;
	for (g->blocks = 1;; g->blocks++) { /* the blocks count the table and themselves */
		u64 entries = g->first_block + g->blocks;
		g->table_clusters = (entries + entries / 2 + per_table - 1) / per_table;
		if (g->blocks * per >= g->table_clusters + g->blocks)
			break;
	}
	g->entries = g->table_clusters * per_table;
	if (g->table_clusters << q->h.cluster_bits > QCOW2_REFTABLE_BYTES_MAX ||
	    g->start + g->table_clusters + g->blocks > QCOW2_OFFSET_MASK >> q->h.cluster_bits)
		return -EFBIG;
	if (qcow2_is_metadata(q, g->start << q->h.cluster_bits, (g->table_clusters + g->blocks) << q->h.cluster_bits))
		return qcow2_damaged(q, "a table has no reference count");
	g->table = calloc(g->entries, 8);
	return g->table ? 0 : -ENOMEM;
}

static u64 block_host(const struct qcow2_image *q, const struct growth *g, u64 i)
{
	return (g->start + g->table_clusters + i) << q->h.cluster_bits;
}

static int write_blocks(struct qcow2_image *q, const struct growth *g)
{
	u64 per = qcow2_refs_per_block(q), used = g->table_clusters + g->blocks;
	u8 *block = calloc(1, q->cluster);
	int r = block ? 0 : -ENOMEM;
	for (u64 i = 0; i < g->blocks && !r; i++) {
		memset(block, 0, q->cluster);
		for (u64 k = 0; k < per && i * per + k < used && !r; k++)
			r = qcow2_ref_write(q, block, k, 1);
		if (!r)
			r = disk_file_write(&q->file, block_host(q, g, i), block, q->cluster);
	}
	free(block);
	return r;
}

/* The table in memory, then as on the disk. */
static int write_table(struct qcow2_image *q, struct growth *g)
{
	memcpy(g->table, q->reftable, (size_t)q->reftable_entries * 8);
	for (u64 i = 0; i < g->blocks; i++)
		g->table[g->first_block + i] = block_host(q, g, i);
	u64 *disk = calloc(g->entries, 8);
	if (!disk)
		return -ENOMEM;
	for (u64 i = 0; i < g->entries; i++)
		qcow2_put64(&disk[i], g->table[i]);
	int r = disk_file_write(&q->file, g->start << q->h.cluster_bits, disk, g->entries * 8);
	free(disk);
	return r ? r : disk_file_sync(&q->file);
}

/* One write within a sector: offset and length of the table change together. */
static int switch_table(struct qcow2_image *q, const struct growth *g)
{
	u8 p[12];
	u32 n = htobe32((u32)g->table_clusters);
	qcow2_put64(p, g->start << q->h.cluster_bits);
	memcpy(p + 8, &n, 4);
	int r = disk_file_write(&q->file, 48, p, sizeof(p));
	return r ? r : disk_file_sync(&q->file);
}

static int grow_table(struct qcow2_image *q)
{
	struct growth g = {0};
	u64 old = q->h.reftable_offset, old_clusters = q->h.reftable_clusters;
	int r = plan(q, &g);
	if (!r)
		r = write_blocks(q, &g);
	if (!r)
		r = write_table(q, &g);
	if (!r)
		r = qcow2_metadata_add(q, g.start << q->h.cluster_bits, g.table_clusters + g.blocks);
	if (!r)
		r = switch_table(q, &g);
	if (r) {
		free(g.table);
		return r;
	}
	free(q->reftable);
	q->reftable = g.table;
	q->reftable_entries = (u32)g.entries;
	q->h.reftable_offset = g.start << q->h.cluster_bits;
	q->h.reftable_clusters = (u32)g.table_clusters;
	q->end = MAX(q->end, block_host(q, &g, g.blocks));
	return qcow2_free_later(q, old, old_clusters);
}

int qcow2_add_refblock(struct qcow2_image *q, u64 cluster)
{
	if (cluster / qcow2_refs_per_block(q) >= q->reftable_entries)
		return grow_table(q);
	return add_block(q, cluster);
}
