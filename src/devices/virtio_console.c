/*
 * Console device (Virtio 1.2, 5.3): port 0 is a terminal, the others are named byte streams between host and
 * guest. With MULTIPORT a pair of control queues carries messages about ports. What the device has to tell
 * about a port is a set of bits, not a list of messages: it cannot grow however slowly the driver reads, and
 * the latest state wins.
 *
 * Flow control: a transmit chain that the chardev takes only in part stays where it is, with an offset, until
 * the chardev has drained; the guest sees a queue that does not move. Input stays with the chardev while the
 * guest has no buffers.
 *
 * Closing a port ends what has been written to it. Linux waits for the device to take the message, and opens a
 * port once at a time, so what is in the transmit queue at that moment is all of it.
 */
#include "devices/virtio_console.h"

#include <errno.h>
#include <linux/virtio_console.h>
#include <stdlib.h>
#include <string.h>

#include "backends/chardev.h"
#include "devices/virtio.h"

enum { CLASS_SERIAL_OTHER = 0x078000, QUEUE_SIZE = 128, NAME_MAX_BYTES = 64, COPY = 4096, ENDS_MAX = 64 };
enum { Q_RX0, Q_TX0, Q_CONTROL_RX, Q_CONTROL_TX, Q_PORT1 };

/* What the driver is still to be told about a port, lowest bit first (5.3.6.2). */
enum { TELL_ADD = 0x01, TELL_CONSOLE = 0x02, TELL_NAME = 0x04, TELL_OPEN = 0x08, TELL_SIZE = 0x10 };

struct port {
	struct virtio_console *con;
	unsigned id;
	struct chardev *chardev;
	char name[NAME_MAX_BYTES];
	bool console;
	bool guest_open, host_open;
	bool starved; /* the chardev holds input that did not fit */
	u8 tell;
	u16 cols, rows;
	bool tx_busy; /* tx is popped and partly written, up to tx_done */
	u64 tx_done;
	struct virtq_chain tx;
	u16 end[ENDS_MAX]; /* where in the transmit queue the guest has closed the port; oldest first */
	unsigned n_ends;
};

struct virtio_console {
	struct virtio v;
	struct virtio_pci *pci;
	struct virtio_console_config space;
	struct virtq_chain chain; /* for receive and control work */
	unsigned n_ports;
	struct port port[];
};

static struct virtio_console *con_of(struct virtio *v)
{
	return container_of(v, struct virtio_console, v);
}

static unsigned rx_queue(unsigned port)
{
	return port ? Q_PORT1 + 2 * (port - 1) : Q_RX0;
}

static unsigned tx_queue(unsigned port)
{
	return rx_queue(port) + 1;
}

static bool multiport(const struct virtio_console *c)
{
	return virtio_has(&c->v, VIRTIO_CONSOLE_F_MULTIPORT);
}

/* ---- control messages to the driver ---- */
struct message {
	struct virtio_console_control head;
	u8 body[NAME_MAX_BYTES];
	unsigned size;
};

static void build(const struct port *p, u8 what, struct message *m)
{
	struct virtio_console_control *h = &m->head;
	const u16 size[2] = {p->rows,
			     p->cols}; /* rows first: the order Linux has read since 2010, not 5.3.6.2's */
	h->id = p->id;
	h->value = 1;
	m->size = sizeof(*h);
	switch (what) {
	case TELL_ADD:
		h->event = VIRTIO_CONSOLE_PORT_ADD;
		break;
	case TELL_CONSOLE:
		h->event = VIRTIO_CONSOLE_CONSOLE_PORT;
		break;
	case TELL_NAME:
		h->event = VIRTIO_CONSOLE_PORT_NAME;
		memcpy(m->body, p->name, strlen(p->name));
		m->size += (unsigned)strlen(p->name);
		break;
	case TELL_OPEN:
		h->event = VIRTIO_CONSOLE_PORT_OPEN;
		h->value = p->host_open;
		break;
	default:
		h->event = VIRTIO_CONSOLE_RESIZE;
		memcpy(m->body, size, sizeof(size));
		m->size += sizeof(size);
	}
}

/* Sends one message: 1 sent, 0 no buffer, -EIO. A buffer that is too small is returned empty and the message
 * dropped. */
static int send_message(struct virtio_console *c, const struct message *m)
{
	struct virtq *q = &c->v.queue[Q_CONTROL_RX];
	int got = virtq_pop(q, &c->chain);
	if (got <= 0)
		return got;
	u8 flat[sizeof(m->head) + sizeof(m->body)];
	memcpy(flat, &m->head, sizeof(m->head));
	memcpy(flat + sizeof(m->head), m->body, sizeof(m->body));
	virtq_push(q, &c->chain, chain_write(&c->chain, 0, flat, m->size) ? m->size : 0);
	return 1;
}

