/* The networks themselves: stream sockets with hostile peers, doppel-net as user network and as switch. */
#include <arpa/inet.h>
#include <limits.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "backends/net_offload.h"
#include "backends/net_proto.h"

enum { KEPT = 2000 };

/* ---- a virtual machine that is only its network card ---- */
struct vm {
	struct loop *loop;
	struct net *net;
	unsigned n, writable;
	bool down;
	u64 bytes;
	struct {
		u32 len;
		u8 head[80];
		struct virtio_net_hdr_v1 hdr;
	} got[KEPT];
};

static void on_readable(void *dev, unsigned pair)
{
	struct vm *v = dev;
	const struct net_packet *p = NULL;

	while ((p = net_peek(v->net, 0))) {
		if (v->n < KEPT) {
			v->got[v->n].len = p->len;
			v->got[v->n].hdr = p->hdr;
			memcpy(v->got[v->n].head, p->data, MIN(p->len, sizeof(v->got[0].head)));
		}
		v->n++;
		v->bytes += p->len;
		net_next(v->net, 0);
	}
}

static void on_writable(void *dev, unsigned pair)
{
	((struct vm *)dev)->writable++;
}

static void on_link(void *dev, bool up)
{
	((struct vm *)dev)->down = !up;
}

static const struct net_client_ops client = {.readable = on_readable, .writable = on_writable, .link = on_link};

static void vm_open(struct vm *v, const struct net_options *o)
{
	struct err e = {0};

	*v = (struct vm){.loop = loop_new()};
	if (net_open(v->loop, o, &v->net, &e))
		fail_msg("%s", e.text);
	v->net->client = &client;
	v->net->dev = v;
}

static void vm_close(struct vm *v)
{
	net_destroy(v->net);
	loop_free(v->loop);
}

struct rounds {
	struct loop *loop;
	int left;
};

static void one_round(void *arg)
{
	struct rounds *r = arg;

	if (r->left-- > 0)
		loop_call(r->loop, one_round, r);
	else
		loop_stop(r->loop, 0);
}

/* Runs the loop until it has so many frames, or ms have passed; once at least. */
static void vm_run(struct vm *v, unsigned frames, unsigned ms)
{
	for (unsigned i = 0; i <= ms && v->n < frames && !v->down; i++) {
		struct rounds r = {.loop = v->loop, .left = 3};

		if (i)
			usleep(1000);
		loop_call(v->loop, one_round, &r);
		loop_run(v->loop);
	}
}

static unsigned vm_send_h(struct vm *v, const struct virtio_net_hdr_v1 *h, const u8 *frame, u32 len)
{
	const struct iovec iov[2] = {{.iov_base = (void *)frame, .iov_len = 14}, {.iov_base = (void *)(frame + 14), .iov_len = len - 14}};
	const struct net_frame f = {.hdr = *h, .iov = iov, .n_iov = len > 14 ? 2 : 1, .len = len};

	return net_send(v->net, 0, &f, 1);
}

static unsigned vm_send(struct vm *v, const u8 *frame, u32 len)
{
	return vm_send_h(v, &(struct virtio_net_hdr_v1){0}, frame, len);
}

/* ---- streams ---- */
struct peer {
	struct vm v;
	int listener, fd;
	char path[64];
};

static void peer_open(struct peer *p)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	struct net_options o = {.kind = NET_SOCKET};

	snprintf(p->path, sizeof(p->path), "/tmp/doppel-net-test-%d", getpid());
	unlink(p->path);
	snprintf(a.sun_path, sizeof(a.sun_path), "%s", p->path);
	snprintf(o.text, sizeof(o.text), "%s", p->path);
	p->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(p->listener, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(listen(p->listener, 1), 0);
	vm_open(&p->v, &o);
	p->fd = accept(p->listener, NULL, NULL);
	assert_true(p->fd >= 0);
}

static void peer_close(struct peer *p)
{
	vm_close(&p->v);
	close(p->fd);
	close(p->listener);
	unlink(p->path);
}

static void put_frame(u8 *buf, u32 len, u8 fill)
{
	u32 prefix = htonl(len);

	memcpy(buf, &prefix, 4);
	memset(buf + 4, fill, len);
}

