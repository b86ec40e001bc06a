/*
 * --net tap,ifname=I[,queues=N]: a tap device of the host. The kernel takes and makes virtio-net headers itself (IFF_VNET_HDR), so
 * all offloads are the host's. A queue pair is a descriptor.
 */
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "backends/net.h"

#define TAP_FEATURES                                                                                                   \
	(BIT64(VIRTIO_NET_F_CSUM) | BIT64(VIRTIO_NET_F_HOST_TSO4) | BIT64(VIRTIO_NET_F_HOST_TSO6) |                    \
	 BIT64(VIRTIO_NET_F_HOST_ECN) | BIT64(VIRTIO_NET_F_GUEST_CSUM) | BIT64(VIRTIO_NET_F_GUEST_TSO4) |              \
	 BIT64(VIRTIO_NET_F_GUEST_TSO6) | BIT64(VIRTIO_NET_F_GUEST_ECN))

struct tap;
struct tap_queue {
	struct tap *tap;
	unsigned pair;
	int fd;
	u32 events;
	bool full;  /* buf has a frame */
	bool dead;  /* the device is gone */
	struct net_packet packet;
	u8 buf[NET_HDR + NET_FRAME_MAX];
};
struct tap {
	struct net net;
	struct loop *loop;
	unsigned n, attached;
	struct tap_queue queue[];
};

static struct tap *tap_of(struct net *n)
{
	return container_of(n, struct tap, net);
}

static void listen_for(struct tap_queue *q, u32 events)
{
	if (q->dead || events == q->events)
		return;
	q->events = events;
	loop_mod(q->tap->loop, q->fd, events);
}

static unsigned tap_send(struct net *net, unsigned pair, const struct net_frame *f, unsigned count)
{
	struct tap_queue *q = &tap_of(net)->queue[pair];
	struct iovec iov[1 + 256];

	for (unsigned i = 0; i < count && !q->dead; i++) {
		if (f[i].n_iov >= ARRAY_SIZE(iov))
			continue;
		iov[0] = (struct iovec){.iov_base = (void *)&f[i].hdr, .iov_len = NET_HDR};
		memcpy(iov + 1, f[i].iov, f[i].n_iov * sizeof(*iov));
		/* any other error means that the kernel did not like this frame, or that the interface is down */
		if (writev(q->fd, iov, 1 + (int)f[i].n_iov) < 0 && errno == EAGAIN) {
			listen_for(q, q->events | EPOLLOUT);
			return i;
		}
	}
	return count;
}

static const struct net_packet *tap_peek(struct net *net, unsigned pair)
{
	struct tap_queue *q = &tap_of(net)->queue[pair];

	while (!q->full) {
		ssize_t n = q->dead ? -1 : read(q->fd, q->buf, sizeof(q->buf));

		if (n <= 0)
			return NULL;
		if (n < NET_HDR + NET_FRAME_MIN)
			continue;
		memcpy(&q->packet.hdr, q->buf, NET_HDR);
		q->packet.hdr.num_buffers = 0;
		q->packet.data = q->buf + NET_HDR;
		q->packet.len = (u32)n - NET_HDR;
		q->full = true;
	}
	return &q->packet;
}

static void tap_next(struct net *net, unsigned pair)
{
	tap_of(net)->queue[pair].full = false;
}

static void tap_listen(struct net *net, unsigned pair, bool on)
{
	struct tap_queue *q = &tap_of(net)->queue[pair];

	listen_for(q, on ? q->events | EPOLLIN : q->events & ~EPOLLIN);
}

static void tap_offloads(struct net *net, u64 features)
{
	static const struct {
		u8 feature;
		unsigned tun;
	} bits[] = {{VIRTIO_NET_F_GUEST_CSUM, TUN_F_CSUM}, {VIRTIO_NET_F_GUEST_TSO4, TUN_F_TSO4},
		    {VIRTIO_NET_F_GUEST_TSO6, TUN_F_TSO6}, {VIRTIO_NET_F_GUEST_ECN, TUN_F_TSO_ECN}};
	unsigned tun = 0;

	for (unsigned i = 0; i < ARRAY_SIZE(bits); i++)
		tun |= features & BIT64(bits[i].feature) ? bits[i].tun : 0;
	if (ioctl(tap_of(net)->queue[0].fd, TUNSETOFFLOAD, tun) < 0)
		log_msg(LOG_WARN, "network: tap: offloads cannot be set: %s", strerror(errno));
}

