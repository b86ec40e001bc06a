/* The header of a qcow2 image and its extensions: taken apart and checked, nothing else read. */
#include <stdio.h>
#include <string.h>

#include "backends/qcow2_int.h"

enum { HEADER_V2 = 72, HEADER_V3 = 104, CRYPT_LUKS = 2 };
enum { EXT_END = 0, EXT_BITMAPS = 0x23852875 };
#define EXT_BACKING_FORMAT 0xe2792acau

static u32 get32(const u8 *p)
{
	u32 v;
	memcpy(&v, p, 4);
	return be32toh(v);
}

bool qcow2_magic(const u8 *p, size_t n)
{
	return n >= 4 && !memcmp(p, "QFI\xfb", 4);
}

static int bad(struct err *e, const char *name, const char *what)
{
	return err_set(e, EINVAL, "%s: damaged qcow2 image: %s (qemu-img check may know more)", name, what);
}

static int unsupported(struct err *e, const char *name, const char *what, const char *how)
{
	return err_set(e, ENOTSUP, "%s: %s: not supported (%s)", name, what, how);
}

/* Offset and length of a table that has whole clusters to itself. */
static bool placed(const struct qcow2_header *h, u64 off, u64 bytes)
{
	return off && !(off & ((1ull << h->cluster_bits) - 1)) && off <= QCOW2_OFFSET_MASK &&
	       bytes <= QCOW2_OFFSET_MASK - off;
}

static int check_features(const struct qcow2_header *h, const char *name, struct err *e)
{
	const u64 known = QCOW2_INCOMPAT_DIRTY | QCOW2_INCOMPAT_CORRUPT | QCOW2_INCOMPAT_DATA_FILE |
			  QCOW2_INCOMPAT_COMPRESSION | QCOW2_INCOMPAT_EXTENDED_L2;
	if (h->crypt)
		return unsupported(e, name, h->crypt == CRYPT_LUKS ? "LUKS encryption" : "AES encryption",
				   "qemu-img convert makes an image without");
	if (h->incompatible & QCOW2_INCOMPAT_DATA_FILE)
		return unsupported(e, name, "external data file", "qemu-img convert makes an image without");
	if (h->incompatible & ~known)
		return unsupported(e, name, "a feature of a newer qcow2", "qemu-img convert makes a plain one");
	if (h->compression > QCOW2_ZSTD || (h->compression && !(h->incompatible & QCOW2_INCOMPAT_COMPRESSION)))
		return unsupported(e, name, "its compression", "qemu-img convert makes a plain image");
	return 0;
}

static int check_numbers(const struct qcow2_header *h, const char *name, struct err *e)
{
	bool ext = h->incompatible & QCOW2_INCOMPAT_EXTENDED_L2;
	if (h->cluster_bits < QCOW2_CLUSTER_BITS_MIN || h->cluster_bits > QCOW2_CLUSTER_BITS_MAX)
		return bad(e, name, "cluster size");
	if (ext && h->cluster_bits < 14) /* a subcluster has at least a sector */
		return bad(e, name, "extended L2 entries with small clusters");
	if (h->refcount_order > 6)
		return bad(e, name, "refcount width");
	u64 per_l2 = 1ull << (h->cluster_bits - (ext ? 4 : 3)), cluster = 1ull << h->cluster_bits;
	if (h->size > (u64)INT64_MAX - cluster)
		return bad(e, name, "its size overflows");
	u64 need = (h->size + cluster * per_l2 - 1) / (cluster * per_l2);
	if (h->l1_entries > QCOW2_L1_BYTES_MAX / 8 || need > QCOW2_L1_BYTES_MAX / 8)
		return bad(e, name, "its L1 table is larger than 32 MiB");
	if (h->l1_entries < need)
		return bad(e, name, "its L1 table is too small for its size");
	if (h->l1_entries && !placed(h, h->l1_offset, (u64)h->l1_entries * 8))
		return bad(e, name, "offset of the L1 table");
	if ((u64)h->reftable_clusters << h->cluster_bits > QCOW2_REFTABLE_BYTES_MAX)
		return bad(e, name, "its refcount table is larger than 8 MiB");
	if (!h->reftable_clusters || !placed(h, h->reftable_offset, (u64)h->reftable_clusters << h->cluster_bits))
		return bad(e, name, "offset of the refcount table");
	if (h->n_snapshots > QCOW2_SNAPSHOTS_MAX)
		return bad(e, name, "more than 4096 snapshots");
	if (h->n_snapshots && !placed(h, h->snapshots_offset, 0))
		return bad(e, name, "offset of the snapshot table");
	return 0;
}