/* Frames arrive whole, however they are cut on the way. */
static void stream_receives(void **state)
{
	static const u32 lens[] = {14, 60, 1514, 65534, NET_FRAME_MAX, 15};
	struct peer *p = calloc(1, sizeof(*p));
	u8 *buf = malloc(200000);
	u32 n = 0;

	peer_open(p);
	for (u32 i = 0; i < ARRAY_SIZE(lens); i++) {
		put_frame(buf + n, lens[i], (u8)i);
		n += 4 + lens[i];
	}
	for (u32 at = 0, step = 1; at < n; at += step, step = step * 3 % 4999 + 1) {
		u32 now = MIN(step, n - at);

		assert_int_equal(write(p->fd, buf + at, now), now);
		vm_run(&p->v, KEPT, 0);
	}
	vm_run(&p->v, ARRAY_SIZE(lens), 1000);
	assert_int_equal(p->v.n, ARRAY_SIZE(lens));
	for (u32 i = 0; i < ARRAY_SIZE(lens); i++) {
		assert_int_equal(p->v.got[i].len, lens[i]);
		assert_int_equal(p->v.got[i].head[13], i);
	}
	assert_false(p->v.down);
	peer_close(p);
	free(buf);
	free(p);
}

/* A length that no frame has, or the end of the connection: the link is down, and that is all. */
static void stream_bad_peer(void **state)
{
	static const u32 bad[] = {0, 13, NET_FRAME_MAX + 1, 0x7fffffff, 0xffffffff};

	for (u32 i = 0; i <= ARRAY_SIZE(bad); i++) {
		struct peer *p = calloc(1, sizeof(*p));
		u32 prefix = htonl(i < ARRAY_SIZE(bad) ? bad[i] : 1000); /* the last: cut in the middle */
		u8 frame[100] = {0};

		peer_open(p);
		assert_int_equal(write(p->fd, &prefix, 4), 4);
		assert_int_equal(write(p->fd, frame, 100), 100);
		if (i == ARRAY_SIZE(bad))
			shutdown(p->fd, SHUT_RDWR);
		vm_run(&p->v, 1, 1000);
		assert_true(p->v.down);
		assert_int_equal(p->v.n, 0);
		assert_int_equal(vm_send(&p->v, frame, 100), 1); /* into the void */
		peer_close(p);
		free(p);
	}
}

/* A peer that does not read: no frame is taken that there is no room for, those taken arrive in order. */
static void stream_backpressure(void **state)
{
	struct peer *p = calloc(1, sizeof(*p));
	u8 frame[1000] = {0}, *in = malloc(1004);
	u32 sent = 0, got = 0;

	peer_open(p);
	while (sent < 100000) {
		memcpy(frame + 14, &sent, 4);
		if (!vm_send(&p->v, frame, 1000))
			break;
		sent++;
	}
	assert_true(sent > 100 && sent < 100000);
	while (got < sent) {
		u32 n = 0, prefix = 0, number = 0;

		while (n < 1004) {
			struct pollfd pf = {.fd = p->fd, .events = POLLIN};
			ssize_t r = poll(&pf, 1, 0) ? read(p->fd, in + n, 1004 - n) : 0;

			n += r > 0 ? (u32)r : 0;
			if (r <= 0) {
				unsigned was = p->v.writable;

				vm_run(&p->v, 1, 1); /* writable: the device would send more, and so flush */
				if (p->v.writable != was)
					net_send(p->v.net, 0, NULL, 0);
			}
		}
		memcpy(&prefix, in, 4);
		memcpy(&number, in + 18, 4);
		assert_int_equal(ntohl(prefix), 1000);
		assert_int_equal(number, got++);
	}
	assert_true(p->v.writable > 0);
	peer_close(p);
	free(in);
	free(p);
}

/* ---- the user network ---- */
static const u8 guest_mac[NET_MAC] = {0x52, 0x54, 0, 1, 2, 3}, broadcast[NET_MAC] = {255, 255, 255, 255, 255, 255};

static u32 arp(u8 *f)
{
	static const u8 rest[] = {0, 1, 8, 0, 6, 4, 0, 1};

	memset(f, 0, 60);
	memcpy(f, broadcast, 6);
	memcpy(f + 6, guest_mac, 6);
	memcpy(f + 12, (u8[]){8, 6}, 2);
	memcpy(f + 14, rest, 8);
	memcpy(f + 22, guest_mac, 6);
	memcpy(f + 28, (u8[]){10, 0, 2, 15}, 4);
	memcpy(f + 38, (u8[]){10, 0, 2, 2}, 4);
	return 60;
}