/* The kernel spreads what comes in over the queues that are attached. */
static void tap_pairs(struct net *net, unsigned count)
{
	struct tap *t = tap_of(net);

	for (unsigned i = 1; i < t->n; i++) {
		struct ifreq r = {.ifr_flags = i < count ? IFF_ATTACH_QUEUE : IFF_DETACH_QUEUE};

		if ((i < count) != (i < t->attached) && ioctl(t->queue[i].fd, TUNSETQUEUE, &r) < 0)
			log_msg(LOG_WARN, "network: tap: queue %u: %s", i, strerror(errno));
	}
	t->attached = count;
}

static void on_event(void *arg, u32 events)
{
	struct tap_queue *q = arg;
	struct net *net = &q->tap->net;

	if ((events & EPOLLIN) && net->client)
		net->client->readable(net->dev, q->pair);
	if (events & EPOLLERR) { /* the interface was deleted */
		loop_del(q->tap->loop, q->fd);
		q->dead = true;
		log_msg(LOG_WARN, "network: the tap device is gone; the guest's link is down");
		if (net->client)
			net->client->link(net->dev, false);
		return;
	}
	if (events & EPOLLOUT) {
		listen_for(q, q->events & ~EPOLLOUT);
		if (net->client)
			net->client->writable(net->dev, q->pair);
	}
}

static void tap_destroy(struct net *net)
{
	struct tap *t = tap_of(net);

	for (unsigned i = 0; i < t->n; i++) {
		if (!t->queue[i].dead)
			loop_del(t->loop, t->queue[i].fd);
		close(t->queue[i].fd);
	}
	free(t);
}

static const struct net_ops tap_ops = {.name = "tap",
				       .send = tap_send,
				       .peek = tap_peek,
				       .next = tap_next,
				       .listen = tap_listen,
				       .offloads = tap_offloads,
				       .pairs = tap_pairs,
				       .destroy = tap_destroy};

/* ---- set-up ---- */
static const char *advice(int err)
{
	switch (err) {
	case EPERM:
	case EACCES:
		return "it must be yours: ip tuntap add dev NAME mode tap user YOU; --net user needs no privilege";
	case EBUSY:
		return "another program has it";
	case EINVAL:
		return "is it a tap device with that many queues?";
	case ENOENT:
	case ENODEV:
		return "this kernel has no tun driver, or the container no /dev/net/tun";
	default:
		return "see ip tuntap";
	}
}

static int open_queue(const struct net_options *o)
{
	struct ifreq r = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | (o->queues > 1 ? IFF_MULTI_QUEUE : 0)};
	int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK), size = NET_HDR;

	if (fd < 0)
		return -errno;
	memcpy(r.ifr_name, o->text, MIN(strlen(o->text), sizeof(r.ifr_name) - 1));
	if (ioctl(fd, TUNSETIFF, &r) < 0 || ioctl(fd, TUNSETVNETHDRSZ, &size) < 0) {
		int err = errno;

		close(fd);
		return -err;
	}
	return fd;
}

static bool exists(const char *ifname)
{
	struct ifreq r = {0};
	int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	bool yes = false;

	memcpy(r.ifr_name, ifname, MIN(strlen(ifname), sizeof(r.ifr_name) - 1));
	yes = s >= 0 && ioctl(s, SIOCGIFFLAGS, &r) == 0;
	if (s >= 0)
		close(s);
	return yes;
}

int net_open_tap(struct loop *l, const struct net_options *o, struct net **out, struct err *e)
{
	struct tap *t = NULL;
	int ret = 0;

	if (!exists(o->text)) /* TUNSETIFF would make one, which nobody has set up */
		return err_set(e, ENODEV, "--net tap,ifname=%s: no such interface (ip tuntap add dev %s mode tap user YOU)", o->text,
			       o->text);
	t = calloc(1, sizeof(*t) + o->queues * sizeof(t->queue[0]));
	if (!t)
		return err_set(e, ENOMEM, "--net: no memory");
	t->net = (struct net){.ops = &tap_ops, .features = TAP_FEATURES, .pairs = o->queues, .mtu = o->mtu};
	t->loop = l;
	t->attached = o->queues;
	for (; t->n < o->queues && ret >= 0; t->n += ret >= 0) {
		struct tap_queue *q = &t->queue[t->n];

		ret = open_queue(o);
		if (ret < 0)
			break;
		*q = (struct tap_queue){.tap = t, .pair = t->n, .fd = ret, .events = EPOLLIN};
		ret = loop_add(l, q->fd, q->events, on_event, q);
		if (ret < 0)
			close(q->fd);
	}
	if (ret < 0) {
		tap_destroy(&t->net);
		return err_set(e, -ret, "--net tap,ifname=%s: %s (%s)", o->text, strerror(-ret), advice(-ret));
	}
	tap_pairs(&t->net, 1);
	*out = &t->net;
	return 0;
}