static int tell_port(struct virtio_console *c, struct port *p)
{
	while (p->tell) {
		u8 what = p->tell & -p->tell;
		struct message m = {0};
		build(p, what, &m);
		int sent = send_message(c, &m);
		if (sent <= 0)
			return sent;
		p->tell &= ~what;
	}
	return 1;
}

static void tell_all(struct virtio_console *c)
{
	struct virtq *q = &c->v.queue[Q_CONTROL_RX];
	if (!virtio_live(&c->v) || !multiport(c))
		return;
	int sent = 1;
	do {
		virtq_quiet(q);
		sent = 1;
		for (unsigned i = 0; i < c->n_ports && sent > 0; i++)
			sent = tell_port(c, &c->port[i]);
	} while (!sent && virtq_listen(q)); /* bounded: each round ends everything or uses up a buffer */
	if (sent < 0)
		virtio_needs_reset_locked(&c->v, "bad control buffer");
	virtio_signal_queue(&c->v, Q_CONTROL_RX);
}

/* ---- control messages from the driver ---- */
static void on_device_ready(struct virtio_console *c, struct port *p, u16 value)
{
	for (unsigned i = 0; value && i < c->n_ports; i++)
		c->port[i].tell |= TELL_ADD;
}

static void on_port_ready(struct virtio_console *c, struct port *p, u16 value)
{
	if (!p || !value)
		return;
	if (p->console)
		p->tell |= TELL_CONSOLE | (p->cols ? TELL_SIZE : 0);
	if (p->name[0])
		p->tell |= TELL_NAME;
	if (p->host_open)
		p->tell |= TELL_OPEN;
}

static void run_tx(struct port *p);

static void port_closed(struct port *p)
{
	u16 at = virtq_published(&p->con->v.queue[tx_queue(p->id)]);
	if (p->n_ends < ENDS_MAX && (!p->n_ends || p->end[p->n_ends - 1] != at))
		p->end[p->n_ends++] = at;
	run_tx(p);
}

static void on_port_open(struct virtio_console *c, struct port *p, u16 value)
{
	if (!p)
		return;
	if (p->guest_open && !value)
		port_closed(p);
	p->guest_open = value != 0;
	if (p->guest_open && p->starved) {
		p->starved = false;
		chardev_resume(p->chardev);
	}
}

static const struct {
	u16 event;
	void (*run)(struct virtio_console *c, struct port *p, u16 value);
} control_events[] = {
    {VIRTIO_CONSOLE_DEVICE_READY, on_device_ready},
    {VIRTIO_CONSOLE_PORT_READY, on_port_ready},
    {VIRTIO_CONSOLE_PORT_OPEN, on_port_open},
};

static void handle_control(struct virtio_console *c)
{
	struct virtio_console_control h;
	if (!chain_read(&c->chain, 0, &h, sizeof(h)))
		return; /* too short to mean anything */
	struct port *p = h.id < c->n_ports ? &c->port[h.id] : NULL;
	for (size_t i = 0; i < ARRAY_SIZE(control_events); i++)
		if (control_events[i].event == h.event)
			control_events[i].run(c, p, h.value);
}

static void control_notify(struct virtio_console *c)
{
	struct virtq *q = &c->v.queue[Q_CONTROL_TX];
	int budget = VIRTIO_BUDGET, got = 0;
	do {
		virtq_quiet(q);
		while (budget > 0 && (got = virtq_pop(q, &c->chain)) > 0) {
			handle_control(c);
			virtq_push(q, &c->chain, 0);
			budget--;
		}
	} while (!got && virtq_listen(q) && budget > 0);
	if (got < 0)
		virtio_needs_reset_locked(&c->v, "bad control message");
	else if (budget <= 0)
		virtio_again(&c->v, Q_CONTROL_TX);
	virtio_signal_queue(&c->v, Q_CONTROL_TX);
	tell_all(c);
}

/* ---- output ---- */
/* Writes on with the port's chain; true when it is all out. */
static bool continue_tx(struct port *p)
{
	struct iovec iov[VIRTQ_SIZE_MAX];
	u64 left = p->tx.out_bytes - p->tx_done;
	unsigned n = chain_slice(&p->tx, false, p->tx_done, left, iov);
	for (unsigned i = 0; i < n; i++) {
		u8 buf[COPY]; /* a private copy: the chardev may look at the bytes more than once */
		for (size_t at = 0; at < iov[i].iov_len;) {
			size_t now = MIN(iov[i].iov_len - at, sizeof(buf));
			memcpy(buf, (u8 *)iov[i].iov_base + at, now);
			size_t taken = chardev_write(p->chardev, buf, now);
			at += taken;
			p->tx_done += taken;
			if (taken < now)
				return false;
		}
	}
	return true;
}

