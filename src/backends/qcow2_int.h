/*
 * qcow2 images (docs/interop/qcow2 of QEMU is the specification; "spec" below). Inside the backends room.
 *
 * One thread per disk owns the chain of images and everything here (qcow2_disk.c): tables are read and changed
 * with plain calls, guest data moves by disk_aio. What the image says is hostile: offsets are checked where
 * they are read, sizes when the image is opened, caches are bounded.
 *
 * Order of writing, so that a crash at any moment leaves an image that is intact but for leaked clusters, and
 * what a flush has acknowledged is there:
 *   1. guest data goes into a cluster before an L2 entry in memory names it;
 *   2. new L2 tables, refcount blocks and refcount tables are on stable storage before anything names them;
 *   3. qcow2_commit: sync; refcounts that rose, L2 tables, L1 entries, refcounts that fell, one right after the
 *      other; sync;
 *   4. only then a freed cluster is used again, or its space given back: nothing on the disk names it.
 * The dirty bit (version 3) is stable before the first change and cleared by a clean end. It says that refcounts
 * may be wrong: leaks after a sudden death of the process, in the moment between two writes of 3.; anything after
 * one of the host. Version 2 has no such bit: there a sync more keeps refcounts ahead of the L2 tables.
 */
#ifndef BACKENDS_QCOW2_INT_H
#define BACKENDS_QCOW2_INT_H

#include <endian.h>

#include "backends/disk_file.h"

enum {
	QCOW2_CHAIN_MAX = 32,
	QCOW2_NAME_MAX = 1023,
	QCOW2_SNAPSHOTS_MAX = 4096,
	QCOW2_CLUSTER_BITS_MIN = 9,
	QCOW2_CLUSTER_BITS_MAX = 21,
	QCOW2_L1_BYTES_MAX = 32 << 20,
	QCOW2_REFTABLE_BYTES_MAX = 8 << 20,
	QCOW2_FREED_MAX = 4096, /* clusters waiting to be freed; then a commit */
};
#define QCOW2_OFFSET_MASK 0x00fffffffffffe00ull /* bits 9..55 */
#define QCOW2_COPIED      (1ull << 63)
#define QCOW2_COMPRESSED  (1ull << 62)
#define QCOW2_ZERO        1ull

enum { QCOW2_INCOMPAT_DIRTY = 1, QCOW2_INCOMPAT_CORRUPT = 2, QCOW2_INCOMPAT_DATA_FILE = 4,
       QCOW2_INCOMPAT_COMPRESSION = 8, QCOW2_INCOMPAT_EXTENDED_L2 = 16 };
enum { QCOW2_ZLIB, QCOW2_ZSTD };

/* ---- qcow2_header.c: bytes in, checked numbers out ---- */
struct qcow2_header {
	u32 version, cluster_bits, crypt, l1_entries, reftable_clusters, n_snapshots, refcount_order;
	u64 size, l1_offset, reftable_offset, snapshots_offset;
	u64 incompatible, compatible, autoclear;
	u8 compression;
	bool has_bitmaps;
	char backing[QCOW2_NAME_MAX + 1], backing_format[16]; /* empty: none; not said */
};
bool qcow2_magic(const u8 *p, size_t n);
int qcow2_parse_header(const u8 *p, size_t n, const char *name, struct qcow2_header *h, struct err *e);

/* ---- an image ---- */
struct qcow2_table {
	u64 host; /* 0: empty slot */
	u64 used;
	u32 lo, hi; /* changed bytes; lo >= hi: none */
	u8 *data;
};
struct qcow2_cache {
	struct qcow2_table *slot;
	u32 sets; /* of QCOW2_WAYS slots */
	u64 clock;
	u32 n_dirty;
};
enum { QCOW2_WAYS = 4 };

