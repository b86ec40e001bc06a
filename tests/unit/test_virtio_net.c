/* virtio-net through the PCI transport, driven as a guest's driver would and should not; the backend is a fake. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "devices/virtio_net.h"
#include "virtio_driver.h"

#define MODERN   (BIT64(VIRTIO_F_VERSION_1) | BIT64(VIRTIO_RING_F_INDIRECT_DESC) | BIT64(VIRTIO_RING_F_EVENT_IDX))
#define OFFLOADS (BIT64(VIRTIO_NET_F_CSUM) | BIT64(VIRTIO_NET_F_HOST_TSO4) | BIT64(VIRTIO_NET_F_GUEST_CSUM) | \
		  BIT64(VIRTIO_NET_F_GUEST_TSO4))
#define ALL	 (~(BIT64(VIRTIO_NET_F_CTRL_RX)))
enum { RX = 0, TX = 1, CTRL = 2, FRAMES = 600, PAGE = 4096 };

static const u8 mac[NET_MAC] = {0x52, 0x54, 0, 1, 2, 3};

/* ---- a backend that keeps what it gets and gives what it is told ---- */
struct frame {
	struct virtio_net_hdr_v1 hdr;
	u32 len;
	u8 *data;
};
struct fake {
	struct net net;
	unsigned n_sent, room; /* takes room more */
	struct frame sent[FRAMES];
	unsigned n_in, at;
	struct frame in[FRAMES];
	struct net_packet packet;
	bool listening;
	u64 offloads;
	unsigned pairs;
};

static struct fake *fake_of(struct net *n)
{
	return container_of(n, struct fake, net);
}

static unsigned fake_send(struct net *n, unsigned pair, const struct net_frame *f, unsigned count)
{
	struct fake *k = fake_of(n);
	unsigned i = 0;

	for (; i < count && k->room; i++, k->room--) {
		struct frame *s = &k->sent[k->n_sent++];
		u32 at = 0;

		assert_true(k->n_sent <= FRAMES);
		*s = (struct frame){.hdr = f[i].hdr, .len = f[i].len, .data = malloc(f[i].len)};
		for (unsigned v = 0; v < f[i].n_iov; v++) {
			assert_true(f[i].iov[v].iov_len && at + f[i].iov[v].iov_len <= f[i].len);
			memcpy(s->data + at, f[i].iov[v].iov_base, f[i].iov[v].iov_len);
			at += (u32)f[i].iov[v].iov_len;
		}
		assert_int_equal(at, f[i].len);
	}
	return i;
}

static const struct net_packet *fake_peek(struct net *n, unsigned pair)
{
	struct fake *k = fake_of(n);

	if (k->at == k->n_in)
		return NULL;
	k->packet = (struct net_packet){.hdr = k->in[k->at].hdr, .data = k->in[k->at].data, .len = k->in[k->at].len};
	return &k->packet;
}

static void fake_next(struct net *n, unsigned pair)
{
	fake_of(n)->at++;
}

static void fake_listen(struct net *n, unsigned pair, bool on)
{
	fake_of(n)->listening = on;
}

static void fake_offloads(struct net *n, u64 features)
{
	fake_of(n)->offloads = features;
}

static void fake_pairs(struct net *n, unsigned count)
{
	fake_of(n)->pairs = count;
}

static void fake_destroy(struct net *n)
{
	struct fake *k = fake_of(n);

	for (unsigned i = 0; i < k->n_sent; i++)
		free(k->sent[i].data);
	for (unsigned i = 0; i < k->n_in; i++)
		free(k->in[i].data);
	free(k);
}

static const struct net_ops fake_ops = {.name = "fake", .send = fake_send, .peek = fake_peek, .next = fake_next,
					.listen = fake_listen, .offloads = fake_offloads, .pairs = fake_pairs,
					.destroy = fake_destroy};

struct fixture {
	struct machine *m;
	struct pci_host *host;
	struct fake *k;
	struct drv d;
};

