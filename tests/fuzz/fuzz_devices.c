/*
 * Bounded fuzzing of what a guest can reach in the devices: rings full of random descriptors, random
 * configuration space, BAR and port accesses. Usage: fuzz_devices [SEED [STEPS]]. Deterministic per seed but
 * for disk timing. Correct is: no crash, no sanitizer report, an end. The last line counts the scenarios.
 */
#include <linux/virtio_blk.h>
#include <linux/virtio_console.h>
#include <linux/virtio_net.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backends/chardev.h"
#include "backends/disk.h"
#include "devices/cmos.h"
#include "devices/debug_exit.h"
#include "devices/i8042.h"
#include "devices/uart.h"
#include "devices/virtio_console.h"
#include "devices/virtio_net.h"
#include "devices/virtio_rng.h"
#include "blk_local.h"
#include "virtio_driver.h"

static u64 state = 88172645463325252ull;

static u64 rnd(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

static u64 below(u64 n)
{
	return rnd() % n;
}

/* Mostly small or near a boundary, sometimes anything. */
static u64 odd(void)
{
	static const u64 pick[] = {0,          1,
				   2,          16,
				   0xff,       0xffff,
				   0x10000,    FAKE_RAM - 1,
				   FAKE_RAM,   FAKE_HIGH - 1,
				   FAKE_HIGH,  0xffffffff,
				   UINT64_MAX, UINT64_MAX - 15,
				   BIT64(63)};
	switch (below(4)) {
	case 0:
		return pick[below(ARRAY_SIZE(pick))];
	case 1:
		return rnd();
	default:
		return below(FAKE_RAM);
	}
}

/* ---- a chardev of moods ---- */
struct moody {
	struct chardev base;
};

static size_t moody_write(struct chardev *c, const u8 *p, size_t n)
{
	u8 sum = 0;
	for (size_t i = 0; i < n; i++)
		sum += p[i]; /* all of it is readable */
	return below(8) ? n : below(n + 1) + (sum & 0);
}

static void moody_nothing(struct chardev *c) {}

static const struct chardev_ops moody_ops = {
    .write = moody_write, .resume = moody_nothing, .attached = moody_nothing};

static void stir(struct moody *c)
{
	u8 data[100] = {0};
	const struct chardev_sink *k = c->base.sink;
	switch (below(4)) {
	case 0:
		k->drained(c->base.dev);
		break;
	case 1:
		k->input(c->base.dev, data, below(sizeof(data)));
		break;
	case 2:
		if (k->resized)
			k->resized(c->base.dev, rnd(), rnd());
		break;
	default:
		if (k->opened)
			k->opened(c->base.dev, below(2));
	}
}

/* ---- a network of moods ---- */
struct moody_net {
	struct net net;
	struct net_packet packet;
	u8 frame[NET_FRAME_MAX];
};

static unsigned moody_send(struct net *n, unsigned pair, const struct net_frame *f, unsigned count)
{
	u8 sum = 0;
	for (unsigned i = 0; i < count; i++) {
		u32 len = 0;
		for (unsigned k = 0; k < f[i].n_iov; k++) {
			const u8 *p = f[i].iov[k].iov_base;
			for (size_t b = 0; b < f[i].iov[k].iov_len; b++)
				sum += p[b];
			len += (u32)f[i].iov[k].iov_len;
		}
		if (len != f[i].len || len < NET_FRAME_MIN || len > NET_FRAME_MAX || pair >= n->pairs)
			abort();
	}
	return below(6) ? count : below(count + 1) + (sum & 0);
}

static const struct net_packet *moody_peek(struct net *n, unsigned pair)
{
	struct moody_net *k = container_of(n, struct moody_net, net);
	if (!below(3))
		return NULL;
	k->packet = (struct net_packet){.data = k->frame,
					.len = NET_FRAME_MIN + below(below(4) ? 2000 : NET_FRAME_MAX - 20)};
	k->packet.hdr.flags = below(3);
	k->frame[0] = below(4) ? 0xff : rnd();
	memset(k->frame + 1, k->frame[0], 5);
	return &k->packet;
}

static void moody_next(struct net *n, unsigned pair) {}
static void moody_listen(struct net *n, unsigned pair, bool on) {}
static void moody_destroy(struct net *n)
{
	free(container_of(n, struct moody_net, net));
}

static const struct net_ops moody_net_ops = {.name = "moody",
					     .send = moody_send,
					     .peek = moody_peek,
					     .next = moody_next,
					     .listen = moody_listen,
					     .destroy = moody_destroy};

static struct moody_net *make_net(void)
{
	struct moody_net *k = calloc(1, sizeof(*k));
	k->net = (struct net){.ops = &moody_net_ops, .features = 0x3ff9f, .pairs = 2, .mtu = 1500};
	return k;
}

static void stir_net(struct moody_net *k)
{
	switch (below(3)) {
	case 0:
		k->net.client->readable(k->net.dev, below(2));
		break;
	case 1:
		k->net.client->writable(k->net.dev, below(2));
		break;
	default:
		k->net.client->link(k->net.dev, below(2));
	}
}

/* ---- rings ---- */
static void random_desc(struct drv *d, unsigned q)
{
	struct vring_desc *x = drv_desc(d, q, below(d->q[q].size));
	x->addr = below(4) ? 0x200000 + below(0x100000) : odd();
	x->len = below(4) ? 1 + below(600) : below(2) ? (u32)odd() : 16 * below(20);
	x->flags = below(8) ? below(4) : rnd();
	if (!below(8))
		x->flags |= VRING_DESC_F_INDIRECT;
	x->next = below(16) ? below(d->q[q].size) : rnd();
}

/* A chain that is nearly right, so that fuzzing gets past the door. */
static void plausible(struct drv *d, unsigned q)
{
	gpa_t h = 0x180000 + 64 * below(100);
	u32 *head = drv_ptr(d, h);
	head[0] = below(2) ? below(16) : below(4);
	head[1] = below(8) ? 0 : rnd();
	head[2] = (u32)(below(8) ? below(2100) : odd());
	head[3] = below(8) ? 0 : rnd();
	struct seg s[6] = {{h, 8 + 8 * (u32)below(2), false}};
	unsigned n = below(8) ? 1 : 0;
	for (unsigned i = below(4); i; i--)
		s[n++] = (struct seg){0x200000 + below(0x100000),
				      below(2) ? 512u << below(3) : 1 + (u32)below(2000), below(2)};
	s[n++] = (struct seg){h + 32, 1, true};
	drv_add(d, q, s, n);
}

static void fuzz_driver(struct machine *m, struct drv *d, unsigned queues, unsigned steps)
{
	for (unsigned i = 0; i < steps; i++) {
		unsigned q = below(queues);
		switch (below(12)) {
		case 0:
			random_desc(d, q);
			drv_publish(d, q, below(16) ? below(d->q[q].size) : rnd());
			break;
		case 1:
			((u16 *)drv_ptr(d, d->q[q].avail))[below(4)] = rnd();
			break;
		case 2:
			mmio_write(m, d->bar + below(0x4000), 1 << below(3), odd());
			break;
		case 3:
			mmio_read(m, d->bar + below(0x4000), 1 << below(3));
			break;
		case 4:
			mmio_write(m, d->msix_bar + below(0x1000), 4, odd());
			break;
		case 5:
			if (!below(20))
				cfg_write(m, d->slot, below(256) & ~3u, 1 << below(3), odd());
			break;
		default:
			plausible(d, q);
			drv_kick(d, q);
		}
		if (!below(6))
			fake_run(m);
	}
}

static void make_disk(char *path)
{
	strcpy(path, "/tmp/doppel-fuzz-XXXXXX");
	int fd = mkstemp(path);
	if (fd < 0 || ftruncate(fd, 1 << 20))
		abort();
	close(fd);
}

static struct moody_net *create(struct machine *m, struct pci_host *h, const char *disk_path, struct moody *c)
{
	struct virtio_net_options no = {.net = &make_net()->net, .mac = {2, 3, 4, 5, 6, 7}};
	struct virtio_net *vn;
	struct virtio_rng *r;
	struct virtio_console *con;
	struct disk *disk;
	struct err e = {0};
	if (disk_open_raw(m->loop, disk_path, false, &disk, &e))
		abort();
	const struct virtio_blk_options bo = {.disk = disk, .serial = "fuzz"};
	const struct virtio_console_options co = {
	    .n_ports = 2,
	    .port = {{.chardev = &c[0].base, .console = true}, {.chardev = &c[1].base, .name = "port"}}};
	if (virtio_rng_create(m, h, &r) || blk_local_create(m, h, &bo) ||
	    virtio_console_create(m, h, &co, &con) || virtio_net_create(m, h, &no, &vn))
		abort();
	return container_of(no.net, struct moody_net, net);
}

static void fuzz_virtio(const char *disk_path, unsigned steps)
{
	static const unsigned queues[] = {1, 1, 6, 5};
	enum { DEVICES = ARRAY_SIZE(queues) };
	struct machine *m = fake_machine_new();
	struct pci_host *h;
	struct moody c[2] = {{.base.ops = &moody_ops}, {.base.ops = &moody_ops}};
	struct drv d[DEVICES];
	struct moody_net *net;
	if (pci_host_create(m, &fake_pci_config, &h))
		abort();
	net = create(m, h, disk_path, c);
	for (unsigned i = 0; i < DEVICES; i++)
		drv_find(&d[i], m, i + 1);
	for (unsigned round = 0; round < 10; round++) {
		m->refuse_ioeventfd = false;
		if (!below(3))
			fake_reset(m);
		for (unsigned i = 0; i < DEVICES; i++) {
			drv_set_status(&d[i], 0);
			fake_run(m);
			drv_find(&d[i], m, i + 1);
			d[i].next_page += 0x20000 * i;
			if (!d[i].bar || d[i].bar < 0xd0000000)
				fake_reset(m), drv_find(&d[i], m, i + 1), d[i].next_page += 0x20000 * i;
			drv_start(&d[i], below(4) ? ~0ull : rnd() | BIT64(VIRTIO_F_VERSION_1), queues[i],
				  1 << (2 + below(4)), below(2));
			fuzz_driver(m, &d[i], queues[i], steps);
			stir(&c[below(2)]);
			stir_net(net);
		}
	}
	fake_machine_free(m);
}

static void fuzz_ports(unsigned steps)
{
	struct machine *m = fake_machine_new();
	struct pci_host *h;
	struct moody c = {.base.ops = &moody_ops};
	const struct uart_config uc = {.port = 0x3f8, .gsi = 4, .chardev = &c.base};
	const struct cmos_config cc = {.ram_below_4g = FAKE_RAM, .gsi = 8};
	const struct debug_exit_config dc = {.port = 0xf4};
	struct uart *u;
	struct cmos *cm;
	struct i8042 *k;
	struct debug_exit *de;
	struct virtio_rng *r;
	if (pci_host_create(m, &fake_pci_config, &h) || uart_create(m, &uc, &u) || cmos_create(m, &cc, &cm) ||
	    i8042_create(m, &k) || debug_exit_create(m, &dc, &de) || virtio_rng_create(m, h, &r))
		abort();
	static const u16 base[] = {0x3f8, 0x70, 0x60, 0x64, 0x92, 0xf4, 0xcf8, 0xcfc};
	for (unsigned i = 0; i < steps; i++) {
		u64 v = odd();
		u16 port = base[below(ARRAY_SIZE(base))] + below(8);
		unsigned len = 1 << below(3);
		switch (below(8)) {
		case 0:
			cfg_write(m, below(3), below(256), len, v);
			break;
		case 1:
			cfg_read(m, below(3), below(256), len);
			break;
		case 2:
			mmio_write(m, 0xe0000000 + below(0x100000), 1 + below(8), v);
			break;
		case 3:
			mmio_read(m, 0xe0000000 + below(0x20000), len);
			break;
		case 4:
			bus_read(m->pio, port, &v, len);
			break;
		default:
			bus_write(m->pio, port, &v, len);
		}
		if (!below(50))
			stir(&c);
		if (!below(500))
			fake_run(m);
		if (!below(5000))
			fake_reset(m);
	}
	fake_machine_free(m);
}

int main(int argc, char **argv)
{
	u64 seed = argc > 1 ? strtoull(argv[1], NULL, 0) : 1;
	unsigned steps = argc > 2 ? (unsigned)strtoul(argv[2], NULL, 0) : 300;
	char path[64];
	unsigned n = 0;
	signal(SIGPIPE, SIG_IGN);
	log_set_level(LOG_ERROR);
	state ^= seed * 0x9e3779b97f4a7c15ull;
	make_disk(path);
	for (unsigned i = 0; i < 8; i++, n += 2) {
		fuzz_virtio(path, steps);
		fuzz_ports(steps * 100);
	}
	unlink(path);
	printf("%u passed, 0 failed\n", n);
	return 0;
}
