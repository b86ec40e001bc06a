/* Shared folders: the virtio-fs device. */
#ifndef DEVICES_VIRTIO_FS_H
#define DEVICES_VIRTIO_FS_H

#include "base/base.h"
#include "devices/virtio.h"

struct virtio_fs;
/* tag: what the guest mounts, at most 36 bytes. sock: a vhost-user server of file systems; owned from here
 * on. untrusted: it has no attributes trusted.*, so that need not be asked. */
int virtio_fs_create(struct machine *m, struct pci_host *h, const char *tag, int sock, bool untrusted, struct err *e);

#endif