static void make(void **state, unsigned pairs)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct virtio_net_options o = {0};
	struct virtio_net *n = NULL;

	f->m = fake_machine_new();
	assert_int_equal(pci_host_create(f->m, &fake_pci_config, &f->host), 0);
	f->k = calloc(1, sizeof(*f->k));
	f->k->net = (struct net){.ops = &fake_ops, .features = OFFLOADS, .pairs = pairs, .mtu = 9000};
	f->k->room = FRAMES;
	f->k->listening = true;
	o.net = &f->k->net;
	memcpy(o.mac, mac, sizeof(mac));
	assert_int_equal(virtio_net_create(f->m, f->host, &o, &n), 0);
	drv_find(&f->d, f->m, 1);
	*state = f;
}

static int setup(void **state)
{
	make(state, 1);
	return 0;
}

static int setup_multi(void **state)
{
	make(state, 4);
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	fake_machine_free(f->m);
	free(f);
	return 0;
}

static void start(struct fixture *f, u64 features, u16 size)
{
	drv_start(&f->d, features, 3, size, true);
	fake_run(f->m);
}

static u8 pattern(u32 seed, u32 i)
{
	return (u8)((seed * 31 + i) * 2654435761u >> 11);
}

/* A frame for us from the network's side. */
static void incoming_to(struct fixture *f, u32 len, u32 seed, const u8 *dst)
{
	struct frame *x = &f->k->in[f->k->n_in++];

	*x = (struct frame){.len = len, .data = malloc(len)};
	for (u32 i = 0; i < len; i++)
		x->data[i] = pattern(seed, i);
	memcpy(x->data, dst, NET_MAC);
}

static void incoming(struct fixture *f, u32 len, u32 seed)
{
	incoming_to(f, len, seed, mac);
}

static void readable(struct fixture *f)
{
	f->k->net.client->readable(f->k->net.dev, 0);
}

/* Guest memory with a header and a frame, for transmission. */
static gpa_t outgoing(struct fixture *f, const struct virtio_net_hdr_v1 *h, u32 len, u32 seed)
{
	gpa_t a = drv_alloc(&f->d, NET_HDR + len);
	u8 *p = drv_ptr(&f->d, a);

	memcpy(p, h, NET_HDR);
	for (u32 i = 0; i < len; i++)
		p[NET_HDR + i] = pattern(seed, i);
	return a;
}

static const struct virtio_net_hdr_v1 plain;

static void check_sent(struct fixture *f, unsigned i, u32 len, u32 seed)
{
	assert_true(i < f->k->n_sent);
	assert_int_equal(f->k->sent[i].len, len);
	for (u32 b = 0; b < len; b++)
		assert_int_equal(f->k->sent[i].data[b], pattern(seed, b));
}

/* ---- transmission ---- */
static void sends(void **state)
{
	struct fixture *f = *state;
	struct vring_used_elem e;
	static const u32 cuts[] = {NET_HDR, 1, 5, 11, NET_HDR + 7};

	start(f, ALL, 64);
	for (u32 i = 0; i < ARRAY_SIZE(cuts); i++) {
		gpa_t a = outgoing(f, &plain, 1000 + i, i);
		const struct seg s[] = {{a, cuts[i], false}, {a + cuts[i], 500, false},
					{a + cuts[i] + 500, NET_HDR + 1000 + i - cuts[i] - 500, false}};

		drv_add(&f->d, TX, s, 3);
	}
	drv_kick(&f->d, TX);
	fake_run(f->m);
	assert_int_equal(f->k->n_sent, ARRAY_SIZE(cuts));
	for (u32 i = 0; i < ARRAY_SIZE(cuts); i++) {
		check_sent(f, i, 1000 + i, i);
		assert_true(drv_used(&f->d, TX, &e));
		assert_int_equal(e.len, 0);
	}
	assert_false(drv_used(&f->d, TX, &e));
	assert_true(fake_msis(f->m, 0x42) >= 1);
}

static void sends_many(void **state)
{
	struct fixture *f = *state;
	struct vring_used_elem e;
	gpa_t a[50];

	start(f, ALL, 64);
	for (u32 i = 0; i < 50; i++)
		a[i] = outgoing(f, &plain, 60 + i, i);
	for (u32 round = 0; round < 10; round++) {
		for (u32 i = 0; i < 50; i++) {
			const struct seg s = {a[i], NET_HDR + 60 + i, false};

			drv_add(&f->d, TX, &s, 1);
		}
		drv_kick(&f->d, TX);
		fake_run(f->m);
		for (u32 i = 0; i < 50; i++)
			assert_true(drv_used(&f->d, TX, &e));
	}
	for (u32 i = 0; i < 500; i++)
		check_sent(f, i, 60 + i % 50, i % 50);
}

