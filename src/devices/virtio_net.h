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
#define NET_COUNTERS(X)                                                                                          \
	X(rx_frames) X(rx_bytes) X(rx_dropped) X(tx_frames) X(tx_bytes) X(tx_dropped)
struct virtio_net_counters {
#define X(name) u64 name;
	NET_COUNTERS(X)
#undef X
};
/* As the guest sees it: rx is what it received. */
struct virtio_net_counters virtio_net_counters(struct virtio_net *n);
int virtio_net_create(struct machine *m, struct pci_host *h, const struct virtio_net_options *o, struct virtio_net **out);

#endif
