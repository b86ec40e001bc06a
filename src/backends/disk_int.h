/* What the parts of a disk know of each other. Inside the backends room. */
#ifndef BACKENDS_DISK_INT_H
#define BACKENDS_DISK_INT_H

#include "backends/disk.h"
#include "backends/disk_file.h"

/* Takes over the file from success on. */
int disk_raw_create(struct loop *l, const char *path, struct disk_file *f, struct disk **out, struct err *e);

/* I/O limits (disk_limit.c): requests that come too fast wait, in order. */
int disk_limit_create(struct loop *l, struct disk *d, u64 iops, u64 bps, struct disk_limit **out);
void disk_limit_destroy(struct disk_limit *m);
bool disk_limit_delays(struct disk_limit *m, struct disk_req *r); /* true: it is held, and submitted later */
void disk_limit_release(struct disk_limit *m);                    /* submits all that is held, at once */
bool disk_limit_holds(const struct disk_limit *m);

#endif
