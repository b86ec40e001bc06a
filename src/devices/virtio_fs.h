/* Shared folders: the virtio-fs device. */
#ifndef DEVICES_VIRTIO_FS_H
#define DEVICES_VIRTIO_FS_H

#include "base/base.h"
#include "devices/virtio.h"
#include "devices/virtio_blk.h"

struct virtio_fs;
struct virtio_fs_options {
	const char *tag;       /* what the guest mounts, at most 36 bytes */
	int sock;              /* a vhost-user server of file systems; owned from here on, also on failure */
	bool untrusted;        /* it has no attributes trusted.*, so that need not be asked */
	u64 window;	       /* bytes of DAX window, a power of two; 0: none. A server of others has none either */
	struct page_attr attr; /* of the guest's memory; fd stays the caller's */
};
int virtio_fs_create(struct machine *m, struct pci_host *h, const struct virtio_fs_options *o, struct err *e);

#endif
