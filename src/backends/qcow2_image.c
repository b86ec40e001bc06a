/* Opening and closing a chain of images: the one that is written, and those behind it, read-only. */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "backends/qcow2_int.h"

enum { L2_CACHE = 16 << 20, L2_CACHE_BEHIND = 4 << 20, REFS_CACHE = 2 << 20 };

/* Who leads here: to notice loops and endless chains. */
struct lineage {
	const struct lineage *up;
	const struct disk_file *file;
	unsigned depth;
};

static int open_qcow2(struct disk_file *f, const char *name, struct qcow2_image *base, const struct lineage *up,
		      struct qcow2_image **out, struct err *e);

int qcow2_damaged(struct qcow2_image *q, const char *what)
{
	if (!q->complained)
		log_msg(LOG_ERROR, "%s: damaged qcow2 image: %s (the guest sees I/O errors; qemu-img check)", q->name, what);
	q->complained = true;
	if (q->reftable && !q->broken) {
		q->h.incompatible |= QCOW2_INCOMPAT_CORRUPT;
		if (qcow2_write_features(q))
			log_msg(LOG_ERROR, "%s: cannot be marked as damaged", q->name);
	}
	q->broken = true;
	return -EIO;
}

static int fail(struct err *e, int r, const char *name)
{
	return err_set(e, -r, "%s: %s", name, strerror(-r));
}

/* ---- what is behind ---- */
static int backing_path(const struct qcow2_image *q, char *path, struct err *e)
{
	const char *b = q->h.backing, *slash = strrchr(q->name, '/'), *colon = NULL;
	if (!strncmp(b, "file:", 5))
		b += 5;
	colon = strchr(b, ':');
	if (colon && !memchr(b, '/', (size_t)(colon - b)))
		return err_set(e, ENOTSUP, "%s: backing file %.100s: not a file name (only files are supported)", q->name, b);
	int dir = *b == '/' || !slash ? 0 : (int)(slash - q->name + 1);
	if (snprintf(path, PATH_MAX, "%.*s%s", dir, q->name, b) >= PATH_MAX)
		return err_set(e, ENAMETOOLONG, "%s: name of the backing file is too long", q->name);
	return 0;
}

static int check_lineage(const struct lineage *l, dev_t dev, ino_t ino, const char *name, struct err *e)
{
	if (l->depth >= QCOW2_CHAIN_MAX)
		return err_set(e, ELOOP, "%s: chain of more than %d backing files (qemu-img rebase or commit shortens it)",
			       name, QCOW2_CHAIN_MAX);
	for (; l; l = l->up)
		if (l->file->dev == dev && l->file->ino == ino)
			return err_set(e, ELOOP, "%s: is its own backing file (qemu-img rebase mends it)", name);
	return 0;
}

static int open_backing(struct qcow2_image *q, const struct lineage *l, struct err *e)
{
	struct disk_file f;
	struct stat st;
	char path[PATH_MAX];
	bool raw = !strcmp(q->h.backing_format, "raw");
	if (!q->h.backing[0])
		return 0;
	if (!q->h.backing_format[0])
		return err_set(e, EINVAL, "%s: does not say the format of its backing file %.100s "
			       "(qemu-img rebase -u -F raw|qcow2 -b FILE does)", q->name, q->h.backing);
	if (!raw && strcmp(q->h.backing_format, "qcow2") != 0)
		return err_set(e, ENOTSUP, "%s: backing file in format %s: not supported (raw and qcow2 are)", q->name,
			       q->h.backing_format);
	int r = backing_path(q, path, e);
	if (!r && !stat(path, &st)) /* before the lock, which would blame another machine */
		r = check_lineage(l, st.st_dev, st.st_ino, path, e);
	if (r)
		return r;
	const struct disk_file_options o = {.path = path, .read_only = true,
					    .cache = q->file.direct_fd >= 0 ? DISK_CACHE_NONE : DISK_CACHE_WRITEBACK};
	r = disk_file_open(&f, &o, e);
	if (r)
		return r;
	r = check_lineage(l, f.dev, f.ino, path, e);
	if (!r)
		r = raw ? qcow2_image_raw(&f, path, &q->backing, e) : open_qcow2(&f, path, NULL, l, &q->backing, e);
	if (r)
		disk_file_close(&f);
	return r;
}

/* ---- tables ---- */
static int read_header(struct qcow2_image *q, struct err *e)
{
	u64 n = 1u << QCOW2_CLUSTER_BITS_MAX;
	u8 *p = malloc(n);
	int r = p ? disk_file_read(&q->file, 0, p, n) : -ENOMEM;
	r = r ? fail(e, r, q->name) : qcow2_parse_header(p, MIN(n, q->file.size), q->name, &q->h, e);
	free(p);
	return r;
}

static void derive(struct qcow2_image *q)
{
	bool ext = q->h.incompatible & QCOW2_INCOMPAT_EXTENDED_L2;
	q->cluster = 1ull << q->h.cluster_bits;
	q->entry_bytes = ext ? 16 : 8;
	q->l2_bits = q->h.cluster_bits - (ext ? 4 : 3);
	q->per_cluster = ext ? 32 : 1;
	q->subcluster_bits = q->h.cluster_bits - (ext ? 5 : 0);
	q->size = q->h.size & ~511ull;
	q->end = ALIGN_UP(MIN(q->file.size, QCOW2_OFFSET_MASK), q->cluster);
	/* unbuffered data and buffered tables must not share pages */
	if (q->subcluster_bits < 12 && q->file.direct_fd >= 0)
		q->file.direct_align = 0;
}

