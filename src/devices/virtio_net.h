/* virtio-net: a network card. */
#ifndef DEVICES_VIRTIO_NET_H
#define DEVICES_VIRTIO_NET_H

#include "backends/net.h"
#include "devices/pci.h"

struct virtio_net;
struct virtio_net_options {
	struct net *net; /* owned once created */
	u8 mac[NET_MAC];
};
int virtio_net_create(struct machine *m, struct pci_host *h, const struct virtio_net_options *o, struct virtio_net **out);

#endif
