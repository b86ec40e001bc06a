/*
 * Transmission (Virtio 1.2, 5.1.6.2): frames go from guest memory into the backend, many at a time. A frame that breaks the rules
 * is dropped and its buffer given back; one for which the backend has no room stays in the ring.
 */
#include "devices/virtio_net_int.h"

static bool check_header(const struct virtio_net *n, struct virtio_net_hdr_v1 *h, u32 len)
{
	static const struct {
		u8 type;
		u8 feature;
	} gso[] = {{VIRTIO_NET_HDR_GSO_TCPV4, VIRTIO_NET_F_HOST_TSO4}, {VIRTIO_NET_HDR_GSO_TCPV6, VIRTIO_NET_F_HOST_TSO6}};
	u8 kind = h->gso_type & ~VIRTIO_NET_HDR_GSO_ECN;
	bool known = false;

	h->num_buffers = 0;
	h->flags &= VIRTIO_NET_HDR_F_NEEDS_CSUM;
	if (h->flags && (!virtio_has(&n->v, VIRTIO_NET_F_CSUM) || !range_within((u32)h->csum_start + h->csum_offset, 2, len)))
		return false;
	if (h->gso_type == VIRTIO_NET_HDR_GSO_NONE) {
		h->hdr_len = h->gso_size = 0;
		return true;
	}
	for (unsigned i = 0; i < ARRAY_SIZE(gso); i++)
		known |= kind == gso[i].type && virtio_has(&n->v, gso[i].feature);
	return known && h->flags && h->gso_size && (kind == h->gso_type || virtio_has(&n->v, VIRTIO_NET_F_HOST_ECN));
}

/* The chain's iovec loses the header and becomes the frame's. */
static bool make_frame(const struct virtio_net *n, struct virtq_chain *c, struct net_frame *f)
{
	unsigned skip = NET_HDR, i = 0;

	if (c->unreachable || c->out_bytes < NET_HDR + NET_FRAME_MIN || c->out_bytes > NET_HDR + NET_FRAME_MAX ||
	    !chain_read(c, 0, &f->hdr, NET_HDR))
		return false;
	f->len = (u32)c->out_bytes - NET_HDR;
	if (!check_header(n, &f->hdr, f->len))
		return false;
	for (; skip >= c->iov[i].iov_len; i++)
		skip -= (unsigned)c->iov[i].iov_len;
	c->iov[i].iov_base = (u8 *)c->iov[i].iov_base + skip;
	c->iov[i].iov_len -= skip;
	f->iov = &c->iov[i];
	f->n_iov = c->n_out - i;
	return true;
}

/* Chains taken off the queue; *frames of them hold frames. */
static unsigned gather(struct virtio_net *n, struct virtq *q, unsigned *frames, int *got)
{
	unsigned chains = 0;

	*frames = 0;
	while (chains < NET_BATCH && (*got = virtq_pop(q, &n->chain[chains])) > 0) {
		if (make_frame(n, &n->chain[chains], &n->frame[*frames]))
			n->frame_chain[(*frames)++] = chains;
		else
			n->counters.tx_dropped++;
		chains++;
	}
	return chains;
}

/* One batch: how many chains were done with; *got: as virtq_pop's last answer. */
static unsigned send_batch(struct virtio_net *n, unsigned pair, int *got)
{
	struct virtq *q = &n->v.queue[tx_queue(pair)];
	unsigned frames = 0, chains = gather(n, q, &frames, got), taken = 0, done = chains;

	if (frames)
		taken = net_send(n->net, pair, n->frame, frames);
	if (taken < frames) {
		done = n->frame_chain[taken];
		n->tx_full[pair] = true;
		for (unsigned i = done; i < chains; i++)
			virtq_unpop(q);
	}
	for (unsigned i = 0; i < taken; i++)
		n->counters.tx_bytes += n->frame[i].len;
	n->counters.tx_frames += taken;
	for (unsigned i = 0; i < done; i++)
		virtq_fill(q, i, &n->chain[i], 0);
	if (done)
		virtq_publish(q, done);
	return done;
}

void virtio_net_tx(struct virtio_net *n, unsigned pair)
{
	struct virtq *q = &n->v.queue[tx_queue(pair)];
	int budget = VIRTIO_BUDGET, got = 0;
	u16 used = q->used_next;

	if (n->tx_full[pair] || pair >= n->active)
		return;
	do {
		virtq_quiet(q);
		do {
			budget -= (int)send_batch(n, pair, &got);
		} while (got > 0 && budget > 0 && !n->tx_full[pair]);
	} while (!got && !n->tx_full[pair] && virtq_listen(q) && budget > 0);
	if (got < 0)
		virtio_needs_reset_locked(&n->v, "bad transmit chain");
	else if (budget <= 0 && !n->tx_full[pair])
		virtio_again(&n->v, tx_queue(pair));
	if (q->used_next != used)
		virtio_signal_queue(&n->v, tx_queue(pair));
}