static int read_table(struct qcow2_image *q, u64 off, u64 entries, u64 **out)
{
	*out = calloc(MAX(entries, 1), 8);
	if (!*out)
		return -ENOMEM;
	int r = disk_file_read(&q->file, off, *out, entries * 8);
	for (u64 i = 0; i < entries; i++)
		(*out)[i] = be64toh((*out)[i]);
	return r;
}

static int check_reftable(struct qcow2_image *q, struct err *e)
{
	for (u32 i = 0; i < q->reftable_entries; i++)
		if (q->reftable[i] & 511)
			return err_set(e, EINVAL, "%s: damaged qcow2 image: refcount table (qemu-img check may know more)", q->name);
	return 0;
}

static int read_tables(struct qcow2_image *q, struct err *e)
{
	bool write = !q->file.read_only;
	u64 l1_bytes = (u64)q->h.l1_entries * 8, ref_bytes = (u64)q->h.reftable_clusters << q->h.cluster_bits;
	if (!range_within(q->h.l1_offset, l1_bytes, q->end) || !range_within(q->h.reftable_offset, ref_bytes, q->end))
		return err_set(e, EINVAL, "%s: damaged qcow2 image: a table is outside the file (was it cut off?)", q->name);
	int r = read_table(q, q->h.l1_offset, q->h.l1_entries, &q->l1);
	if (!r)
		r = qcow2_cache_init(&q->l2, q->cluster, write ? L2_CACHE : L2_CACHE_BEHIND);
	if (!r && write) {
		q->reftable_entries = (u32)(ref_bytes / 8);
		r = read_table(q, q->h.reftable_offset, q->reftable_entries, &q->reftable);
	}
	if (!r && write)
		r = qcow2_cache_init(&q->refs, q->cluster, REFS_CACHE);
	q->zipped = malloc(2 * q->cluster);
	q->unzipped = malloc(q->cluster);
	q->freed = write ? calloc(QCOW2_FREED_MAX, sizeof(*q->freed)) : NULL;
	if (!q->zipped || !q->unzipped || (write && !q->freed) || posix_memalign((void **)&q->bounce, 4096, 2 * q->cluster))
		r = -ENOMEM;
	if (r)
		return fail(e, r, q->name);
	return write ? check_reftable(q, e) : 0;
}

static int check_writable(struct qcow2_image *q, struct err *e)
{
	if (q->file.read_only)
		return 0;
	if (q->h.incompatible & QCOW2_INCOMPAT_CORRUPT)
		return err_set(e, EINVAL, "%s: is marked as damaged (qemu-img check -r all mends it; ,ro reads it as it is)",
			       q->name);
	if (q->h.has_bitmaps)
		return err_set(e, ENOTSUP, "%s: has persistent dirty bitmaps, which would not follow (qemu-img bitmap "
			       "--remove; or overlay=on)", q->name);
	return 0;
}

static int open_tables(struct qcow2_image *q, struct err *e)
{
	int r = read_header(q, e);
	if (r)
		return r;
	derive(q);
	r = check_writable(q, e);
	if (!r)
		r = read_tables(q, e);
	if (!r)
		r = qcow2_layout_check(q, e);
	if (!r && q->reftable && q->h.incompatible & QCOW2_INCOMPAT_DIRTY)
		r = qcow2_repair(q, e);
	return r;
}

/* ---- lifecycle ---- */
static void image_free(struct qcow2_image *q)
{
	free(q->l1);
	free(q->reftable);
	free(q->freed);
	free(q->metadata);
	free(q->bounce);
	free(q->zipped);
	free(q->unzipped);
	qcow2_cache_free(&q->l2);
	qcow2_cache_free(&q->refs);
	free(q->name);
	free(q);
}

static struct qcow2_image *image_new(const struct disk_file *f, const char *name)
{
	struct qcow2_image *q = calloc(1, sizeof(*q));
	if (!q)
		return NULL;
	q->file = *f;
	q->name = strdup(name);
	if (q->name)
		return q;
	free(q);
	return NULL;
}

int qcow2_image_raw(struct disk_file *f, const char *name, struct qcow2_image **out, struct err *e)
{
	struct qcow2_image *q = image_new(f, name);
	if (!q)
		return fail(e, -ENOMEM, name);
	q->raw = true;
	q->size = f->size;
	*out = q;
	return 0;
}

static int open_qcow2(struct disk_file *f, const char *name, struct qcow2_image *base, const struct lineage *up,
		      struct qcow2_image **out, struct err *e)
{
	struct qcow2_image *q = image_new(f, name);
	if (!q)
		return fail(e, -ENOMEM, name);
	const struct lineage here = {up, &q->file, up ? up->depth + 1 : 1};
	int r = open_tables(q, e);
	if (!r && !base)
		r = open_backing(q, &here, e);
	if (r) {
		image_free(q);
		return r;
	}
	if (base)
		q->backing = base;
	*out = q;
	return 0;
}

int qcow2_image_open(struct disk_file *f, const char *name, struct qcow2_image *base, struct qcow2_image **out,
		     struct err *e)
{
	return open_qcow2(f, name, base, NULL, out, e);
}

void qcow2_image_close(struct qcow2_image *q)
{
	while (q) {
		struct qcow2_image *behind = q->backing;
		q->quiesce = NULL;
		if (q->reftable && !q->broken && qcow2_end_changes(q))
			log_msg(LOG_ERROR, "%s: its tables could not be written: what was not flushed is lost", q->name);
		disk_file_close(&q->file);
		image_free(q);
		q = behind;
	}
}
