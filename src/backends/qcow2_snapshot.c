/* The table of internal snapshots (spec "Snapshots"): doppel keeps them intact and needs only their L1 tables. */
#include <stdlib.h>
#include <string.h>

#include "backends/qcow2_int.h"

enum { ENTRY = 40, TABLE_MAX = 16 << 20 };

static u32 get(const u8 *p, int n)
{
	u32 v = 0;
	for (int i = 0; i < n; i++)
		v = v << 8 | p[i];
	return v;
}

static int bad(struct qcow2_image *q, struct err *e)
{
	return err_set(e, EINVAL, "%s: damaged qcow2 image: snapshot table (qemu-img check may know more)", q->name);
}

/* Length of the entry at off, 8-aligned; 0: does not fit. */
static u64 entry_bytes(const u8 *p)
{
	return ALIGN_UP(ENTRY + (u64)get(p + 36, 4) + get(p + 12, 2) + get(p + 14, 2), 8);
}

int qcow2_snapshots_read(struct qcow2_image *q, struct qcow2_snapshot **out, u64 *table_bytes, struct err *e)
{
	u64 at = 0;
	*out = NULL;
	*table_bytes = 0;
	if (!q->h.n_snapshots)
		return 0;
	struct qcow2_snapshot *s = calloc(q->h.n_snapshots, sizeof(*s));
	if (!s)
		return err_set(e, ENOMEM, "%s: out of memory", q->name);
	for (u32 i = 0; i < q->h.n_snapshots; i++) {
		u8 p[ENTRY];
		int r = disk_file_read(&q->file, q->h.snapshots_offset + at, p, sizeof(p));
		s[i] = (struct qcow2_snapshot){qcow2_get64(p), get(p + 8, 4)};
		at += entry_bytes(p);
		if (r || at > TABLE_MAX || s[i].l1_entries > QCOW2_L1_BYTES_MAX / 8 ||
		    s[i].l1_offset > QCOW2_OFFSET_MASK) {
			free(s);
			return r ? err_set(e, -r, "%s: %s", q->name, strerror(-r)) : bad(q, e);
		}
	}
	*out = s;
	*table_bytes = at;
	return 0;
}