static void refuses(void **state)
{
	struct fixture *f = *state;
	static const struct {
		struct virtio_net_hdr_v1 h;
		u32 len;
	} bad[] = {
		{{0}, 13},						   /* no Ethernet header */
		{{0}, NET_FRAME_MAX + 1},
		{{.flags = 1, .csum_start = 100, .csum_offset = 0}, 101},  /* the field is not in it */
		{{.flags = 1, .csum_start = 0xffff, .csum_offset = 0xffff}, 200},
		{{.gso_type = 1, .gso_size = 1000}, 200},		   /* needs a checksum */
		{{.flags = 1, .csum_start = 34, .csum_offset = 16, .gso_type = 1}, 200},
		{{.flags = 1, .csum_start = 34, .csum_offset = 16, .gso_type = 4, .gso_size = 100}, 200}, /* not offered */
		{{.flags = 1, .csum_start = 34, .csum_offset = 16, .gso_type = 0x81, .gso_size = 100}, 200},
		{{.flags = 1, .csum_start = 34, .csum_offset = 16, .gso_type = 3, .gso_size = 100}, 200},
		{{.flags = 1, .csum_start = 34, .csum_offset = 16, .gso_type = 77, .gso_size = 100}, 200},
	};
	struct vring_used_elem e;
	gpa_t a;

	start(f, ALL, 64);
	for (u32 i = 0; i < ARRAY_SIZE(bad); i++) {
		const struct seg s = {outgoing(f, &bad[i].h, bad[i].len, i), NET_HDR + bad[i].len, false};

		drv_add(&f->d, TX, &s, 1);
	}
	a = outgoing(f, &plain, 100, 7);
	drv_add(&f->d, TX, &(struct seg){a, 5, false}, 1); /* not even a header */
	drv_add(&f->d, TX, &(struct seg){a, 100, true}, 1); /* nothing to read */
	drv_add(&f->d, TX, &(struct seg){a, NET_HDR + 100, false}, 1);
	drv_kick(&f->d, TX);
	fake_run(f->m);
	for (u32 i = 0; i < ARRAY_SIZE(bad) + 3; i++)
		assert_true(drv_used(&f->d, TX, &e));
	assert_int_equal(f->k->n_sent, 1);
	check_sent(f, 0, 100, 7);
	assert_false(drv_status(&f->d) & VIRTIO_CONFIG_S_NEEDS_RESET);
}

/* The header goes along: what was negotiated, and nothing else of it. */
static void offload_header(void **state)
{
	struct fixture *f = *state;
	const struct virtio_net_hdr_v1 h = {.flags = 0xff, .gso_type = 1, .gso_size = 1448, .hdr_len = 66, .csum_start = 34,
					    .csum_offset = 16, .num_buffers = 0x7777};
	struct seg s;

	start(f, ALL, 64);
	s = (struct seg){outgoing(f, &h, 60000, 3), NET_HDR + 60000, false};
	drv_add(&f->d, TX, &s, 1);
	drv_kick(&f->d, TX);
	fake_run(f->m);
	check_sent(f, 0, 60000, 3);
	assert_int_equal(f->k->sent[0].hdr.flags, VIRTIO_NET_HDR_F_NEEDS_CSUM);
	assert_int_equal(f->k->sent[0].hdr.num_buffers, 0);
	assert_int_equal(f->k->sent[0].hdr.gso_size, 1448);
	assert_int_equal(f->k->offloads, BIT64(VIRTIO_NET_F_GUEST_CSUM) | BIT64(VIRTIO_NET_F_GUEST_TSO4));
	drv_set_status(&f->d, 0);
	assert_int_equal(f->k->offloads, 0);
	start(f, MODERN | BIT64(VIRTIO_NET_F_GUEST_TSO4), 64); /* without GUEST_CSUM, which it needs */
	assert_int_equal(f->k->offloads, 0);
	drv_add(&f->d, TX, &s, 1); /* CSUM was not negotiated now */
	drv_kick(&f->d, TX);
	fake_run(f->m);
	assert_int_equal(f->k->n_sent, 1);
}

