/* Socket device (Virtio 1.2, 5.10): packets in both directions. Stream sockets only. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "backends/dialer.h"
#include "base/base.h"
#include "devices/vsock_int.h"

enum { QUEUE_RX, QUEUE_TX, QUEUE_EVENT, N_QUEUES };
enum { QUEUE_SIZE = 128, CLASS_OTHER = 0x078000, HDR = sizeof(struct virtio_vsock_hdr) };

static struct virtio_vsock *of(struct virtio *v)
{
	return container_of(v, struct virtio_vsock, v);
}

/* ---- to the guest ---- */
static struct virtio_vsock_hdr header(const struct virtio_vsock *s, u32 host_port, u32 guest_port, u16 op)
{
	return (struct virtio_vsock_hdr){.src_cid = VSOCK_HOST_CID,
					 .dst_cid = s->o.cid,
					 .src_port = host_port,
					 .dst_port = guest_port,
					 .type = VIRTIO_VSOCK_TYPE_STREAM,
					 .op = op};
}

static void put(struct virtio_vsock *s, const struct virtio_vsock_hdr *h)
{
	/* pump() has looked: the chain holds a header */
	if (chain_write(&s->chain, 0, h, HDR))
		virtq_push(&s->v.queue[QUEUE_RX], &s->chain, HDR + h->len);
}

static void put_for(struct vsock_conn *c, u16 op, u32 len, u32 flags)
{
	struct virtio_vsock_hdr h = header(c->s, c->host_port, c->guest_port, op);
	h.len = len;
	h.flags = flags;
	h.buf_alloc = VSOCK_BUF;
	h.fwd_cnt = c->taken;
	c->taken_told = c->taken;
	c->owed &= (u8)~VSOCK_OWE_CREDIT; /* every packet says it */
	put(c->s, &h);
}

/* May free c: a SHUTDOWN for both directions ends it here; the guest's RST finds nobody and needs no answer. */
static void put_owed(struct vsock_conn *c)
{
	const u8 both = VIRTIO_VSOCK_SHUTDOWN_RCV | VIRTIO_VSOCK_SHUTDOWN_SEND;
	static const struct {
		u8 owed;
		u16 op;
	} order[] = {{VSOCK_OWE_REQUEST, VIRTIO_VSOCK_OP_REQUEST},
		     {VSOCK_OWE_RESPONSE, VIRTIO_VSOCK_OP_RESPONSE},
		     {VSOCK_OWE_CREDIT, VIRTIO_VSOCK_OP_CREDIT_UPDATE},
		     {VSOCK_OWE_CREDIT_REQUEST, VIRTIO_VSOCK_OP_CREDIT_REQUEST},
		     {VSOCK_OWE_SHUTDOWN, VIRTIO_VSOCK_OP_SHUTDOWN}};
	for (unsigned i = 0; i < ARRAY_SIZE(order); i++) {
		if (!(c->owed & order[i].owed))
			continue;
		c->owed &= (u8)~order[i].owed;
		put_for(c, order[i].op, 0, order[i].op == VIRTIO_VSOCK_OP_SHUTDOWN ? c->host_shut : 0);
		if (order[i].op == VIRTIO_VSOCK_OP_SHUTDOWN && c->host_shut == both)
			vsock_conn_free(c);
		return;
	}
}

static void put_reply(struct virtio_vsock *s)
{
	struct vsock_reply r = s->reply[0];
	struct virtio_vsock_hdr h = header(s, r.host_port, r.guest_port, VIRTIO_VSOCK_OP_RST);
	h.src_cid = r.host_cid;
	h.type = r.type;
	s->n_replies--;
	memmove(s->reply, s->reply + 1, s->n_replies * sizeof(s->reply[0]));
	put(s, &h);
}

bool vsock_reply_rst(struct virtio_vsock *s, const struct vsock_reply *r)
{
	if (s->n_replies == VSOCK_REPLIES_MAX)
		return false;
	s->reply[s->n_replies++] = *r;
	return true;
}

