/* A bounded cache of tables (L2 tables, refcount blocks): sets of four, the least recently used goes. */
#include <stdlib.h>
#include <string.h>

#include "backends/qcow2_int.h"

int qcow2_cache_init(struct qcow2_cache *c, u64 cluster, u64 bytes)
{
	c->sets = (u32)MAX(bytes / cluster / QCOW2_WAYS, 1);
	c->slot = calloc((size_t)c->sets * QCOW2_WAYS, sizeof(*c->slot));
	return c->slot ? 0 : -ENOMEM;
}

void qcow2_cache_free(struct qcow2_cache *c)
{
	for (u32 i = 0; c->slot && i < c->sets * QCOW2_WAYS; i++)
		free(c->slot[i].data);
	free(c->slot);
	c->slot = NULL;
}

static bool dirty(const struct qcow2_table *t)
{
	return t->lo < t->hi;
}

static int write_table(struct qcow2_image *q, struct qcow2_cache *c, struct qcow2_table *t)
{
	int r = disk_file_write(&q->file, t->host + t->lo, t->data + t->lo, t->hi - t->lo);
	if (r)
		return r;
	t->lo = t->hi = 0;
	c->n_dirty--;
	return 0;
}

int qcow2_cache_write(struct qcow2_image *q, struct qcow2_cache *c)
{
	int r = 0;
	for (u32 i = 0; c->n_dirty && i < c->sets * QCOW2_WAYS && !r; i++)
		if (c->slot[i].host && dirty(&c->slot[i]))
			r = write_table(q, c, &c->slot[i]);
	return r;
}

static struct qcow2_table *set_of(struct qcow2_image *q, struct qcow2_cache *c, u64 host)
{
	return c->slot + (host >> q->h.cluster_bits) % c->sets * QCOW2_WAYS;
}

/* A refcount block may go to disk at any time, since what it holds only rose; an L2 table only with all that comes before it. */
static int make_room(struct qcow2_image *q, struct qcow2_cache *c, struct qcow2_table *t)
{
	if (!t->host || !dirty(t))
		return 0;
	return c == &q->l2 ? qcow2_commit(q) : write_table(q, c, t);
}

int qcow2_cache_get(struct qcow2_image *q, struct qcow2_cache *c, u64 host, bool fresh, struct qcow2_table **out)
{
	struct qcow2_table *set = set_of(q, c, host), *t = set;
	int r = 0;
	for (int i = 0; i < QCOW2_WAYS; i++) {
		if (set[i].host == host) {
			t = &set[i];
			goto found;
		}
		if (set[i].used < t->used)
			t = &set[i];
	}
	if (q->no_reading)
		return -EAGAIN;
	if (!t->data && posix_memalign((void **)&t->data, 4096, q->cluster))
		return -ENOMEM;
	r = make_room(q, c, t);
	if (r)
		return r;
	t->host = 0;
	t->lo = t->hi = 0;
	if (fresh)
		memset(t->data, 0, q->cluster);
	else
		r = disk_file_read(&q->file, host, t->data, q->cluster);
	if (r)
		return r;
	t->host = host;
found:
	t->used = ++c->clock;
	*out = t;
	return 0;
}

void qcow2_table_changed(struct qcow2_cache *c, struct qcow2_table *t, u32 at, u32 n)
{
	if (!dirty(t)) {
		t->lo = at;
		t->hi = at + n;
		c->n_dirty++;
		return;
	}
	t->lo = MIN(t->lo, at);
	t->hi = MAX(t->hi, at + n);
}

void qcow2_cache_drop(struct qcow2_cache *c, u64 host)
{
	for (u32 i = 0; i < c->sets * QCOW2_WAYS; i++) {
		struct qcow2_table *t = &c->slot[i];
		if (t->host != host)
			continue;
		if (dirty(t))
			c->n_dirty--;
		t->host = 0;
		t->used = 0;
		t->lo = t->hi = 0;
	}
}