static bool answers_arp(struct vm *v)
{
	u8 f[60];
	unsigned before = v->n;

	vm_send(v, f, arp(f));
	for (unsigned i = 0; i < 2000 && !v->down; i++) {
		vm_run(v, v->n + 1, 1);
		for (; before < v->n; before++)
			if (before < KEPT && v->got[before].head[12] == 8 && v->got[before].head[13] == 6 &&
			    v->got[before].head[21] == 2)
				return true;
	}
	return false;
}

static void put_ip(u8 *f, u8 proto, const u8 *dst, u32 payload)
{
	u16 sum;

	memcpy(f, broadcast, 6);
	memcpy(f + 6, guest_mac, 6);
	memcpy(f + 12, (u8[]){8, 0, 0x45, 0, (u8)((20 + payload) >> 8), (u8)(20 + payload), 0, 0, 0, 0, 64, proto, 0, 0}, 14);
	memcpy(f + 26, (u8[]){10, 0, 2, 15}, 4);
	memcpy(f + 30, dst, 4);
	sum = (u16)~offload_fold(offload_sum(f + 14, 20, 0));
	memcpy(f + 24, &sum, 2);
}

/* A SYN, its checksum left to the network card. */
static u32 syn(u8 *f, const u8 *dst, u16 port, struct virtio_net_hdr_v1 *h)
{
	u64 pseudo = htons(6) + htons(20);
	u16 sum;

	memset(f, 0, 60);
	put_ip(f, 6, dst, 20);
	memcpy(f + 34, (u8[]){0x9c, 0x40, (u8)(port >> 8), (u8)port, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff}, 16);
	sum = offload_fold(offload_sum(f + 26, 8, pseudo));
	memcpy(f + 50, &sum, 2);
	*h = (struct virtio_net_hdr_v1){.flags = 1, .csum_start = 34, .csum_offset = 16};
	return 54;
}

/* What comes back for a SYN to dst:port: the TCP flags, 0 for nothing within ms. */
static u8 knock(struct vm *v, const u8 *dst, u16 port, unsigned ms)
{
	struct virtio_net_hdr_v1 h;
	unsigned at = v->n;
	u8 f[60];
	u32 len = syn(f, dst, port, &h);

	vm_send_h(v, &h, f, len);
	for (unsigned i = 0; i < ms; i++) {
		vm_run(v, v->n + 1, 1);
		for (; at < v->n && at < KEPT; at++) {
			const u8 *g = v->got[at].head;

			if (g[12] == 8 && g[13] == 0 && g[23] == 6 && !memcmp(g + 26, dst, 4) && (g[34] << 8 | g[35]) == port)
				return g[47];
		}
	}
	return 0;
}