static bool has_data(const struct vsock_conn *c)
{
	return c->state == VSOCK_OPEN && c->in_ready && !(c->host_shut & VIRTIO_VSOCK_SHUTDOWN_SEND) &&
	       !(c->guest_shut & VIRTIO_VSOCK_SHUTDOWN_RCV);
}

/* Whose turn it is to send; NULL: nobody has anything the guest would take. */
static struct vsock_conn *next_sender(struct virtio_vsock *s)
{
	for (unsigned k = 0; k < VSOCK_CONNS_MAX; k++) {
		struct vsock_conn *c = s->conn[(s->next + k) % VSOCK_CONNS_MAX];
		if (!c)
			continue;
		if (has_data(c) && !vsock_credit(c) && !c->asked_credit) {
			c->asked_credit = true;
			c->owed |= VSOCK_OWE_CREDIT_REQUEST;
		}
		if (c->owed || (has_data(c) && vsock_credit(c))) {
			s->next = (s->next + k + 1) % VSOCK_CONNS_MAX;
			return c;
		}
	}
	return NULL;
}

/* True when the chain was used. */
static bool put_data(struct vsock_conn *c)
{
	struct virtio_vsock *s = c->s;
	u64 room = MIN(s->chain.in_bytes - HDR, (u64)vsock_credit(c));
	unsigned n = chain_slice(&s->chain, true, HDR, room, s->iov);
	ssize_t got = n ? vsock_from_host(c, s->iov, n) : -EAGAIN;
	if (got == -EAGAIN)
		return false;
	if (got <= 0) {
		c->host_shut |= VIRTIO_VSOCK_SHUTDOWN_SEND | (c->hung_up ? VIRTIO_VSOCK_SHUTDOWN_RCV : 0);
		c->owed |= VSOCK_OWE_SHUTDOWN;
		return false;
	}
	c->sent += (u32)got;
	put_for(c, VIRTIO_VSOCK_OP_RW, (u32)got, 0);
	return true;
}

/* 1: something was sent; 0: nothing to send, or no buffer; -EIO: the driver broke the queue. */
static int send_one(struct virtio_vsock *s)
{
	struct virtq *q = &s->v.queue[QUEUE_RX];
	struct vsock_conn *c = s->n_replies ? NULL : next_sender(s);
	int got = 0;
	if (!c && !s->n_replies)
		return 0;
	do {
		virtq_quiet(q);
		got = virtq_pop(q, &s->chain);
	} while (!got && virtq_listen(q));
	if (got <= 0)
		return got;
	if (s->chain.n_out || s->chain.in_bytes < HDR)
		return -EIO;
	if (!c)
		put_reply(s);
	else if (c->owed)
		put_owed(c);
	else if (!put_data(c))
		virtq_unpop(q);
	return 1;
}

void vsock_pump(struct virtio_vsock *s)
{
	int budget = VIRTIO_BUDGET, sent = 1;
	if (!virtio_live(&s->v))
		return;
	while (budget-- > 0 && (sent = send_one(s)) > 0)
		;
	if (sent < 0) {
		virtio_needs_reset_locked(&s->v, "bad receive buffer");
		return;
	}
	virtio_signal_queue(&s->v, QUEUE_RX);
	if (sent > 0)
		virtio_again(&s->v, QUEUE_RX);
	if (s->tx_waits && s->n_replies < VSOCK_REPLIES_MAX / 2) {
		s->tx_waits = false;
		virtio_again(&s->v, QUEUE_TX);
	}
}

/* ---- from the guest ---- */
static bool refuse(struct virtio_vsock *s, const struct virtio_vsock_hdr *h)
{
	const struct vsock_reply r = {
	    .host_port = h->dst_port, .guest_port = h->src_port, .host_cid = h->dst_cid, .type = h->type};
	return h->op == VIRTIO_VSOCK_OP_RST || vsock_reply_rst(s, &r);
}