struct qcow2_image {
	char *name;
	struct disk_file file;
	struct qcow2_image *backing;
	bool raw; /* then nothing below but size is used */
	u64 size; /* virtual */
	struct qcow2_header h;
	u64 cluster, end; /* bytes; end of the file, in whole clusters, with what is allocated but not written */
	u32 l2_bits, entry_bytes, subcluster_bits, per_cluster; /* subclusters: 1 or 32 */
	u64 *l1;
	u32 l1_lo, l1_hi; /* changed entries */
	struct qcow2_cache l2, refs;
	u64 *reftable; /* writable images only, as is all that follows */
	u32 reftable_entries;
	u64 free_hint; /* no cluster below is free */
	u64 *freed; /* clusters whose refcount falls at the next commit */
	u32 n_freed, n_gone; /* gone: at the beginning of freed, within a commit: no one refers to them now */
	u64 *metadata; /* clusters that hold tables, ascending (qcow2_layout.c) */
	u32 n_metadata, metadata_room;
	bool marked_dirty, broken;
	bool complained;
	u8 *bounce;  /* two clusters: data around what the guest writes */
	u8 *zipped;  /* two clusters: a compressed one may be a little larger than it */
	u8 *unzipped; /* the last compressed cluster that was read */
	u64 unzipped_entry;
	bool no_reading; /* a table that is not in the cache is -EAGAIN */
	void (*quiesce)(void *arg); /* waits for the transfers in flight */
	void *arg;
};

static inline u64 qcow2_get64(const void *p)
{
	u64 v;
	__builtin_memcpy(&v, p, 8);
	return be64toh(v);
}
static inline void qcow2_put64(void *p, u64 v)
{
	v = htobe64(v);
	__builtin_memcpy(p, &v, 8);
}
static inline u64 qcow2_in_cluster(const struct qcow2_image *q, u64 off)
{
	return off & (q->cluster - 1);
}
static inline u64 qcow2_clusters(const struct qcow2_image *q, u64 bytes)
{
	return (bytes + q->cluster - 1) >> q->h.cluster_bits;
}

/* ---- qcow2_image.c ---- */
/* Opens the image and all behind it. base: taken over as the backing image of what was just created, or NULL. */
int qcow2_image_open(struct disk_file *f, const char *name, struct qcow2_image *base, struct qcow2_image **out,
		     struct err *e);
int qcow2_image_raw(struct disk_file *f, const char *name, struct qcow2_image **out, struct err *e);
void qcow2_image_close(struct qcow2_image *q); /* and all behind it; writes what is to be written */
/* The image is damaged: says so once, and no more is written to it. -EIO. */
int qcow2_damaged(struct qcow2_image *q, const char *what);

/* ---- qcow2_create.c ---- */
int qcow2_create(struct disk_file *f, u64 size); /* an empty image with 64 KiB clusters */

/* ---- qcow2_cache.c ---- */
int qcow2_cache_init(struct qcow2_cache *c, u64 cluster, u64 bytes);
void qcow2_cache_free(struct qcow2_cache *c);
/* The table at host; fresh: known to be new, all zero. Valid until the cache is asked again. */
int qcow2_cache_get(struct qcow2_image *q, struct qcow2_cache *c, u64 host, bool fresh, struct qcow2_table **out);
void qcow2_table_changed(struct qcow2_cache *c, struct qcow2_table *t, u32 at, u32 n);
int qcow2_cache_write(struct qcow2_image *q, struct qcow2_cache *c);
void qcow2_cache_drop(struct qcow2_cache *c, u64 host);

/* ---- qcow2_layout.c ---- */
int qcow2_layout_check(struct qcow2_image *q, struct err *e); /* builds the map; nothing overlaps */
bool qcow2_is_metadata(const struct qcow2_image *q, u64 host, u64 len);
int qcow2_metadata_add(struct qcow2_image *q, u64 host, u64 clusters);
void qcow2_metadata_del(struct qcow2_image *q, u64 host);

/* ---- qcow2_snapshot.c ---- */
struct qcow2_snapshot {
	u64 l1_offset;
	u32 l1_entries;
};
int qcow2_snapshots_read(struct qcow2_image *q, struct qcow2_snapshot **out, u64 *table_bytes, struct err *e);

