/* The control queue (Virtio 1.2, 5.1.6.5): what to receive, the MAC address, the number of queues, offloads. */
#include <string.h>

#include "devices/virtio_net_int.h"

enum { COMMAND_MAX = 2 + 8 + NET_MAC * 4096 }; /* more addresses than anybody has */

/* What a command's data is read from, front to back. */
struct reader {
	const struct virtq_chain *c;
	u64 at;
};

static bool get(struct reader *r, void *to, u64 n)
{
	if (!chain_read(r->c, r->at, to, n))
		return false;
	r->at += n;
	return true;
}

static bool at_end(const struct reader *r)
{
	return r->at == r->c->out_bytes;
}

/* ---- the commands: true when done ---- */
static bool set_rx_mode(struct virtio_net *n, u8 cmd, struct reader *r)
{
	bool *const flag[] = {[VIRTIO_NET_CTRL_RX_PROMISC] = &n->filter.promisc, [VIRTIO_NET_CTRL_RX_ALLMULTI] = &n->filter.allmulti,
			      [VIRTIO_NET_CTRL_RX_ALLUNI] = &n->filter.alluni, [VIRTIO_NET_CTRL_RX_NOMULTI] = &n->filter.nomulti,
			      [VIRTIO_NET_CTRL_RX_NOUNI] = &n->filter.nouni, [VIRTIO_NET_CTRL_RX_NOBCAST] = &n->filter.nobcast};
	u8 on = 0;

	if (cmd >= ARRAY_SIZE(flag) || !get(r, &on, 1) || !at_end(r) ||
	    (cmd > VIRTIO_NET_CTRL_RX_ALLMULTI && !virtio_has(&n->v, VIRTIO_NET_F_CTRL_RX_EXTRA)))
		return false;
	*flag[cmd] = on;
	return true;
}

static bool read_table(struct reader *r, struct mac_table *t)
{
	u32 count = 0;

	*t = (struct mac_table){0};
	if (!get(r, &count, sizeof(count)) || !range_within(r->at, (u64)count * NET_MAC, r->c->out_bytes))
		return false;
	t->all = count > MAC_TABLE_MAX;
	t->n = t->all ? 0 : count;
	if (!t->all)
		return get(r, t->mac, (u64)count * NET_MAC);
	r->at += (u64)count * NET_MAC;
	return true;
}

static bool set_mac(struct virtio_net *n, u8 cmd, struct reader *r)
{
	struct mac_table uni, multi;
	u8 mac[NET_MAC];

	if (cmd == VIRTIO_NET_CTRL_MAC_TABLE_SET) {
		if (!read_table(r, &uni) || !read_table(r, &multi) || !at_end(r))
			return false;
		n->filter.uni = uni;
		n->filter.multi = multi;
		return true;
	}
	if (cmd != VIRTIO_NET_CTRL_MAC_ADDR_SET || !virtio_has(&n->v, VIRTIO_NET_F_CTRL_MAC_ADDR) || !get(r, mac, sizeof(mac)) ||
	    !at_end(r))
		return false;
	memcpy(n->filter.mac, mac, sizeof(mac));
	memcpy(n->space.mac, mac, sizeof(mac));
	return true;
}

static bool set_pairs(struct virtio_net *n, u8 cmd, struct reader *r)
{
	u16 pairs = 0;

	if (cmd != VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET || !virtio_has(&n->v, VIRTIO_NET_F_MQ) || !get(r, &pairs, sizeof(pairs)) ||
	    !at_end(r) || !pairs || pairs > n->pairs)
		return false;
	n->active = pairs;
	net_pairs(n->net, pairs);
	return true;
}

/* A subset of what was negotiated; the driver may change its mind at any time. */
static bool set_guest_offloads(struct virtio_net *n, u8 cmd, struct reader *r)
{
	u64 want = 0;

	if (cmd != VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET || !virtio_has(&n->v, VIRTIO_NET_F_CTRL_GUEST_OFFLOADS) ||
	    !get(r, &want, sizeof(want)) || !at_end(r) || (want & ~n->v.driver_features))
		return false;
	virtio_net_set_offloads(n, want);
	return true;
}

static const struct command {
	u8 class;
	u8 feature; /* that must have been negotiated */
	bool (*run)(struct virtio_net *n, u8 cmd, struct reader *r);
	const char *name;
} commands[] = {
	{VIRTIO_NET_CTRL_RX, VIRTIO_NET_F_CTRL_RX, set_rx_mode, "receive mode"},
	{VIRTIO_NET_CTRL_MAC, VIRTIO_NET_F_CTRL_VQ, set_mac, "MAC addresses"},
	{VIRTIO_NET_CTRL_MQ, VIRTIO_NET_F_MQ, set_pairs, "queue pairs"},
	{VIRTIO_NET_CTRL_GUEST_OFFLOADS, VIRTIO_NET_F_CTRL_GUEST_OFFLOADS, set_guest_offloads, "offloads"},
};

static u8 run_command(struct virtio_net *n, const struct virtq_chain *c)
{
	struct reader r = {.c = c};
	struct virtio_net_ctrl_hdr h;

	if (c->out_bytes > COMMAND_MAX || !get(&r, &h, sizeof(h)))
		return VIRTIO_NET_ERR;
	for (unsigned i = 0; i < ARRAY_SIZE(commands); i++)
		if (commands[i].class == h.class && virtio_has(&n->v, commands[i].feature))
			return commands[i].run(n, h.cmd, &r) ? VIRTIO_NET_OK : VIRTIO_NET_ERR;
	return VIRTIO_NET_ERR;
}

void virtio_net_control(struct virtio_net *n, unsigned queue)
{
	struct virtq *q = &n->v.queue[queue];
	struct virtq_chain *c = &n->chain[0];
	int budget = VIRTIO_BUDGET, got = 0;

	do {
		virtq_quiet(q);
		while (budget-- > 0 && (got = virtq_pop(q, c)) > 0) {
			u8 ack = run_command(n, c);

			virtq_push(q, c, chain_write(c, 0, &ack, 1));
		}
	} while (!got && virtq_listen(q) && budget > 0);
	if (got < 0)
		virtio_needs_reset_locked(&n->v, "bad control chain");
	else if (budget <= 0)
		virtio_again(&n->v, queue);
	virtio_signal_queue(&n->v, queue);
}

/* ---- the filter ---- */
void virtio_net_filter_reset(struct virtio_net *n)
{
	n->filter = (struct rx_filter){0};
	memcpy(n->filter.mac, n->first_mac, NET_MAC);
	memcpy(n->space.mac, n->first_mac, NET_MAC);
	/* a driver that cannot say what it wants gets everything */
	n->filter.promisc = !virtio_has(&n->v, VIRTIO_NET_F_CTRL_RX);
}

static bool in_table(const struct mac_table *t, const u8 *mac)
{
	for (unsigned i = 0; i < t->n; i++)
		if (!memcmp(t->mac[i], mac, NET_MAC))
			return true;
	return t->all;
}

bool virtio_net_wants(const struct virtio_net *n, const u8 *dst)
{
	static const u8 broadcast[NET_MAC] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
	const struct rx_filter *f = &n->filter;

	if (f->promisc)
		return true;
	if (!memcmp(dst, broadcast, NET_MAC))
		return !f->nobcast;
	if (dst[0] & 1)
		return !f->nomulti && (f->allmulti || in_table(&f->multi, dst));
	return !f->nouni && (f->alluni || !memcmp(dst, f->mac, NET_MAC) || in_table(&f->uni, dst));
}