static int next_tx(struct port *p, struct virtq *q)
{
	while (p->n_ends && p->end[0] == q->avail_next) {
		memmove(p->end, p->end + 1, --p->n_ends * sizeof(p->end[0]));
		chardev_ended(p->chardev, true);
	}
	return virtq_pop(q, &p->tx);
}

static void run_tx(struct port *p)
{
	struct virtio *v = &p->con->v;
	unsigned qi = tx_queue(p->id);
	struct virtq *q = &v->queue[qi];
	int budget = VIRTIO_BUDGET, got = 0;
	if (!q->enabled)
		return;
	do {
		virtq_quiet(q);
		while (budget > 0 && (p->tx_busy || (got = next_tx(p, q)) > 0)) {
			p->tx_busy = true;
			if (!continue_tx(p))
				goto signal; /* drained brings us back */
			p->tx_busy = false;
			p->tx_done = 0;
			virtq_push(q, &p->tx, 0);
			budget--;
			got = 0;
		}
	} while (!got && budget > 0 && virtq_listen(q));
	if (got < 0)
		virtio_needs_reset_locked(v, "bad output buffer");
	else if (budget <= 0)
		virtio_again(v, qi);
signal:
	virtio_signal_queue(v, qi);
}

static void port_drained(void *dev)
{
	struct port *p = dev;
	struct virtio *v = &p->con->v;
	pthread_mutex_lock(&v->lock);
	if (virtio_live(v))
		run_tx(p);
	pthread_mutex_unlock(&v->lock);
}

/* ---- input ---- */
static bool accepts_input(const struct port *p)
{
	const struct virtio_console *c = p->con;
	return virtio_live(&c->v) && c->v.queue[rx_queue(p->id)].enabled &&
	       (multiport(c) ? p->guest_open : p->id == 0);
}

static size_t feed_locked(struct port *p, const u8 *data, size_t n)
{
	struct virtio_console *c = p->con;
	struct virtq *q = &c->v.queue[rx_queue(p->id)];
	size_t taken = 0;
	int budget = VIRTIO_BUDGET;
	while (taken < n) {
		if (!budget--) {
			virtio_again(&c->v,
				     rx_queue(p->id)); /* and so to rx_notify, which asks for the rest */
			break;
		}
		int got = virtq_pop(q, &c->chain);
		if (!got && virtq_listen(q))
			continue;
		if (got < 0)
			virtio_needs_reset_locked(&c->v, "bad input buffer");
		if (got <= 0)
			break;
		u64 now = MIN(n - taken, c->chain.in_bytes);
		if (!chain_write(&c->chain, 0, data + taken, now))
			now = 0;
		virtq_push(q, &c->chain, (u32)now);
		taken += now;
	}
	if (taken)
		virtio_signal_queue(&c->v, rx_queue(p->id));
	return taken;
}

static size_t port_input(void *dev, const u8 *data, size_t n)
{
	struct port *p = dev;
	struct virtio *v = &p->con->v;
	pthread_mutex_lock(&v->lock);
	size_t taken = accepts_input(p) ? feed_locked(p, data, n) : 0;
	p->starved = taken < n;
	pthread_mutex_unlock(&v->lock);
	return taken;
}

static void rx_notify(struct port *p)
{
	if (!p->starved)
		return;
	p->starved = false;
	chardev_resume(p->chardev);
}

/* ---- what happens at the host's end ---- */
static void port_resized(void *dev, u16 cols, u16 rows)
{
	struct port *p = dev;
	struct virtio_console *c = p->con;
	pthread_mutex_lock(&c->v.lock);
	p->cols = cols;
	p->rows = rows;
	if (p->console) {
		p->tell |= TELL_SIZE;
		if (p->id == 0) {
			c->space.cols = cols;
			c->space.rows = rows;
			virtio_config_changed_locked(&c->v);
		}
		tell_all(c);
	}
	pthread_mutex_unlock(&c->v.lock);
}

static void port_opened(void *dev, bool open)
{
	struct port *p = dev;
	struct virtio_console *c = p->con;
	pthread_mutex_lock(&c->v.lock);
	if (p->host_open != open) {
		p->host_open = open;
		p->tell |= TELL_OPEN;
		tell_all(c);
	}
	pthread_mutex_unlock(&c->v.lock);
}

static const struct chardev_sink port_sink = {
    .input = port_input, .drained = port_drained, .resized = port_resized, .opened = port_opened};

/* ---- the virtio side ---- */
static void console_notify(struct virtio *v, unsigned queue)
{
	struct virtio_console *c = con_of(v);
	if (queue == Q_CONTROL_TX) {
		control_notify(c);
	} else if (queue == Q_CONTROL_RX) {
		tell_all(c);
	} else {
		struct port *p = &c->port[queue < Q_PORT1 ? 0 : 1 + (queue - Q_PORT1) / 2];
		if (queue == tx_queue(p->id))
			run_tx(p);
		else
			rx_notify(p);
	}
}

