/* A disk without a process of its own: the half that serves requests, straight on PCI. */
#ifndef TESTS_BLK_LOCAL_H
#define TESTS_BLK_LOCAL_H

#include "devices/virtio_blk.h"

int blk_local_create(struct machine *m, struct pci_host *h, const struct virtio_blk_options *o);

#endif