/* Ends a connection whose guest broke a rule; false: no room for the reply. */
static bool end(struct vsock_conn *c, const struct virtio_vsock_hdr *h)
{
	if (!refuse(c->s, h))
		return false;
	vsock_conn_free(c);
	return true;
}

static bool on_shutdown(struct vsock_conn *c, const struct virtio_vsock_hdr *h)
{
	const u8 both = VIRTIO_VSOCK_SHUTDOWN_RCV | VIRTIO_VSOCK_SHUTDOWN_SEND;
	if (c->state != VSOCK_OPEN)
		return end(c, h);
	/* what ends the connection is answered (5.10.6.6.1) */
	if (((c->guest_shut | h->flags) & both) == both && c->guest_shut != both && !refuse(c->s, h))
		return false;
	c->guest_shut |= h->flags & both;
	vsock_guest_shut(c);
	return true;
}

static bool on_packet(struct vsock_conn *c, const struct virtio_vsock_hdr *h)
{
	c->peer_alloc = h->buf_alloc;
	c->peer_fwd = h->fwd_cnt;
	if (vsock_credit(c))
		c->asked_credit = false;
	switch (h->op) {
	case VIRTIO_VSOCK_OP_RESPONSE:
		if (c->state != VSOCK_REQUESTED || (c->owed & VSOCK_OWE_REQUEST))
			return end(c, h);
		vsock_accepted(c);
		return true;
	case VIRTIO_VSOCK_OP_RW:
		if (c->state != VSOCK_OPEN || (c->guest_shut & VIRTIO_VSOCK_SHUTDOWN_SEND) ||
		    !vsock_to_host(c, &c->s->chain, h->len))
			return end(c, h);
		return true;
	case VIRTIO_VSOCK_OP_SHUTDOWN:
		return on_shutdown(c, h);
	case VIRTIO_VSOCK_OP_RST:
		vsock_conn_free(c);
		return true;
	case VIRTIO_VSOCK_OP_CREDIT_UPDATE:
		return true;
	case VIRTIO_VSOCK_OP_CREDIT_REQUEST:
		c->owed |= VSOCK_OWE_CREDIT;
		return true;
	default:
		return end(c, h);
	}
}

/* False: there is no room for the reply it needs; it is to be taken again later. */
static bool take(struct virtio_vsock *s)
{
	struct virtio_vsock_hdr h;
	struct vsock_conn *c = NULL;
	if (!chain_read(&s->chain, 0, &h, HDR) || h.len > s->chain.out_bytes - HDR)
		return true; /* no packet: dropped */
	if (h.src_cid != s->o.cid)
		return true;
	if (h.dst_cid != VSOCK_HOST_CID || h.type != VIRTIO_VSOCK_TYPE_STREAM)
		return refuse(s, &h);
	c = vsock_find(s, h.dst_port, h.src_port);
	if (c)
		return on_packet(c, &h);
	if (h.op == VIRTIO_VSOCK_OP_REQUEST && vsock_dial(s, &h))
		return true;
	return refuse(s, &h);
}

static void take_all(struct virtio_vsock *s)
{
	struct virtq *q = &s->v.queue[QUEUE_TX];
	int budget = VIRTIO_BUDGET, got = 0;
	do {
		virtq_quiet(q);
		while (budget > 0 && (got = virtq_pop(q, &s->chain)) > 0) {
			if (!take(s)) {
				virtq_unpop(q);
				s->tx_waits = true;
				virtio_signal_queue(&s->v, QUEUE_TX);
				return;
			}
			virtq_push(q, &s->chain, 0);
			budget--;
		}
		if (got < 0) {
			virtio_needs_reset_locked(&s->v, "bad descriptor chain");
			return;
		}
	} while (virtq_listen(q) && budget > 0);
	if (budget <= 0)
		virtio_again(&s->v, QUEUE_TX);
	virtio_signal_queue(&s->v, QUEUE_TX);
}