/* Extensions follow the header: type, length, data padded to 8 (spec "Header extensions"). */
static int parse_extensions(const u8 *p, size_t n, size_t at, const char *name, struct qcow2_header *h, struct err *e)
{
	while (n - at >= 8) {
		u32 type = get32(p + at), len = get32(p + at + 4);
		at += 8;
		if (type == EXT_END)
			return 0;
		if (len > n - at)
			return bad(e, name, "a header extension is cut off");
		if (type == EXT_BACKING_FORMAT) {
			if (!len || len >= sizeof(h->backing_format))
				return bad(e, name, "backing format");
			memcpy(h->backing_format, p + at, len);
		} else if (type == EXT_BITMAPS) {
			h->has_bitmaps = true;
		}
		if (ALIGN_UP((u64)len, 8) > n - at)
			return 0;
		at += ALIGN_UP((u64)len, 8);
	}
	return 0;
}

static int parse_backing(const u8 *p, size_t n, const char *name, struct qcow2_header *h, struct err *e)
{
	u64 off = qcow2_get64(p + 8);
	u32 len = get32(p + 16);
	if (!off)
		return 0;
	if (!len || len > QCOW2_NAME_MAX || !range_within(off, len, n) || memchr(p + off, 0, len))
		return bad(e, name, "name of the backing file");
	memcpy(h->backing, p + off, len);
	return 0;
}

static void parse_fields(const u8 *p, struct qcow2_header *h)
{
	*h = (struct qcow2_header){
	    .version = get32(p + 4),
	    .cluster_bits = get32(p + 20),
	    .size = qcow2_get64(p + 24),
	    .crypt = get32(p + 32),
	    .l1_entries = get32(p + 36),
	    .l1_offset = qcow2_get64(p + 40),
	    .reftable_offset = qcow2_get64(p + 48),
	    .reftable_clusters = get32(p + 56),
	    .n_snapshots = get32(p + 60),
	    .snapshots_offset = qcow2_get64(p + 64),
	    .refcount_order = 4,
	};
	if (h->version < 3)
		return;
	h->incompatible = qcow2_get64(p + 72);
	h->compatible = qcow2_get64(p + 80);
	h->autoclear = qcow2_get64(p + 88);
	h->refcount_order = get32(p + 96);
}

int qcow2_parse_header(const u8 *p, size_t n, const char *name, struct qcow2_header *h, struct err *e)
{
	if (n < HEADER_V3 || !qcow2_magic(p, n))
		return err_set(e, EINVAL, "%s: is not a qcow2 image (format=raw, if it is a plain disk)", name);
	parse_fields(p, h);
	if (h->version != 2 && h->version != 3)
		return unsupported(e, name, "its qcow version", "versions 2 and 3 are; qemu-img convert");
	u32 length = h->version == 2 ? HEADER_V2 : get32(p + 100);
	if (h->version == 3 && (length < HEADER_V3 || length & 7))
		return bad(e, name, "header length");
	if (h->cluster_bits > QCOW2_CLUSTER_BITS_MAX || length > n || length > 1ull << h->cluster_bits)
		return bad(e, name, "header length or cluster size");
	if (length > HEADER_V3)
		h->compression = p[HEADER_V3];
	int r = check_features(h, name, e);
	if (!r)
		r = check_numbers(h, name, e);
	n = MIN(n, 1ull << h->cluster_bits); /* both are in the first cluster */
	if (!r)
		r = parse_backing(p, n, name, h, e);
	return r ? r : parse_extensions(p, n, length, name, h, e);
}