static void backpressure(void **state)
{
	struct fixture *f = *state;
	struct vring_used_elem e;

	start(f, ALL, 64);
	f->k->room = 3;
	for (u32 i = 0; i < 60; i++) {
		const struct virtio_net_hdr_v1 bad = {.gso_type = 9};
		const struct seg s = {outgoing(f, i % 3 ? &plain : &bad, 100, i), NET_HDR + 100, false};

		drv_add(&f->d, TX, &s, 1);
		drv_kick(&f->d, TX);
		fake_run(f->m);
	}
	for (u32 i = 0; i < 50; i++) {
		f->k->room = 1;
		f->k->net.client->writable(f->k->net.dev, 0);
	}
	fake_run(f->m);
	assert_int_equal(f->k->n_sent, 40); /* each good one once, in order */
	for (u32 i = 0, n = 0; i < 60; i++) {
		assert_true(drv_used(&f->d, TX, &e));
		if (i % 3)
			check_sent(f, n++, 100, i);
	}
	f->k->room = 0; /* full, and then reset */
	drv_add(&f->d, TX, &(struct seg){0x100000, NET_HDR + 100, false}, 1);
	drv_kick(&f->d, TX);
	fake_run(f->m);
	drv_set_status(&f->d, 0);
	f->k->room = FRAMES;
	f->k->net.client->writable(f->k->net.dev, 0);
	assert_int_equal(f->k->n_sent, 40);
	start(f, ALL, 64);
	drv_add(&f->d, TX, &(struct seg){outgoing(f, &plain, 100, 99), NET_HDR + 100, false}, 1);
	drv_kick(&f->d, TX);
	fake_run(f->m);
	check_sent(f, 40, 100, 99);
}

static void broken_rings(void **state)
{
	struct fixture *f = *state;

	for (unsigned q = 0; q < 3; q++) {
		start(f, ALL, 64);
		*drv_desc(&f->d, q, 0) = (struct vring_desc){.addr = 0x180000, .len = 64, .flags = VRING_DESC_F_NEXT, .next = 0};
		drv_publish(&f->d, q, 0);
		incoming(f, 100, 1);
		readable(f);
		drv_kick(&f->d, q);
		fake_run(f->m);
		assert_true(drv_status(&f->d) & VIRTIO_CONFIG_S_NEEDS_RESET);
		readable(f); /* nothing more is taken from it */
		f->k->net.client->writable(f->k->net.dev, 0);
		drv_set_status(&f->d, 0);
		f->k->at = f->k->n_in;
	}
	start(f, ALL, 64); /* a receive buffer that is not writable */
	drv_add(&f->d, RX, &(struct seg){0x180000, 2000, false}, 1);
	incoming(f, 100, 1);
	readable(f);
	assert_true(drv_status(&f->d) & VIRTIO_CONFIG_S_NEEDS_RESET);
}

/* ---- reception ---- */
/* One frame out of n buffers of size bytes each, all used; checks it. */
static void check_received(struct fixture *f, const gpa_t *buf, unsigned n, u32 size, u32 len, u32 seed)
{
	struct virtio_net_hdr_v1 h;
	struct vring_used_elem e;
	u8 *all = malloc((size_t)n * size);
	u32 total = 0;

	for (unsigned i = 0; i < n; i++) {
		assert_true(drv_used(&f->d, RX, &e));
		assert_true(e.len <= size);
		memcpy(all + total, drv_ptr(&f->d, buf[i]), e.len);
		total += e.len;
	}
	assert_int_equal(total, NET_HDR + len);
	memcpy(&h, all, NET_HDR);
	assert_int_equal(h.num_buffers, n);
	for (u32 i = NET_MAC; i < len; i++)
		assert_int_equal(all[NET_HDR + i], pattern(seed, i));
	free(all);
}

static void add_buffers(struct fixture *f, gpa_t *buf, unsigned n, u32 size)
{
	for (unsigned i = 0; i < n; i++) {
		const struct seg s = {buf[i] = drv_alloc(&f->d, size), size, true};

		drv_add(&f->d, RX, &s, 1);
	}
}

