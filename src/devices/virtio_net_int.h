/* Inside virtio-net: virtio_net.c (life, features), _tx.c, _rx.c, _ctrl.c. v.lock guards all of it. */
#ifndef DEVICES_VIRTIO_NET_INT_H
#define DEVICES_VIRTIO_NET_INT_H

#include "devices/virtio.h"
#include "devices/virtio_net.h"

/* A frame goes into at most so many buffers of the driver: 64 KiB in buffers of 1.5 KiB, with some to spare. */
enum { RX_CHAINS_MAX = 64, MAC_TABLE_MAX = 64 };
_Static_assert((int)RX_CHAINS_MAX >= (int)NET_BATCH, "chains serve both directions");

struct mac_table {
	unsigned n;
	bool all; /* more were given than fit */
	u8 mac[MAC_TABLE_MAX][NET_MAC];
};
/* What the driver wants to receive (5.1.6.5.1) */
struct rx_filter {
	bool promisc, allmulti, alluni, nomulti, nouni, nobcast;
	struct mac_table uni, multi;
	u8 mac[NET_MAC];
};
struct virtio_net {
	struct virtio v;
	struct virtio_pci *pci;
	struct net *net;
	unsigned pairs, active; /* of queues: there; used by the driver */
	bool rx_off[NET_PAIRS_MAX];  /* the backend was told to hold what it has */
	bool tx_full[NET_PAIRS_MAX]; /* waiting for writable */
	struct rx_filter filter;
	struct virtio_net_counters counters;
	u8 first_mac[NET_MAC];
	struct virtio_net_config space;
	struct net_frame frame[NET_BATCH];
	unsigned frame_chain[NET_BATCH]; /* which chain a frame came in */
	struct virtq_chain chain[RX_CHAINS_MAX];
};

void virtio_net_tx(struct virtio_net *n, unsigned pair);
void virtio_net_rx(struct virtio_net *n, unsigned pair);
void virtio_net_control(struct virtio_net *n, unsigned queue);
void virtio_net_filter_reset(struct virtio_net *n);
bool virtio_net_wants(const struct virtio_net *n, const u8 *frame);
/* features: the driver's, or what it has chosen of them since (5.1.6.5.6) */
void virtio_net_set_offloads(struct virtio_net *n, u64 features);

static inline unsigned rx_queue(unsigned pair)
{
	return 2 * pair;
}
static inline unsigned tx_queue(unsigned pair)
{
	return 2 * pair + 1;
}

#endif