/*
 * What the driver has put into the queues by now is written: Linux's write() and close() return when it is there, and a guest that powers
 * off resets its devices first.
 */
static void console_leave(struct virtio *v)
{
	struct virtio_console *c = con_of(v);
	for (unsigned i = 0; i < c->n_ports; i++) {
		if (chardev_settle(c->port[i].chardev, true))
			run_tx(&c->port[i]);
		chardev_settle(c->port[i].chardev, false);
	}
}

static bool console_reset_queues(struct virtio *v)
{
	struct virtio_console *c = con_of(v);
	for (unsigned i = 0; i < c->n_ports; i++) {
		struct port *p = &c->port[i];
		p->guest_open = p->tx_busy = false;
		p->tx_done = 0;
		p->n_ends = 0;
		chardev_ended(p->chardev, false);
		p->tell = 0;
	}
	return true;
}

/* The emergency write register: a byte for the console before, or without, any queue (5.3.5). */
static void console_config_written(struct virtio *v, unsigned off, unsigned size)
{
	struct virtio_console *c = con_of(v);
	u8 byte = (u8)c->space.emerg_wr;
	if (off == offsetof(struct virtio_console_config, emerg_wr) &&
	    !chardev_write(c->port[0].chardev, &byte, 1))
		return; /* a full terminal loses it: nothing here may wait */
}

static const struct virtio_ops console_ops = {.name = "virtio-console",
					      .id = VIRTIO_ID_CONSOLE,
					      .pci_class = CLASS_SERIAL_OTHER,
					      .notify = console_notify,
					      .leave = console_leave,
					      .reset = console_reset_queues,
					      .config_written = console_config_written};

/* ---- lifecycle ---- */
static void console_reset(struct device *d)
{
	virtio_pci_reset(virtio_pci_of_device(d));
}

static void console_destroy(struct device *d)
{
	struct virtio_console *c = con_of(virtio_of_device(d));
	pthread_mutex_lock(&c->v.lock);
	if (virtio_live(&c->v))
		console_leave(&c->v);
	pthread_mutex_unlock(&c->v.lock);
	for (unsigned i = 0; i < c->n_ports; i++)
		chardev_detach(c->port[i].chardev);
	virtio_pci_destroy(c->pci);
	virtio_fini(&c->v);
	free(c);
}

static const struct device_class console_class = {
    .name = "virtio-console", .reset = console_reset, .destroy = console_destroy};

static int set_up_port(struct virtio_console *c, unsigned id, const struct virtio_console_port_options *o)
{
	struct port *p = &c->port[id];
	if (o->name && strlen(o->name) >= sizeof(p->name))
		return -ENAMETOOLONG;
	if (o->name)
		memcpy(p->name, o->name, strlen(o->name) + 1);
	p->con = c;
	p->id = id;
	p->chardev = o->chardev;
	p->console = o->console;
	return 0;
}

int virtio_console_create(struct machine *m, struct pci_host *h, const struct virtio_console_options *o,
			  struct virtio_console **out)
{
	static const u8 writable[sizeof(struct virtio_console_config)] = {
	    [offsetof(struct virtio_console_config, emerg_wr)] = 0xff};
	if (o->n_ports < 1 || o->n_ports > VIRTIO_CONSOLE_PORTS_MAX)
		return -EINVAL;
	struct virtio_console *c = calloc(1, sizeof(*c) + o->n_ports * sizeof(c->port[0]));
	if (!c)
		return -ENOMEM;
	int r = 0;
	c->n_ports = o->n_ports;
	c->space.max_nr_ports = o->n_ports;
	virtio_init(&c->v, m, &console_ops,
		    BIT64(VIRTIO_CONSOLE_F_SIZE) | BIT64(VIRTIO_CONSOLE_F_MULTIPORT) |
			BIT64(VIRTIO_CONSOLE_F_EMERG_WRITE),
		    Q_PORT1 + 2 * (o->n_ports - 1), QUEUE_SIZE);
	virtio_set_config(&c->v, &c->space, writable, sizeof(c->space));
	for (unsigned i = 0; i < o->n_ports && !r; i++)
		r = set_up_port(c, i, &o->port[i]);
	if (!r)
		r = virtio_pci_create(&c->v, h, -1, &console_class, &c->pci);
	if (r) {
		virtio_fini(&c->v);
		free(c);
		return r;
	}
	for (unsigned i = 0; i < c->n_ports; i++)
		chardev_attach(c->port[i].chardev, &port_sink, &c->port[i]);
	*out = c;
	return 0;
}
