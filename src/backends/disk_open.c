/*
 * What a disk option means: the file's format, and the parts that stand on each other.
 *
 * The format is what format= says; without it qcow2 if the name ends in .qcow2, else raw. It is never guessed
 * from the content: a guest can write what it likes to a raw disk, a qcow2 header that names its host's files
 * as backing files too. A raw disk whose content looks like qcow2 is refused until format= says what it is.
 */
#include <stdlib.h>
#include <string.h>

#include "backends/disk_int.h"
#include "backends/qcow2_disk.h"
#include "backends/qcow2_int.h"

enum { SECTOR = 512 };

static bool named_qcow2(const char *path)
{
	const char *dot = strrchr(path, '.');
	return dot && !strcmp(dot, ".qcow2");
}

static int decide(const struct disk_config *c, const struct disk_file *f, bool *qcow2, struct err *e)
{
	u8 p[4];
	*qcow2 = c->format == DISK_FORMAT_QCOW2 || (c->format == DISK_FORMAT_BY_NAME && named_qcow2(c->path));
	if (c->format != DISK_FORMAT_BY_NAME || *qcow2)
		return 0;
	int r = disk_file_read(f, 0, p, sizeof(p));
	if (r)
		return err_set(e, -r, "%s: %s", c->path, strerror(-r));
	if (qcow2_magic(p, sizeof(p)))
		return err_set(e, EINVAL, "%s: begins like a qcow2 image (say format=qcow2; or format=raw if a guest wrote "
			       "that to a plain disk)", c->path);
	return 0;
}

/* The image below, read-only and shared; writes go to a temporary image on top of it. */
static int open_overlay(struct disk_file *base, const struct disk_config *c, bool qcow2, struct qcow2_image **out,
			struct err *e)
{
	struct qcow2_image *b = NULL;
	struct disk_file f;
	int r = qcow2 ? qcow2_image_open(base, c->path, NULL, &b, e) : qcow2_image_raw(base, c->path, &b, e);
	if (r) {
		disk_file_close(base);
		return r;
	}
	r = disk_file_temporary(&f, e);
	if (r)
		goto fail;
	r = qcow2_create(&f, b->size);
	if (r)
		err_set(e, -r, "%s: cannot make the overlay: %s", c->path, strerror(-r));
	if (!r)
		r = qcow2_image_open(&f, c->path, b, out, e);
	if (!r)
		return 0;
	disk_file_close(&f);
fail:
	qcow2_image_close(b);
	return r;
}

static int open_qcow2(struct loop *l, struct disk_file *f, const struct disk_config *c, bool qcow2, struct disk **out,
		      struct err *e)
{
	struct qcow2_image *q = NULL;
	int r = 0;
	if (c->overlay) {
		r = open_overlay(f, c, qcow2, &q, e);
	} else {
		r = qcow2_image_open(f, c->path, NULL, &q, e);
		if (r)
			disk_file_close(f);
	}
	if (r)
		return r;
	r = q->size ? 0 : err_set(e, EINVAL, "%s: is empty (a disk has at least one sector of 512 bytes)", c->path);
	if (!r)
		r = qcow2_disk_create(l, q, c->cache == DISK_CACHE_DIRECTSYNC && !c->overlay, out, e);
	if (r)
		qcow2_image_close(q);
	return r;
}

static int open_file(const struct disk_config *c, struct disk_file *f, struct err *e)
{
	const struct disk_file_options o = {.path = c->path,
					    .read_only = c->read_only || c->overlay,
					    .cache = c->cache,
					    .lock_offset = c->offset,
					    .lock_size = c->size};
	if ((c->offset | c->size) & (SECTOR - 1))
		return err_set(e, EINVAL, "%s: offset= and size= must be multiples of 512", c->path);
	return disk_file_open(f, &o, e);
}

/* A minidisk: a part of the disk, which knows of nothing outside it. */
static int restrict_to_part(struct disk *d, const struct disk_config *c, struct err *e)
{
	u64 size = c->size ? c->size : d->size > c->offset ? d->size - c->offset : 0;
	if (!size || !range_within(c->offset, size, d->size))
		return err_set(e, EINVAL, "%s: offset= and size= are beyond the disk's %llu bytes", c->path,
			       (unsigned long long)d->size);
	d->base = c->offset;
	d->size = size;
	while (d->block_size > SECTOR && c->offset & (d->block_size - 1))
		d->block_size /= 2; /* the guest should not align to what is not aligned */
	return 0;
}

static int finish(struct loop *l, struct disk *d, const struct disk_config *c, struct err *e)
{
	int r = restrict_to_part(d, c, e);
	if (r)
		return r;
	if (c->no_discard)
		d->can_discard = false;
	d->write_through = c->cache == DISK_CACHE_DIRECTSYNC;
	if (!c->iops && !c->bps)
		return 0;
	r = disk_limit_create(l, d, c->iops, c->bps, &d->limit);
	return r ? err_set(e, -r, "%s: I/O limits: %s", c->path, strerror(-r)) : 0;
}

int disk_open(struct loop *l, const struct disk_config *c, struct disk **out, struct err *e)
{
	struct disk_file f;
	struct disk *d = NULL;
	bool qcow2 = false;
	int r = open_file(c, &f, e);
	if (r)
		return r;
	r = decide(c, &f, &qcow2, e);
	/* a part of a qcow2 image is locked with all of it: its tables are common property */
	if (!r && qcow2 && (c->offset || c->size)) {
		disk_file_close(&f);
		struct disk_config whole = *c;
		whole.offset = whole.size = 0;
		r = open_file(&whole, &f, e);
		if (r)
			return r;
	}
	if (r) {
		disk_file_close(&f);
		return r;
	}
	if (qcow2 || c->overlay) {
		r = open_qcow2(l, &f, c, qcow2, &d, e);
	} else {
		r = disk_raw_create(l, c->path, &f, &d, e);
		if (r)
			disk_file_close(&f);
	}
	if (!r)
		r = finish(l, d, c, e);
	if (r) {
		disk_destroy(d);
		return r;
	}
	*out = d;
	return 0;
}

int disk_open_raw(struct loop *l, const char *path, bool read_only, struct disk **out, struct err *e)
{
	const struct disk_config c = {.path = path, .read_only = read_only, .format = DISK_FORMAT_RAW};
	return disk_open(l, &c, out, e);
}
