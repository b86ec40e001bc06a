/* Numbered objects: a number is slot + 1 below, and how often the slot was used before above, so that old
 * numbers do not fit. */
#include <stdlib.h>

#include "fs/fs_int.h"

enum { TABLE_FIRST = 64 };

static int grow(struct fs_table *t)
{
	u32 n = t->n ? t->n * 2 : TABLE_FIRST;
	struct fs_slot *slot = n > t->n ? realloc(t->slot, n * sizeof(*slot)) : NULL;

	if (!slot)
		return -ENOMEM;
	for (u32 i = t->n; i < n; i++)
		slot[i] = (struct fs_slot){.next_free = i + 1 < n ? i + 2 : 0};
	t->slot = slot;
	t->free = t->n + 1;
	t->n = n;
	return 0;
}

int table_add(struct fs_table *t, void *p, u64 *id)
{
	if (!t->free && grow(t))
		return -ENOMEM;
	u32 i = t->free - 1;

	t->free = t->slot[i].next_free;
	t->slot[i].p = p;
	t->used++;
	*id = (u64)t->slot[i].generation << 32 | (i + 1);
	return 0;
}

void *table_get(const struct fs_table *t, u64 id)
{
	u32 i = (u32)id - 1;

	return i < t->n && t->slot[i].generation == id >> 32 ? t->slot[i].p : NULL;
}

void table_del(struct fs_table *t, u64 id)
{
	u32 i = (u32)id - 1;

	t->slot[i].p = NULL;
	t->slot[i].generation++;
	t->slot[i].next_free = t->free;
	t->free = i + 1;
	t->used--;
}

void table_free(struct fs_table *t)
{
	free(t->slot);
	*t = (struct fs_table){0};
}
