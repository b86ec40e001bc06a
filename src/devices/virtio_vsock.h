/*
 * virtio-vsock: stream sockets between guest and host. On the host they are Unix sockets, by Firecracker's convention:
 *   - who connects to PATH and writes "CONNECT port\n" is connected to that port of the guest; when the guest has accepted,
 *     "OK hostport\n" comes back, and from there on the bytes are the guest's;
 *   - a guest that connects to port N of CID 2 reaches the Unix socket PATH_N, if somebody listens there.
 * A host connection that comes before the guest's driver is there waits for it.
 */
#ifndef DEVICES_VIRTIO_VSOCK_H
#define DEVICES_VIRTIO_VSOCK_H

#include "devices/pci.h"

struct dialer;
struct virtio_vsock;
struct virtio_vsock_options {
	u64 cid;               /* the guest's address, 3 or more */
	int listen_fd;         /* PATH, listening, non-blocking; owned from success on */
	struct dialer *dialer; /* reaches PATH_N; owned from success on; NULL: the guest can reach nothing */
};
int virtio_vsock_create(struct machine *m, struct pci_host *h, const struct virtio_vsock_options *o,
			struct virtio_vsock **out);

#endif
