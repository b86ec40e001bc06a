/* A disk in the VMM: the PCI device whose queues are served by a process of its own (virtio_blk.h). */
#ifndef DEVICES_VIRTIO_DISK_H
#define DEVICES_VIRTIO_DISK_H

#include "backends/disk.h"
#include "devices/virtio_blk.h"

struct virtio_disk;
struct virtio_disk_options {
	const struct disk_config *config;
	const char *serial; /* up to 20 bytes; NULL: none */
	unsigned queues;    /* as many as the guest has CPUs; bounded, 0 is 1 */
	bool stop_on_enospc;
	struct page_attr attr;
};
/* Starts the process, which opens the image. On failure e says what to do. */
int virtio_disk_create(struct machine *m, struct pci_host *h, const struct virtio_disk_options *o, struct virtio_disk **out,
		       struct err *e);
struct blk_counters virtio_disk_counters(const struct virtio_disk *d);
const char *virtio_disk_name(const struct virtio_disk *d); /* its path */
int virtio_disk_pid(const struct virtio_disk *d);

#endif
