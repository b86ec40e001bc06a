/* Inside virtio_disk*.c. */
#ifndef DEVICES_VIRTIO_DISK_INT_H
#define DEVICES_VIRTIO_DISK_INT_H

#include "devices/disk_proto.h"
#include "devices/virtio_disk.h"

struct virtio_disk {
	struct virtio v;
	struct virtio_pci *pci;
	struct blk_shared *shared;
	struct virtio_blk_config space;
	int sock, pid, shared_fd;
	bool running; /* rings are set up: in the process, or here once it is dead */
	bool leaving; /* RESET is sent, QUIET not yet there */
	bool dead;
	char name[DISK_PATH_MAX];
	struct virtq_chain chain;
};

/* virtio_disk_dead.c; v.lock held */
void virtio_disk_take_over(struct virtio_disk *d); /* answers what the process had taken */
void virtio_disk_refuse(struct virtio_disk *d, unsigned queue); /* answers what the driver asks from now on */

#endif