/* ---- qcow2_refs.c, qcow2_grow.c ---- */
u32 qcow2_refs_per_block(const struct qcow2_image *q);
u64 qcow2_ref_read(const struct qcow2_image *q, const u8 *block, u64 i);
int qcow2_ref_write(const struct qcow2_image *q, u8 *block, u64 i, u64 v); /* -ERANGE: does not fit */
int qcow2_ref_get(struct qcow2_image *q, u64 cluster, u64 *v);
int qcow2_ref_set(struct qcow2_image *q, u64 cluster, u64 v);
/* 1 .. want clusters in a row, with refcount 1. */
int qcow2_alloc(struct qcow2_image *q, u64 want, u64 *host, u64 *got);
int qcow2_unalloc(struct qcow2_image *q, u64 host, u64 n); /* at once: nothing has ever named them */
int qcow2_free_later(struct qcow2_image *q, u64 host, u64 n);
int qcow2_drop_references(struct qcow2_image *q); /* of what qcow2_free_later took; of a commit */
void qcow2_give_back(struct qcow2_image *q);      /* the space of what nothing names any more, on the disk neither */
int qcow2_add_refblock(struct qcow2_image *q, u64 cluster); /* for this cluster and its neighbours */

/* ---- qcow2_map.c ---- */
enum qcow2_kind { QCOW2_EXT_HOLE, QCOW2_EXT_ZERO, QCOW2_EXT_DATA, QCOW2_EXT_PACKED };
struct qcow2_extent {
	enum qcow2_kind kind;
	u64 len;
	u64 host;      /* DATA */
	u64 entry;     /* PACKED: the L2 entry */
	bool in_place; /* DATA: may be overwritten where it is */
};
int qcow2_map(struct qcow2_image *q, u64 off, u64 len, struct qcow2_extent *x);
/* The L2 table of off, private to the active image and about to be changed; *at: byte offset of the entry */
int qcow2_l2_for_write(struct qcow2_image *q, u64 off, struct qcow2_table **t, u32 *at);
struct qcow2_entry {
	u64 entry, bitmap; /* bitmap: extended L2 entries only */
};
struct qcow2_entry qcow2_entry_get(const struct qcow2_image *q, const struct qcow2_table *t, u32 at);
void qcow2_entry_set(struct qcow2_image *q, struct qcow2_table *t, u32 at, struct qcow2_entry v);
int qcow2_check_data(struct qcow2_image *q, u64 host, bool write); /* a cluster an entry names */

/* ---- qcow2_read.c ---- */
struct qcow2_source {
	enum qcow2_kind kind; /* ZERO, DATA or PACKED */
	struct qcow2_image *image;
	u64 len, host, entry, off; /* off: in that image */
};
int qcow2_find(struct qcow2_image *q, u64 off, u64 len, struct qcow2_source *s); /* down the chain */
int qcow2_read_now(struct qcow2_image *q, u64 off, u8 *p, u64 len);
unsigned qcow2_slice(const struct iovec *iov, unsigned n, u64 off, u64 len, struct iovec *out); /* out: n entries */

/* ---- qcow2_zip.c ---- */
/* Where the compressed data of an entry is; bytes: an upper bound */
void qcow2_packed_place(const struct qcow2_image *q, u64 entry, u64 *host, u64 *bytes);
int qcow2_unpack(struct qcow2_image *q, u64 entry, const u8 **data); /* one cluster, valid until the next call */

/* ---- qcow2_write.c, qcow2_zero.c ---- */
/* Writes the beginning of [off, off + len), which is not all in place, and says how much it was. */
int qcow2_write_new(struct qcow2_image *q, u64 off, u64 len, const struct iovec *iov, unsigned n_iov, u64 *done);
int qcow2_write_vec(struct qcow2_image *q, u64 off, struct iovec *iov, unsigned n, u64 len); /* off: in the file */
int qcow2_release(struct qcow2_image *q, u64 entry); /* what the entry names loses a reference, later */
int qcow2_write_zeroes(struct qcow2_image *q, u64 off, u64 len, bool unmap);
int qcow2_discard(struct qcow2_image *q, u64 off, u64 len);

/* ---- qcow2_commit.c ---- */
bool qcow2_clean(const struct qcow2_image *q); /* no table has changed */
int qcow2_commit(struct qcow2_image *q);
int qcow2_begin_changes(struct qcow2_image *q); /* sets the dirty bit, once */
int qcow2_end_changes(struct qcow2_image *q);
int qcow2_write_features(struct qcow2_image *q);

/* ---- qcow2_repair.c ---- */
int qcow2_repair(struct qcow2_image *q, struct err *e); /* refcounts as the tables have it */

#endif