/* ---- lifecycle ---- */
static void vsock_notify(struct virtio *v, unsigned queue)
{
	struct virtio_vsock *s = of(v);
	if (queue == QUEUE_TX && !s->tx_waits)
		take_all(s);
	if (queue != QUEUE_EVENT)
		vsock_pump(s);
}

/* The loop's thread pumps: here it is a vCPU's. */
static void vsock_activate(struct virtio *v)
{
	virtio_again(v, QUEUE_RX);
}

/* Clients whose request has not gone out yet wait on: a driver resets the device before it uses it. */
static void forget_guest(struct virtio_vsock *s)
{
	for (unsigned i = 0; i < VSOCK_CONNS_MAX; i++) {
		struct vsock_conn *c = s->conn[i];
		if (c && c->state != VSOCK_LINE && !(c->owed & VSOCK_OWE_REQUEST))
			vsock_conn_free(c);
	}
	s->n_replies = 0;
	s->tx_waits = false;
}

static void reset_on_main(void *arg)
{
	struct virtio_vsock *s = arg;
	pthread_mutex_lock(&s->v.lock);
	forget_guest(s);
	if (s->v.resetting)
		virtio_reset_done_locked(&s->v);
	pthread_mutex_unlock(&s->v.lock);
}

static bool vsock_reset(struct virtio *v)
{
	struct virtio_vsock *s = of(v);
	bool any = s->n_replies || s->tx_waits;
	for (unsigned i = 0; i < VSOCK_CONNS_MAX; i++)
		any |= s->conn[i] && s->conn[i]->state != VSOCK_LINE && !(s->conn[i]->owed & VSOCK_OWE_REQUEST);
	return !any || loop_call(machine_loop(v->machine), reset_on_main, s) != 0;
}

static const struct virtio_ops vsock_ops = {.name = "virtio-vsock",
					    .id = VIRTIO_ID_VSOCK,
					    .pci_class = CLASS_OTHER,
					    .notify = vsock_notify,
					    .activate = vsock_activate,
					    .reset = vsock_reset};

static void class_reset(struct device *d)
{
	struct virtio_vsock *s = of(virtio_of_device(d));
	pthread_mutex_lock(&s->v.lock);
	forget_guest(s);
	pthread_mutex_unlock(&s->v.lock);
	virtio_pci_reset(s->pci);
}

static void class_destroy(struct device *d)
{
	struct virtio_vsock *s = of(virtio_of_device(d));
	vsock_host_stop(s);
	virtio_pci_destroy(s->pci);
	virtio_fini(&s->v);
	free(s);
}

static const struct device_class vsock_class = {
    .name = "virtio-vsock", .reset = class_reset, .destroy = class_destroy};

int virtio_vsock_create(struct machine *m, struct pci_host *h, const struct virtio_vsock_options *o,
			struct virtio_vsock **out)
{
	struct virtio_vsock *s = calloc(1, sizeof(*s));
	const struct virtio_vsock_config config = {.guest_cid = o->cid};
	if (!s)
		return -ENOMEM;
	s->o = *o;
	memcpy(s->config, &config, sizeof(config));
	virtio_init(&s->v, m, &vsock_ops, 0, N_QUEUES, QUEUE_SIZE);
	virtio_set_config(&s->v, s->config, NULL, sizeof(s->config));
	int e = virtio_pci_create(&s->v, h, -1, &vsock_class, &s->pci);
	if (e) {
		virtio_fini(&s->v);
		free(s);
		return e;
	}
	*out = s;
	e = vsock_host_start(s); /* from here on the machine's list destroys it */
	if (e)
		s->o = (struct virtio_vsock_options){.listen_fd = -1};
	return e;
}
