/*
 * A network as virtio-net sees it: frames in, frames out, each with a virtio-net header (Virtio 1.2, 5.1.6) that says what
 * offloading is left to do. The header is in the host's byte order, its num_buffers 0.
 *
 * All calls are made with the device's lock held, which so guards the backend too. A backend calls its client from the event loop,
 * with nothing locked.
 */
#ifndef BACKENDS_NET_H
#define BACKENDS_NET_H

#include <linux/virtio_net.h>
#include <sys/uio.h>

#include "base/base.h"
#include "base/loop.h"

enum {
	NET_FRAME_MIN = 14,	/* an Ethernet header */
	NET_FRAME_MAX = 65550,	/* that and the largest IP packet, with a VLAN tag */
	NET_BATCH = 32,
	NET_HDR = sizeof(struct virtio_net_hdr_v1),
	NET_MAC = 6,
	NET_PAIRS_MAX = 8,
};

/* What goes out: *iov is valid for the call only. */
struct net_frame {
	struct virtio_net_hdr_v1 hdr;
	const struct iovec *iov;
	unsigned n_iov;
	u32 len; /* sum of iov, NET_FRAME_MIN..NET_FRAME_MAX */
};
/* What came in: valid until the next net_next or net_peek. */
struct net_packet {
	struct virtio_net_hdr_v1 hdr;
	const u8 *data;
	u32 len;
};

struct net_client_ops {
	void (*readable)(void *dev, unsigned pair);
	void (*writable)(void *dev, unsigned pair);
	void (*link)(void *dev, bool up);
};
struct net;
struct net_ops {
	const char *name;
	unsigned (*send)(struct net *n, unsigned pair, const struct net_frame *f, unsigned count);
	const struct net_packet *(*peek)(struct net *n, unsigned pair);
	void (*next)(struct net *n, unsigned pair);
	void (*listen)(struct net *n, unsigned pair, bool on);
	void (*offloads)(struct net *n, u64 features); /* NULL: not interested */
	void (*pairs)(struct net *n, unsigned count);  /* NULL: one only */
	void (*destroy)(struct net *n);
};
struct net {
	const struct net_ops *ops;
	u64 features;	/* VIRTIO_NET_F_* offloads that it can take and use: CSUM, HOST_*, GUEST_* */
	unsigned pairs; /* of queues, 1..NET_PAIRS_MAX */
	u16 mtu;	/* 0: says nothing */
	const struct net_client_ops *client; /* NULL: nobody there yet */
	void *dev;
};

/* How many were taken from the front: all, or until writable is called. A frame that cannot be delivered counts as taken. */
static inline unsigned net_send(struct net *n, unsigned pair, const struct net_frame *f, unsigned count)
{
	return n->ops->send(n, pair, f, count);
}
/* The oldest frame received; NULL: none now, readable will be called. */
static inline const struct net_packet *net_peek(struct net *n, unsigned pair)
{
	return n->ops->peek(n, pair);
}
static inline void net_next(struct net *n, unsigned pair)
{
	n->ops->next(n, pair);
}
/* Off: no readable calls (the guest has no room); frames wait at their source. */
static inline void net_listen(struct net *n, unsigned pair, bool on)
{
	n->ops->listen(n, pair, on);
}
/* The driver's features (0: it is gone): which headers it understands in what it receives. */
static inline void net_offloads(struct net *n, u64 features)
{
	if (n->ops->offloads)
		n->ops->offloads(n, features);
}
static inline void net_pairs(struct net *n, unsigned count)
{
	if (n->ops->pairs)
		n->ops->pairs(n, count);
}
static inline void net_destroy(struct net *n)
{
	if (n)
		n->ops->destroy(n);
}

/* ---- kinds of networks ---- */
enum net_kind { NET_NONE, NET_USER, NET_LAN, NET_PASST, NET_SOCKET, NET_TAP, NET_VHOST_USER };
enum { NET_FORWARDS_MAX = 32, NET_NAME_MAX = 32 };
struct net_forward {
	bool udp;
	char address[16]; /* dotted; of the host */
	u16 host_port, guest_port;
};
struct net_options {
	enum net_kind kind;
	bool host_loopback;	     /* USER: 10.0.2.2 is this machine's loopback */
	char text[108];		     /* path, interface or LAN name */
	unsigned queues;	     /* TAP: 1..NET_PAIRS_MAX */
	u16 mtu;		     /* 0: as the kind has it */
	bool mac_given;
	bool by_default;	     /* USER: nobody asked for it; it need not be there when the VM starts */
	u8 mac[NET_MAC];
	unsigned n_forwards;
	struct net_forward forward[NET_FORWARDS_MAX];
};
/* Starts what has to be started. On failure -errno, and e says what to do. */
int net_open(struct loop *l, const struct net_options *o, struct net **out, struct err *e);

/* ---- inside the room ---- */
int net_open_user(struct loop *l, const struct net_options *o, struct net **out, struct err *e);
int net_open_lan(struct loop *l, const struct net_options *o, struct net **out, struct err *e);
int net_open_stream(struct loop *l, const struct net_options *o, struct net **out, struct err *e);
int net_open_tap(struct loop *l, const struct net_options *o, struct net **out, struct err *e);
/* fd: the socket of a link (net_proto.h), owned from now on; pid: the process at its other end that is our child, 0: none */
int net_link_new(struct loop *l, int fd, int pid, u64 features, u16 mtu, struct net **out);

#endif
