/*
 * Network card (Virtio 1.2, 5.1) over a backend (backends/net.h). Queues: receive and transmit for each pair, then control. All of
 * its work is done on the main loop: notifications are eventfds, so that no vCPU waits for a frame to be sent.
 */
#include <stdlib.h>
#include <string.h>

#include "devices/virtio_net_int.h"

enum { CLASS_ETHERNET = 0x020000, QUEUE_SIZE = 256 };

/* What the device does itself; the backend adds its offloads. */
#define OWN_FEATURES                                                                                                   \
	(BIT64(VIRTIO_NET_F_MAC) | BIT64(VIRTIO_NET_F_STATUS) | BIT64(VIRTIO_NET_F_MRG_RXBUF) |                        \
	 BIT64(VIRTIO_NET_F_CTRL_VQ) | BIT64(VIRTIO_NET_F_CTRL_RX) | BIT64(VIRTIO_NET_F_CTRL_RX_EXTRA) |               \
	 BIT64(VIRTIO_NET_F_CTRL_MAC_ADDR) | BIT64(VIRTIO_NET_F_CTRL_GUEST_OFFLOADS))
#define GUEST_TSO                                                                                                      \
	(BIT64(VIRTIO_NET_F_GUEST_TSO4) | BIT64(VIRTIO_NET_F_GUEST_TSO6) | BIT64(VIRTIO_NET_F_GUEST_ECN))

static struct virtio_net *net_of(struct virtio *v)
{
	return container_of(v, struct virtio_net, v);
}

void virtio_net_set_offloads(struct virtio_net *n, u64 features)
{
	u64 mask = BIT64(VIRTIO_NET_F_GUEST_CSUM) | GUEST_TSO;

	if (!(features & BIT64(VIRTIO_NET_F_GUEST_CSUM)))
		mask = 0; /* large frames need it (5.1.3.1) */
	net_offloads(n->net, features & mask);
}

/* ---- the virtio side ---- */
/* Without MQ the driver knows of one pair, and its control queue is the third (5.1.2). */
static unsigned control_queue(const struct virtio_net *n)
{
	return virtio_has(&n->v, VIRTIO_NET_F_MQ) ? 2 * n->pairs : 2;
}

static void vn_notify(struct virtio *v, unsigned queue)
{
	struct virtio_net *n = net_of(v);

	if (queue == control_queue(n))
		virtio_net_control(n, queue);
	else if (queue / 2 >= n->pairs)
		return;
	else if (queue & 1)
		virtio_net_tx(n, queue / 2);
	else
		virtio_net_rx(n, queue / 2);
}

static void vn_activate(struct virtio *v)
{
	struct virtio_net *n = net_of(v);

	n->active = 1;
	virtio_net_filter_reset(n);
	virtio_net_set_offloads(n, v->driver_features);
}

/* The backend copies: nothing of guest memory is in its hands. */
static bool vn_reset_queues(struct virtio *v)
{
	struct virtio_net *n = net_of(v);

	n->active = 1;
	memset(n->tx_full, 0, sizeof(n->tx_full));
	virtio_net_filter_reset(n);
	net_offloads(n->net, 0);
	net_pairs(n->net, 1);
	return true;
}

static const struct virtio_ops vn_ops = {.name = "virtio-net",
					 .id = VIRTIO_ID_NET,
					 .pci_class = CLASS_ETHERNET,
					 .notify = vn_notify,
					 .activate = vn_activate,
					 .reset = vn_reset_queues};

/* ---- the backend's side; main loop ---- */
static void on_readable(void *dev, unsigned pair)
{
	struct virtio_net *n = dev;

	pthread_mutex_lock(&n->v.lock);
	virtio_net_rx(n, pair);
	pthread_mutex_unlock(&n->v.lock);
}

static void on_writable(void *dev, unsigned pair)
{
	struct virtio_net *n = dev;

	pthread_mutex_lock(&n->v.lock);
	n->tx_full[pair] = false;
	if (virtio_live(&n->v))
		virtio_net_tx(n, pair);
	pthread_mutex_unlock(&n->v.lock);
}

static void on_link(void *dev, bool up)
{
	struct virtio_net *n = dev;
	u16 status = up ? VIRTIO_NET_S_LINK_UP : 0;

	pthread_mutex_lock(&n->v.lock);
	if (n->space.status != status) {
		n->space.status = status;
		virtio_config_changed_locked(&n->v);
	}
	pthread_mutex_unlock(&n->v.lock);
}

static const struct net_client_ops vn_client = {.readable = on_readable, .writable = on_writable, .link = on_link};

struct virtio_net_counters virtio_net_counters(struct virtio_net *n)
{
	struct virtio_net_counters c;

	pthread_mutex_lock(&n->v.lock);
	c = n->counters;
	pthread_mutex_unlock(&n->v.lock);
	return c;
}

/* ---- lifecycle ---- */
static void vn_reset(struct device *d)
{
	virtio_pci_reset(virtio_pci_of_device(d));
}

static void vn_destroy(struct device *d)
{
	struct virtio_net *n = net_of(virtio_of_device(d));

	net_destroy(n->net);
	virtio_pci_destroy(n->pci);
	virtio_fini(&n->v);
	free(n);
}

static const struct device_class vn_class = {.name = "virtio-net", .reset = vn_reset, .destroy = vn_destroy};

int virtio_net_create(struct machine *m, struct pci_host *h, const struct virtio_net_options *o, struct virtio_net **out)
{
	struct virtio_net *n = calloc(1, sizeof(*n));
	u64 features = OWN_FEATURES | o->net->features;
	int ret = 0;

	if (!n)
		return -ENOMEM;
	n->net = o->net;
	n->pairs = o->net->pairs;
	n->active = 1;
	memcpy(n->first_mac, o->mac, NET_MAC);
	n->space = (struct virtio_net_config){
		.status = VIRTIO_NET_S_LINK_UP, .max_virtqueue_pairs = (u16)n->pairs, .mtu = o->net->mtu};
	features |= (n->pairs > 1 ? BIT64(VIRTIO_NET_F_MQ) : 0) | (o->net->mtu ? BIT64(VIRTIO_NET_F_MTU) : 0);
	virtio_init(&n->v, m, &vn_ops, features, 2 * n->pairs + 1, QUEUE_SIZE);
	for (unsigned i = 0; i < n->pairs; i++)
		n->v.queue[tx_queue(i)].tolerant = true;
	virtio_net_filter_reset(n);
	virtio_set_config(&n->v, &n->space, NULL, offsetof(struct virtio_net_config, speed));
	ret = virtio_pci_create(&n->v, h, -1, &vn_class, &n->pci);
	if (ret) {
		virtio_fini(&n->v);
		free(n);
		return ret;
	}
	n->net->dev = n;
	n->net->client = &vn_client;
	*out = n;
	return 0;
}