static int serve(u16 *port)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t n = sizeof(a);
	int s = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_int_equal(bind(s, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(listen(s, 64), 0);
	getsockname(s, (struct sockaddr *)&a, &n);
	*port = ntohs(a.sin_port);
	return s;
}

enum { FIN = 1, SYN = 2, RST = 4, ACK = 16 };
static const u8 gateway[4] = {10, 0, 2, 2};

/* This machine's loopback is reached at 10.0.2.2, if asked for, and in no other way. */
static void user_loopback(void **state)
{
	static const u8 loopbacks[][4] = {{127, 0, 0, 1}, {127, 1, 2, 3}, {0, 0, 0, 0}, {0, 0, 0, 1}, {255, 255, 255, 255}};
	struct vm *v = calloc(1, sizeof(*v));
	u16 port = 0;
	int s = serve(&port);

	for (int on = 0; on < 2; on++) {
		vm_open(v, &(struct net_options){.kind = NET_USER, .host_loopback = on});
		assert_true(answers_arp(v));
		if (on)
			assert_int_equal(knock(v, gateway, port, 2000), SYN | ACK);
		else
			assert_int_not_equal(knock(v, gateway, port, 300), SYN | ACK);
		for (unsigned i = 0; i < ARRAY_SIZE(loopbacks) - (on ? 1 : 0); i++) /* the last is the gateway to libslirp */
			assert_int_not_equal(knock(v, loopbacks[i], port, 100), SYN | ACK);
		assert_true(answers_arp(v));
		vm_close(v);
	}
	close(s);
	free(v);
}

static void user_dhcp(void **state)
{
	struct vm *v = calloc(1, sizeof(*v));
	u8 f[342] = {0};
	bool offered = false;

	vm_open(v, &(struct net_options){.kind = NET_USER});
	put_ip(f, 17, (u8[]){255, 255, 255, 255}, 308);
	memset(f + 26, 0, 4);
	memset(f + 24, 0, 2);
	u16 sum = (u16)~offload_fold(offload_sum(f + 14, 20, 0));
	memcpy(f + 24, &sum, 2);
	memcpy(f + 34, (u8[]){0, 68, 0, 67, 1, 52, 0, 0}, 8);
	memcpy(f + 42, (u8[]){1, 1, 6, 0, 1, 2, 3, 4}, 8);
	memcpy(f + 70, guest_mac, 6);
	memcpy(f + 278, (u8[]){99, 130, 83, 99, 53, 1, 1, 255}, 8);
	vm_send(v, f, sizeof(f));
	vm_run(v, 1, 2000);
	for (unsigned i = 0; i < v->n; i++) {
		const u8 *g = v->got[i].head;

		offered |= g[23] == 17 && !memcmp(g + 58, (u8[]){10, 0, 2, 15}, 4);
		assert_true(g[23] != 17 || v->got[i].hdr.flags == VIRTIO_NET_HDR_F_DATA_VALID);
	}
	assert_true(offered);
	vm_close(v);
	free(v);
}

/* Whatever a guest sends, the network goes on. */
static void user_flood(void **state)
{
	struct vm *v = calloc(1, sizeof(*v));
	struct virtio_net_hdr_v1 h;
	u8 *f = malloc(NET_FRAME_MAX);
	unsigned seed = 1, sent = 0;

	vm_open(v, &(struct net_options){.kind = NET_USER});
	for (unsigned i = 0; i < 20000; i++) {
		u32 len = NET_FRAME_MIN + (u32)rand_r(&seed) % (i % 50 ? 200 : 60000);

		for (u32 b = 0; b < len; b += 1 + (b > 100 ? 50 : 0))
			f[b] = (u8)rand_r(&seed);
		h = (struct virtio_net_hdr_v1){0};
		if (i & 1) { /* nearly right: an IPv4 or IPv6 packet of this network */
			put_ip(f, (u8)(u8[]){1, 6, 17, 2}[i / 2 % 4], i % 8 < 4 ? gateway : (u8[]){10, 0, 2, 3}, MIN(len, 1000u));
			f[14 + (u32)rand_r(&seed) % 20] = (u8)rand_r(&seed);
		} else if (i % 4 == 0) {
			f[12] = 0x86;
			f[13] = 0xdd;
			f[14] = 0x60;
		}
		if (i % 5 == 0)
			h = (struct virtio_net_hdr_v1){.flags = (u8)rand_r(&seed), .gso_type = (u8)(rand_r(&seed) % 6),
						       .csum_start = 34, .csum_offset = 16, .gso_size = (u16)rand_r(&seed)};
		if (i % 7 == 0)
			h.num_buffers = (u16)(rand_r(&seed) % 6); /* messages that are not frames */
		sent += vm_send_h(v, &h, f, len);
		if (i % 64 == 0)
			vm_run(v, KEPT * 10, 0);
	}
	assert_true(sent > 1000);
	v->n = 0;
	assert_true(answers_arp(v));
	assert_false(v->down);
	vm_close(v);
	free(f);
	free(v);
}

static void user_port_taken(void **state)
{
	struct net_options o = {.kind = NET_USER, .n_forwards = 1, .forward = {{.address = "127.0.0.1", .guest_port = 80}}};
	struct loop *l = loop_new();
	struct net *n = NULL;
	struct err e = {0};
	int s = serve(&o.forward[0].host_port);

	assert_true(net_open(l, &o, &n, &e) < 0);
	assert_non_null(strstr(e.text, "in use"));
	close(s);
	loop_free(l);
}

/* Its process dies: the link is down, sending goes nowhere, and closing does not hang. */
static void user_killed(void **state)
{
	struct vm *v = calloc(1, sizeof(*v));
	char command[64];
	u8 f[60];

	vm_open(v, &(struct net_options){.kind = NET_USER});
	assert_true(answers_arp(v));
	snprintf(command, sizeof(command), "pkill -9 -P %d doppel-net", getpid());
	assert_int_equal(system(command), 0);
	vm_run(v, KEPT, 2000);
	assert_true(v->down);
	assert_int_equal(vm_send(v, f, arp(f)), 1);
	vm_close(v);
	free(v);
}

/* ---- the switch ---- */
static char runtime[64];

static void lan(struct vm *v, const char *name)
{
	struct net_options o = {.kind = NET_LAN};

	snprintf(o.text, sizeof(o.text), "%s", name);
	vm_open(v, &o);
	net_offloads(v->net, 0);
}

static u32 frame_from(u8 *f, u8 from, u8 to, u32 len)
{
	memset(f, from, len);
	memcpy(f, to ? (u8[]){2, 0, 0, 0, 0, to} : broadcast, 6);
	memcpy(f + 6, (u8[]){2, 0, 0, 0, 0, from}, 6);
	memcpy(f + 12, (u8[]){0x88, 0xb5}, 2);
	return len;
}

static bool lan_left(void)
{
	char path[100];
	struct stat st;

	snprintf(path, sizeof(path), "%s/doppel/.lan", runtime);
	return stat(path, &st) == 0;
}

static void lan_switches(void **state)
{
	struct vm *a = calloc(4, sizeof(*a)), *b = a + 1, *c = a + 2, *other = a + 3;
	u8 f[2000];

	lan(a, "x");
	lan(b, "x");
	lan(c, "x");
	lan(other, "y");
	vm_send(a, f, frame_from(f, 1, 2, 100)); /* nobody knows 2: to all */
	vm_run(b, 1, 1000);
	vm_run(c, 1, 1000);
	assert_true(b->n == 1 && c->n == 1 && a->n == 0);
	assert_memory_equal(b->got[0].head, f, 80);
	vm_send(b, f, frame_from(f, 2, 1, 100)); /* 1 has been heard */
	vm_run(a, 1, 1000);
	vm_send(a, f, frame_from(f, 1, 2, 1500)); /* now 2 too */
	vm_run(b, 2, 1000);
	vm_run(c, 2, 50);
	assert_true(a->n == 1 && b->n == 2 && c->n == 1);
	assert_int_equal(b->got[1].len, 1500);
	vm_send(a, f, frame_from(f, 1, 0, 60));
	vm_run(b, 3, 1000);
	vm_run(c, 2, 1000);
	vm_run(other, 1, 50);
	assert_true(b->n == 3 && c->n == 2 && other->n == 0);
	vm_close(b);
	usleep(50000);
	vm_send(a, f, frame_from(f, 1, 2, 60)); /* 2 has left: to all */
	vm_run(c, 3, 1000);
	assert_int_equal(c->n, 3);
	vm_close(a);
	vm_close(c);
	vm_close(other);
	for (int i = 0; i < 200 && lan_left(); i++)
		usleep(10000);
	assert_false(lan_left());
	free(a);
}

/* A large frame reaches who asked for such whole, others in pieces. */
static void lan_offloads(void **state)
{
	struct vm *a = calloc(3, sizeof(*a)), *b = a + 1, *c = a + 2;
	struct virtio_net_hdr_v1 h = {.flags = 1, .csum_start = 34, .csum_offset = 16, .gso_type = VIRTIO_NET_HDR_GSO_TCPV4,
				      .gso_size = 1000};
	u8 f[5054] = {0};

	lan(a, "z");
	lan(b, "z");
	lan(c, "z");
	net_offloads(b->net, BIT64(VIRTIO_NET_F_GUEST_CSUM) | BIT64(VIRTIO_NET_F_GUEST_TSO4));
	usleep(20000);
	put_ip(f, 6, (u8[]){10, 1, 1, 1}, sizeof(f) - 34);
	f[46] = 0x50;
	vm_send_h(a, &h, f, sizeof(f));
	vm_run(b, 1, 1000);
	vm_run(c, 5, 1000);
	assert_int_equal(b->n, 1);
	assert_int_equal(b->got[0].len, sizeof(f));
	assert_int_equal(b->got[0].hdr.gso_size, 1000);
	assert_int_equal(c->n, 5);
	for (unsigned i = 0; i < 5; i++) {
		assert_int_equal(c->got[i].len, 1054);
		assert_int_equal(c->got[i].hdr.flags, 0);
	}
	vm_close(a);
	vm_close(b);
	vm_close(c);
	free(a);
}

/* One that floods, with addresses of its own invention, one that does not read, one that talks nonsense: the others go on. */
static void lan_hostile(void **state)
{
	struct vm *a = calloc(4, sizeof(*a)), *b = a + 1, *bad = a + 2, *deaf = a + 3;
	struct virtio_net_hdr_v1 h = {0};
	u8 f[3000];
	unsigned seed = 7;

	lan(a, "h");
	lan(b, "h");
	lan(bad, "h");
	lan(deaf, "h");
	vm_send(b, f, frame_from(f, 2, 0, 60));
	vm_run(a, 1, 1000);
	for (unsigned i = 0; i < 30000; i++) {
		u32 len = NET_FRAME_MIN + (u32)rand_r(&seed) % 2000;

		frame_from(f, 9, 0, len);
		for (unsigned k = 0; k < 6; k++)
			f[6 + k] = (u8)rand_r(&seed);
		h = (struct virtio_net_hdr_v1){.num_buffers = (u16)(i % 10 ? 0 : rand_r(&seed)), .flags = (u8)(i % 3 ? 0 : rand_r(&seed)),
					       .gso_type = (u8)(i % 6 ? 0 : rand_r(&seed)), .gso_size = (u16)rand_r(&seed),
					       .csum_start = (u16)(rand_r(&seed) % 100), .csum_offset = 16};
		vm_send_h(bad, &h, f, len);
		if (i % 256 == 0) {
			vm_run(a, KEPT * 100, 0);
			vm_run(b, KEPT * 100, 0);
			vm_run(bad, KEPT * 100, 0);
		}
	}
	usleep(100000);
	vm_run(a, KEPT * 100, 50);
	vm_run(b, KEPT * 100, 50);
	vm_run(bad, KEPT * 100, 50);
	a->n = b->n = bad->n = 0;
	vm_send(a, f, frame_from(f, 1, 2, 60)); /* b's address is still known: only it gets this */
	vm_run(b, 1, 1000);
	vm_run(bad, 1, 50);
	assert_int_equal(b->n, 1);
	assert_int_equal(bad->n, 0);
	assert_false(a->down || b->down || bad->down || deaf->down);
	vm_close(bad);
	vm_send(b, f, frame_from(f, 2, 1, 60));
	vm_run(a, 1, 1000);
	assert_int_equal(a->n, 1);
	vm_close(a);
	vm_close(b);
	vm_close(deaf);
	free(a);
}

/* Many come and go at once: each time there is one switch, and at the end none. */
static void lan_comes_and_goes(void **state)
{
	struct vm *v = calloc(8, sizeof(*v));
	u8 f[60];

	for (unsigned round = 0; round < 30; round++) {
		unsigned n = 1 + round % 8;

		for (unsigned i = 0; i < n; i++)
			lan(&v[i], "g");
		vm_send(&v[0], f, frame_from(f, 1, 0, 60));
		for (unsigned i = 1; i < n; i++) {
			vm_run(&v[i], 1, 1000);
			assert_int_equal(v[i].n, 1);
		}
		for (unsigned i = 0; i < n; i++)
			vm_close(&v[i]);
		if (round % 3 == 0)
			usleep(20000 * (round % 5));
	}
	for (int i = 0; i < 200 && lan_left(); i++)
		usleep(10000);
	assert_false(lan_left());
	free(v);
}

/* ---- */
static int set_up(void **state)
{
	char self[PATH_MAX], command[PATH_MAX + 32];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

	self[n] = 0;
	for (int i = 0; i < 3; i++)
		*strrchr(self, '/') = 0;
	snprintf(command, sizeof(command), "%s/doppel-net", self);
	setenv("DOPPEL_NET", command, 0);
	snprintf(runtime, sizeof(runtime), "/tmp/doppel-net-XXXXXX");
	assert_non_null(mkdtemp(runtime));
	setenv("XDG_RUNTIME_DIR", runtime, 1);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGCHLD, SIG_DFL);
	return 0;
}

static int tear_down(void **state)
{
	char command[100];

	snprintf(command, sizeof(command), "%s/doppel", runtime);
	rmdir(command);
	return rmdir(runtime); /* nothing was left in it */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(stream_receives), cmocka_unit_test(stream_bad_peer), cmocka_unit_test(stream_backpressure),
		cmocka_unit_test(user_dhcp),	   cmocka_unit_test(user_loopback),   cmocka_unit_test(user_flood),
		cmocka_unit_test(user_port_taken), cmocka_unit_test(user_killed),     cmocka_unit_test(lan_switches),
		cmocka_unit_test(lan_offloads),	   cmocka_unit_test(lan_hostile),     cmocka_unit_test(lan_comes_and_goes)};

	log_set_level(LOG_ERROR);
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
