/* An empty version 3 image with 64 KiB clusters: header, refcount table, one refcount block, L1 table. */
#include <stdlib.h>
#include <string.h>

#include "backends/qcow2_int.h"

enum { CLUSTER_BITS = 16, CLUSTER = 1 << CLUSTER_BITS, L2_SPAN_BITS = CLUSTER_BITS + CLUSTER_BITS - 3 };
enum { AT_REFTABLE = 1, AT_REFBLOCK = 2, AT_L1 = 3, HEADER_BYTES = 104 };

static void put32(u8 *p, u32 v)
{
	v = htobe32(v);
	memcpy(p, &v, 4);
}

static void make_header(u8 *p, u64 size, u32 l1_entries)
{
	memcpy(p, "QFI\xfb", 4);
	put32(p + 4, 3);
	put32(p + 20, CLUSTER_BITS);
	qcow2_put64(p + 24, size);
	put32(p + 36, l1_entries);
	qcow2_put64(p + 40, (u64)AT_L1 << CLUSTER_BITS);
	qcow2_put64(p + 48, (u64)AT_REFTABLE << CLUSTER_BITS);
	put32(p + 56, 1);
	put32(p + 96, 4);
	put32(p + 100, HEADER_BYTES);
}

int qcow2_create(struct disk_file *f, u64 size)
{
	u64 l1 = (size + (1ull << L2_SPAN_BITS) - 1) >> L2_SPAN_BITS;
	u64 used = AT_L1 + (l1 * 8 + CLUSTER - 1) / CLUSTER;
	if (l1 > QCOW2_L1_BYTES_MAX / 8)
		return -EFBIG;
	u8 *p = calloc(AT_L1, CLUSTER), zero = 0;
	if (!p)
		return -ENOMEM;
	make_header(p, size, (u32)l1);
	qcow2_put64(p + AT_REFTABLE * CLUSTER, (u64)AT_REFBLOCK << CLUSTER_BITS);
	for (u64 i = 0; i < used; i++)
		p[AT_REFBLOCK * CLUSTER + 2 * i + 1] = 1;
	int r = disk_file_write(f, 0, p, (u64)AT_L1 * CLUSTER);
	if (!r)
		r = disk_file_write(f, used * CLUSTER - 1, &zero, 1);
	f->size = used * CLUSTER;
	free(p);
	return r;
}