static void receives(void **state)
{
	struct fixture *f = *state;
	static const struct {
		u32 len, size, n;
	} cases[] = {{60, 2000, 1}, {1988, 2000, 1}, {1989, 2000, 2}, {65000, 1536, 43}, {60, 5, 15}, {60, 12, 6}, {65550, 4096, 17},
		     {308, 5, 64}};
	gpa_t buf[64];

	for (u32 i = 0; i < ARRAY_SIZE(cases); i++) {
		f->d.next_page = 0x100000;
		start(f, ALL, 64);
		add_buffers(f, buf, cases[i].n, cases[i].size);
		drv_kick(&f->d, RX);
		fake_run(f->m);
		f->m->written = 0;
		assert_int_equal(fake_msis(f->m, 0x41), 0);
		incoming(f, cases[i].len, i);
		readable(f);
		check_received(f, buf, cases[i].n, cases[i].size, cases[i].len, i);
		assert_true(f->m->written >= cases[i].len + NET_HDR);
		assert_true(fake_msis(f->m, 0x41) == 1);
		drv_set_status(&f->d, 0);
	}
}

/* Frames wait while there is no room, and not one is lost; the driver is asked to notify. */
static void waits_for_buffers(void **state)
{
	struct fixture *f = *state;
	gpa_t buf[64];

	start(f, ALL, 64);
	for (u32 i = 0; i < 5; i++)
		incoming(f, 3000, i);
	readable(f);
	assert_false(f->k->listening);
	assert_int_equal(f->k->at, 0);
	for (u32 i = 0, have = 0; i < 10; i++) { /* two buffers make one frame; each is added and notified alone */
		add_buffers(f, buf + i, 1, 2000);
		drv_kick(&f->d, RX); /* the fake's eventfd; a driver would look whether it is wanted: */
		u16 event;
		memcpy(&event, (u8 *)drv_ptr(&f->d, f->d.q[RX].used) + 4 + 8 * 64, 2);
		assert_int_equal(event, i);
		fake_run(f->m);
		if (i & 1) {
			check_received(f, buf + i - 1, 2, 2000, 3000, have);
			have++;
		}
		assert_int_equal(f->k->at, have);
	}
	assert_true(f->k->listening);
}

static void without_merging(void **state)
{
	struct fixture *f = *state;
	gpa_t buf[4];

	start(f, MODERN, 64);
	add_buffers(f, buf, 2, 1526);
	incoming(f, 2000, 1); /* does not fit into one: dropped */
	incoming(f, 1514, 2);
	readable(f);
	check_received(f, buf, 1, 1526, 1514, 2);
	assert_int_equal(f->k->at, 2);
}

static void too_many_buffers(void **state)
{
	struct fixture *f = *state;
	gpa_t buf[128];

	start(f, ALL, 128);
	add_buffers(f, buf, 100, 8);
	incoming(f, 600, 1); /* 77 of them: dropped */
	incoming(f, 60, 2);
	readable(f);
	check_received(f, buf, 9, 8, 60, 2);
}

static void no_driver(void **state)
{
	struct fixture *f = *state;

	for (u32 i = 0; i < 100; i++)
		incoming(f, 60, i);
	readable(f);
	assert_int_equal(f->k->at, 100); /* as on a wire */
	f->k->in[f->k->n_in] = (struct frame){.hdr = {.flags = 1}, .len = 60, .data = calloc(1, 60)};
	memcpy(f->k->in[f->k->n_in++].data, mac, NET_MAC);
	start(f, MODERN, 64); /* without GUEST_CSUM: such a frame cannot be told */
	gpa_t buf[1];
	struct vring_used_elem e;
	add_buffers(f, buf, 1, 2000);
	readable(f);
	assert_int_equal(f->k->at, 101);
	assert_false(drv_used(&f->d, RX, &e));
}

static void flood(void **state)
{
	struct fixture *f = *state;
	struct vring_used_elem e;
	gpa_t buf[32];
	unsigned got = 0;

	start(f, ALL, 32);
	add_buffers(f, buf, 32, 1600);
	for (u32 i = 0; i < FRAMES - 1; i++)
		incoming(f, 1000, i);
	readable(f);
	for (unsigned idle = 0; idle < 3;) {
		idle++;
		while (drv_used(&f->d, RX, &e)) {
			idle = 0;
			u8 *p = drv_ptr(&f->d, buf[got % 32]);
			assert_int_equal(p[NET_HDR + 500], pattern(got, 500));
			drv_publish(&f->d, RX, (u16)(got % 32));
			got++;
		}
		drv_kick(&f->d, RX);
		fake_run(f->m);
	}
	assert_int_equal(got, FRAMES - 1);
}

