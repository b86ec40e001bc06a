/*
 * Reception (Virtio 1.2, 5.1.6.3, 5.1.6.4): a frame goes into one buffer of the driver, or with MRG_RXBUF into as many as it takes.
 * Without room in the ring, frames wait in the backend.
 */
#include "devices/virtio_net_int.h"

enum { NUM_BUFFERS = offsetof(struct virtio_net_hdr_v1, num_buffers) };

static void give_back(struct virtq *q, unsigned n)
{
	while (n--)
		virtq_unpop(q);
}

/*
 * Takes chains for need bytes: their number; 0: not enough there now (the driver will notify); -1: never, the frame is to be
 * dropped. The request for a notification comes before the chains are given back: it must name the newest of them.
 */
static int reserve(struct virtio_net *n, struct virtq *q, u64 need)
{
	unsigned most = virtio_has(&n->v, VIRTIO_NET_F_MRG_RXBUF) ? RX_CHAINS_MAX : 1, k = 0;
	u64 room = 0;

	while (room < need && k < most) {
		int got = virtq_pop(q, &n->chain[k]);

		if (!got && virtq_listen(q))
			continue;
		if (got > 0 && n->chain[k].in_bytes) {
			room += n->chain[k++].in_bytes;
			continue;
		}
		if (got)
			virtio_needs_reset_locked(&n->v, "bad receive chain");
		give_back(q, k + (got > 0));
		return got ? -1 : 0;
	}
	if (room >= need)
		return (int)k;
	give_back(q, k);
	return -1;
}

/* The header's part and the frame's of what falls into each chain. */
static bool scatter(struct virtio_net *n, struct virtq *q, const struct net_packet *p, unsigned chains)
{
	struct virtio_net_hdr_v1 h = p->hdr;
	u64 off = 0, total = NET_HDR + (u64)p->len;

	h.num_buffers = (u16)chains;
	for (unsigned i = 0; i < chains; i++) {
		struct virtq_chain *c = &n->chain[i];
		u64 size = MIN(c->in_bytes, total - off), head = off < NET_HDR ? MIN(size, NET_HDR - off) : 0;

		if (head && !chain_write(c, 0, (u8 *)&h + off, head))
			return false;
		if (size > head && !chain_write(c, head, p->data + (off + head - NET_HDR), size - head))
			return false;
		virtq_fill(q, i, c, (u32)size);
		off += size;
	}
	return true;
}

/* False: it stays. */
static bool deliver(struct virtio_net *n, struct virtq *q, const struct net_packet *p)
{
	int chains = 0;

	if ((p->hdr.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM || p->hdr.gso_type) && !virtio_has(&n->v, VIRTIO_NET_F_GUEST_CSUM)) {
		n->counters.rx_dropped++; /* made before the driver said what it can do */
		return true;
	}
	chains = reserve(n, q, NET_HDR + (u64)p->len);
	if (chains > 0 && scatter(n, q, p, (unsigned)chains)) {
		virtq_publish(q, (unsigned)chains);
		n->counters.rx_frames++;
		n->counters.rx_bytes += p->len;
	} else if (chains) {
		n->counters.rx_dropped++;
	}
	return chains != 0;
}

/* Frames for a device without a driver vanish, as on a wire. */
static bool take(struct virtio_net *n, unsigned pair, const struct net_packet *p)
{
	struct virtq *q = &n->v.queue[rx_queue(pair)];

	if (!virtio_live(&n->v) || !q->enabled || pair >= n->active || !virtio_net_wants(n, p->data))
		return true;
	return deliver(n, q, p);
}

void virtio_net_rx(struct virtio_net *n, unsigned pair)
{
	const struct net_packet *p = NULL;
	struct virtq *q = &n->v.queue[rx_queue(pair)];
	int budget = VIRTIO_BUDGET;
	bool stuck = false;
	u16 used = q->used_next;

	virtq_quiet(q);
	while (budget > 0 && !stuck && (p = net_peek(n->net, pair))) {
		stuck = !take(n, pair, p);
		if (!stuck)
			net_next(n->net, pair);
		budget--;
	}
	if (stuck != n->rx_off[pair]) {
		n->rx_off[pair] = stuck;
		net_listen(n->net, pair, !stuck);
	}
	if (budget <= 0 && !stuck)
		virtio_again(&n->v, rx_queue(pair)); /* the backend says nothing more of what it has said */
	if (q->used_next != used)
		virtio_signal_queue(&n->v, rx_queue(pair));
}
