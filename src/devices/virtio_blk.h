/* virtio-blk: disks. */
#ifndef DEVICES_VIRTIO_BLK_H
#define DEVICES_VIRTIO_BLK_H

#include "devices/pci.h"

struct disk;
struct virtio_blk;
struct virtio_blk_options {
	struct disk *disk;  /* owned by the device from success on */
	const char *serial; /* up to 20 bytes, for GET_ID; NULL: none */
	unsigned queues;    /* as many as the guest has CPUs; bounded, 0 is 1 */
	bool stop_on_enospc;
};
int virtio_blk_create(struct machine *m, struct pci_host *h, const struct virtio_blk_options *c,
		      struct virtio_blk **out);

#endif