/* ---- control ---- */
static u8 command(struct fixture *f, u8 class, u8 cmd, const void *data, u32 n)
{
	gpa_t a = drv_alloc(&f->d, 2 + n + 1);
	u8 *p = drv_ptr(&f->d, a);
	const struct seg s[] = {{a, 2 + n, false}, {a + 2 + n, 1, true}};
	struct vring_used_elem e;
	unsigned ctrl = virtio_has(&(struct virtio){.driver_features = f->d.features}, VIRTIO_NET_F_MQ) ? 8 : CTRL;

	p[0] = class;
	p[1] = cmd;
	memcpy(p + 2, data, n);
	p[2 + n] = 0x55;
	drv_add(&f->d, ctrl, s, 2);
	drv_kick(&f->d, ctrl);
	fake_run(f->m);
	assert_true(drv_used(&f->d, ctrl, &e));
	assert_int_equal(e.len, 1);
	return p[2 + n];
}

static bool arrives(struct fixture *f, const u8 *dst)
{
	struct vring_used_elem e;
	gpa_t buf[1];
	bool got = false;

	add_buffers(f, buf, 1, 200);
	incoming_to(f, 60, 1, dst);
	readable(f);
	got = drv_used(&f->d, RX, &e);
	if (!got) { /* take the buffer back by filling it */
		incoming(f, 60, 1);
		readable(f);
		while (drv_used(&f->d, RX, &e))
			;
	}
	return got;
}

static void filters(void **state)
{
	struct fixture *f = *state;
	static const u8 other[NET_MAC] = {0x52, 0x54, 0, 9, 9, 9}, group[NET_MAC] = {1, 0, 0x5e, 0, 0, 1},
			all[NET_MAC] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
	struct {
		u32 n1;
		u8 uni[NET_MAC];
		u32 n2;
		u8 multi[NET_MAC];
	} __attribute__((packed)) table = {.n1 = 1, .n2 = 1};
	u8 on = 1, off = 0;

	start(f, ~0ull, 64);
	assert_true(arrives(f, mac) && arrives(f, all));
	assert_false(arrives(f, other) || arrives(f, group));
	assert_int_equal(command(f, VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_PROMISC, &on, 1), VIRTIO_NET_OK);
	assert_true(arrives(f, other) && arrives(f, group));
	assert_int_equal(command(f, VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_PROMISC, &off, 1), VIRTIO_NET_OK);
	assert_int_equal(command(f, VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_ALLMULTI, &on, 1), VIRTIO_NET_OK);
	assert_true(arrives(f, group) && !arrives(f, other));
	assert_int_equal(command(f, VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_NOMULTI, &on, 1), VIRTIO_NET_OK);
	assert_int_equal(command(f, VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_NOBCAST, &on, 1), VIRTIO_NET_OK);
	assert_false(arrives(f, group) || arrives(f, all));
	drv_set_status(&f->d, 0);
	f->d.next_page = 0x100000;
	start(f, ~0ull, 64); /* a reset forgets it */
	assert_true(arrives(f, all));
	memcpy(table.uni, other, NET_MAC);
	memcpy(table.multi, group, NET_MAC);
	assert_int_equal(command(f, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET, &table, sizeof(table)), VIRTIO_NET_OK);
	assert_true(arrives(f, other) && arrives(f, group));
	assert_int_equal(command(f, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET, other, NET_MAC), VIRTIO_NET_OK);
	assert_int_equal(drv_config(&f->d, 0, 6), 0x090909005452ull);
}

