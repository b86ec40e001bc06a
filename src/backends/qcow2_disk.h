/* A chain of qcow2 images as a disk. Inside the backends room. */
#ifndef BACKENDS_QCOW2_DISK_H
#define BACKENDS_QCOW2_DISK_H

#include "backends/disk.h"

struct qcow2_image;
/* Takes over the chain from success on. */
int qcow2_disk_create(struct loop *l, struct qcow2_image *q, bool write_through, struct disk **out, struct err *e);

#endif