static void bad_commands(void **state)
{
	struct fixture *f = *state;
	u8 data[8192] = {0};
	u32 huge[2] = {0xffffffff, 0};
	u16 two = 2;

	start(f, ~0ull, 64);
	assert_int_equal(command(f, VIRTIO_NET_CTRL_RX, 0, data, 0), VIRTIO_NET_ERR);
	assert_int_equal(command(f, VIRTIO_NET_CTRL_RX, 0, data, 2), VIRTIO_NET_ERR);
	assert_int_equal(command(f, VIRTIO_NET_CTRL_RX, 77, data, 1), VIRTIO_NET_ERR);
	assert_int_equal(command(f, VIRTIO_NET_CTRL_MAC, 0, huge, 8), VIRTIO_NET_ERR);
	assert_int_equal(command(f, VIRTIO_NET_CTRL_MAC, 0, huge, 3), VIRTIO_NET_ERR);
	assert_int_equal(command(f, VIRTIO_NET_CTRL_MAC, 1, data, 5), VIRTIO_NET_ERR);
	assert_int_equal(command(f, VIRTIO_NET_CTRL_MAC, 1, data, 7), VIRTIO_NET_ERR);
	assert_int_equal(command(f, VIRTIO_NET_CTRL_MQ, 0, &two, 2), VIRTIO_NET_ERR); /* one pair only */
	assert_int_equal(command(f, VIRTIO_NET_CTRL_VLAN, 0, data, 2), VIRTIO_NET_ERR);
	assert_int_equal(command(f, VIRTIO_NET_CTRL_GUEST_OFFLOADS, 0, huge, 8), VIRTIO_NET_ERR);
	assert_int_equal(command(f, 200, 200, data, 8192), VIRTIO_NET_ERR);
	assert_int_equal(command(f, VIRTIO_NET_CTRL_GUEST_OFFLOADS, 0, data, 8), VIRTIO_NET_OK);
	assert_int_equal(f->k->offloads, 0);
	memcpy(data, (u32[]){1000}, 4); /* more than the table: all */
	assert_int_equal(command(f, VIRTIO_NET_CTRL_MAC, 0, data, 4 + 6000 + 4), VIRTIO_NET_OK);
	assert_true(arrives(f, (u8[]){2, 3, 4, 5, 6, 7}));
}

static void multiqueue(void **state)
{
	struct fixture *f = *state;
	u16 n = 3, five = 5, none = 0;

	drv_start(&f->d, ~0ull, 9, 16, true);
	fake_run(f->m);
	assert_int_equal(drv_config(&f->d, 8, 2), 4);
	drv_add(&f->d, 3, &(struct seg){outgoing(f, &plain, 100, 1), NET_HDR + 100, false}, 1);
	drv_kick(&f->d, 3);
	fake_run(f->m);
	assert_int_equal(f->k->n_sent, 0); /* the second pair is not in use yet */
	assert_int_equal(command(f, VIRTIO_NET_CTRL_MQ, 0, &five, 2), VIRTIO_NET_ERR);
	assert_int_equal(command(f, VIRTIO_NET_CTRL_MQ, 0, &none, 2), VIRTIO_NET_ERR);
	assert_int_equal(command(f, VIRTIO_NET_CTRL_MQ, 0, &n, 2), VIRTIO_NET_OK);
	assert_int_equal(f->k->pairs, 3);
	drv_kick(&f->d, 3);
	fake_run(f->m);
	check_sent(f, 0, 100, 1);
	drv_set_status(&f->d, 0);
	assert_int_equal(f->k->pairs, 1);
}

static void link_state(void **state)
{
	struct fixture *f = *state;

	start(f, ~0ull, 16);
	assert_int_equal(drv_config(&f->d, 0, 6), 0x030201005452ull);
	assert_int_equal(drv_config(&f->d, 6, 2), VIRTIO_NET_S_LINK_UP);
	assert_int_equal(drv_config(&f->d, 10, 2), 9000);
	fake_msis(f->m, 0x40);
	f->k->net.client->link(f->k->net.dev, false);
	f->k->net.client->link(f->k->net.dev, false);
	assert_int_equal(drv_config(&f->d, 6, 2), 0);
	assert_int_equal(fake_msis(f->m, 0x40), 1);
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(sends), T(sends_many), T(refuses), T(offload_header), T(backpressure), T(broken_rings), T(receives),
		T(waits_for_buffers), T(without_merging), T(too_many_buffers), T(no_driver), T(flood), T(filters), T(bad_commands),
		cmocka_unit_test_setup_teardown(multiqueue, setup_multi, teardown), T(link_state)};

	log_set_level(LOG_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
