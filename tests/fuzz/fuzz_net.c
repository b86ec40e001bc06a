/*
 * Bounded fuzzing of what a guest can send to the user network: packets that are nearly right, of each protocol that libslirp
 * knows, to a real doppel-net. Usage: fuzz_net [SEED [FRAMES]]. Runs in a network namespace of its own. Correct is: the process
 * lives and answers ARP after each round.
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <limits.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "backends/net_offload.h"
#include "backends/net_proto.h"

enum { ROUNDS = 8, PORT = 7777 };

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

/* ---- the card ---- */
struct card {
	struct net *net;
	bool down, arp;
	u32 peer_seq, peer_ack; /* of the last TCP segment seen: what comes next is in the window */
	u16 peer_port, own_port;
};

static void on_readable(void *dev, unsigned pair)
{
	struct card *c = dev;
	const struct net_packet *p = NULL;

	while ((p = net_peek(c->net, 0))) {
		if (p->data[12] == 8 && p->data[13] == 6)
			c->arp = true;
		if (p->len >= 54 && p->data[12] == 8 && !p->data[13] && p->data[23] == 6) {
			memcpy(&c->peer_port, p->data + 34, 2);
			memcpy(&c->own_port, p->data + 36, 2);
			memcpy(&c->peer_seq, p->data + 38, 4);
			memcpy(&c->peer_ack, p->data + 42, 4);
		}
		net_next(c->net, 0);
	}
}

static void on_writable(void *dev, unsigned pair) {}

static void on_link(void *dev, bool up)
{
	((struct card *)dev)->down = !up;
}

static const struct net_client_ops client = {.readable = on_readable, .writable = on_writable, .link = on_link};

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

static void run(struct loop *l)
{
	struct rounds r = {.loop = l, .left = 3};

	loop_call(l, one_round, &r);
	loop_run(l);
}

/* ---- packets ---- */
static void put16(u8 *p, u32 v)
{
	p[0] = (u8)(v >> 8);
	p[1] = (u8)v;
}

static u32 fill(u8 *p, u32 n)
{
	for (u32 i = 0; i < n; i++)
		p[i] = (u8)rnd();
	return n;
}

static u32 tcp(struct card *c, u8 *p)
{
	static const u8 flags[] = {2, 16, 24, 17, 4, 20, 1, 18, 0x29, 0};
	u32 options = below(3) ? 0 : 4 * (u32)below(11), data = below(2) ? 0 : (u32)below(below(4) ? 1400 : 60000);
	bool follow = below(2);

	fill(p, 20 + options);
	put16(p, 40000 + below(20));
	put16(p + 2, below(4) ? PORT : below(65536));
	p[12] = (u8)((20 + options) / 4 << 4);
	p[13] = flags[below(ARRAY_SIZE(flags))];
	if (follow) {
		memcpy(p, &c->own_port, 2);
		memcpy(p + 2, &c->peer_port, 2);
		memcpy(p + 4, &c->peer_ack, 4);
		memcpy(p + 8, &c->peer_seq, 4);
		p[13] |= 16;
		p[13] &= below(8) ? ~6 : 0xff;
	}
	if (options) { /* MSS, window scale, timestamps, SACK: nearly right */
		p[20] = (u8)(u8[]){2, 3, 8, 5, 4, 1, 0}[below(7)];
		p[21] = (u8)(u8[]){4, 3, 10, 2, 0, 255}[below(6)];
	}
	return 20 + options + fill(p + 20 + options, data);
}

static u32 udp(u8 *p)
{
	static const u16 ports[] = {67, 69, 53, 123, 547, 7777, 1};
	u32 data = (u32)below(below(6) ? 600 : 60000);
	u16 port = ports[below(ARRAY_SIZE(ports))];

	put16(p, port == 67 ? 68 : 1000 + below(20));
	put16(p + 2, port);
	put16(p + 4, below(20) ? 8 + data : below(65536));
	put16(p + 6, 0);
	fill(p + 8, data);
	if (port == 67 && data > 300) { /* BOOTP */
		memcpy(p + 8, (u8[]){1, 1, 6, 0}, 4);
		memcpy(p + 8 + 236, (u8[]){99, 130, 83, 99, 53, 1, (u8)(1 + below(8))}, 7);
	}
	if (port == 69 && data > 30) /* TFTP */
		memcpy(p + 8, "\0\1../../etc/passwd\0octet\0blksize\0", 30);
	return 8 + data;
}

static u32 icmp(u8 *p, bool v6)
{
	static const u8 types[] = {8, 0, 3, 5, 11, 13, 17}, types6[] = {128, 129, 133, 134, 135, 136, 1, 2, 143};
	u32 data = (u32)below(below(6) ? 200 : 9000);

	fill(p, 8 + data);
	p[0] = v6 ? types6[below(ARRAY_SIZE(types6))] : types[below(ARRAY_SIZE(types))];
	p[1] = 0;
	return 8 + data;
}

static u32 ip4(struct card *c, u8 *f, struct virtio_net_hdr_v1 *h)
{
	static const u8 dst[][4] = {{10, 0, 2, 2}, {10, 0, 2, 3}, {10, 0, 2, 255}, {255, 255, 255, 255}, {224, 0, 0, 1}, {10, 0, 2, 4}};
	u32 options = below(8) ? 0 : 4 * (u32)below(11), l4 = 34 + options, n = 0;
	u8 proto = (u8)(u8[]){6, 6, 6, 17, 17, 1, 2, 99}[below(8)], *ip = f + 14;
	u64 pseudo = 0;
	u16 sum;

	n = proto == 6 ? tcp(c, f + l4) : proto == 17 ? udp(f + l4) : icmp(f + l4, false);
	memcpy(f + 12, (u8[]){8, 0}, 2);
	fill(ip, 20 + options);
	ip[0] = (u8)(0x45 + options / 4);
	put16(ip + 2, 20 + options + n);
	put16(ip + 6, below(20) ? 0 : below(65536));
	ip[8] = 64;
	ip[9] = proto;
	memcpy(ip + 12, below(10) ? (u8[]){10, 0, 2, 15} : (u8[]){10, 0, 2, 2}, 4);
	memcpy(ip + 16, dst[below(3) ? 0 : below(ARRAY_SIZE(dst))], 4);
	put16(ip + 10, 0);
	sum = (u16)~offload_fold(offload_sum(ip, 20 + options, 0));
	memcpy(ip + 10, &sum, 2);
	*h = (struct virtio_net_hdr_v1){.flags = 1, .csum_start = (u16)l4, .csum_offset = proto == 6 ? 16 : proto == 17 ? 6 : 2};
	pseudo = offload_sum(ip + 12, 8, htons(proto) + (u64)htons((u16)n));
	sum = proto == 6 || proto == 17 ? offload_fold(pseudo) : 0;
	memcpy(f + l4 + h->csum_offset, &sum, 2);
	if (proto == 6 && !below(4)) {
		h->gso_type = VIRTIO_NET_HDR_GSO_TCPV4;
		h->gso_size = 1400;
	}
	return l4 + n;
}

static u32 ip6(struct card *c, u8 *f, struct virtio_net_hdr_v1 *h)
{
	u8 next = (u8)(u8[]){58, 58, 6, 17, 0, 44, 60, 99}[below(8)], *ip = f + 14;
	u32 n = next == 6 ? tcp(c, f + 54) : next == 17 ? udp(f + 54) : icmp(f + 54, true);
	u64 pseudo;
	u16 sum;

	memcpy(f + 12, (u8[]){0x86, 0xdd}, 2);
	memset(ip, 0, 40);
	ip[0] = 0x60;
	put16(ip + 4, n);
	ip[6] = next;
	ip[7] = 255;
	inet_pton(AF_INET6, below(4) ? "fec0::5054:ff:fe01:203" : below(2) ? "fe80::1234" : "::", ip + 8);
	inet_pton(AF_INET6, below(2) ? "fec0::2" : below(2) ? "ff02::2" : below(2) ? "fec0::3" : "ff02::1:2", ip + 24);
	*h = (struct virtio_net_hdr_v1){.flags = 1, .csum_start = 54, .csum_offset = next == 6 ? 16 : next == 17 ? 6 : 2};
	pseudo = offload_sum(ip + 8, 32, htons(next) + (u64)htons((u16)n));
	sum = offload_fold(pseudo);
	memcpy(f + 54 + h->csum_offset, &sum, 2);
	return 54 + n;
}

static u32 arp(u8 *f)
{
	memset(f, 0, 60);
	memcpy(f + 12, (u8[]){8, 6, 0, 1, 8, 0, 6, 4, 0, 1, 0x52, 0x54, 0, 1, 2, 3, 10, 0, 2, 15}, 20);
	memcpy(f + 38, (u8[]){10, 0, 2, 2}, 4);
	return 60;
}

static void send_frame(struct card *c, const struct virtio_net_hdr_v1 *h, u8 *f, u32 len)
{
	const struct iovec iov = {.iov_base = f, .iov_len = len};
	const struct net_frame nf = {.hdr = *h, .iov = &iov, .n_iov = 1, .len = len};

	memset(f, 0xff, 6);
	memcpy(f + 6, (u8[]){0x52, 0x54, 0, 1, 2, 3}, 6);
	net_send(c->net, 0, &nf, 1);
}

static void send_one(struct card *c, u8 *f)
{
	struct virtio_net_hdr_v1 h = {0};
	u32 len = 0;

	switch (below(10)) {
	case 0:
		len = arp(f);
		break;
	case 1:
	case 2:
	case 3:
		len = ip6(c, f, &h);
		break;
	case 4:
		len = NET_FRAME_MIN + fill(f + NET_FRAME_MIN, (u32)below(1500));
		break;
	default:
		len = ip4(c, f, &h);
	}
	if (!below(6)) { /* one wrong byte, mostly in a header */
		f[12 + below(below(2) ? 60 : len - 12)] = (u8)rnd();
		h.flags = (u8)below(2);
	}
	if (!below(12))
		len = NET_FRAME_MIN + (u32)below(len - NET_FRAME_MIN + 1);
	if (!below(30))
		h = (struct virtio_net_hdr_v1){.flags = (u8)rnd(), .gso_type = (u8)rnd(), .gso_size = (u16)rnd(),
					       .csum_start = (u16)rnd(), .csum_offset = (u16)rnd(), .num_buffers = (u16)below(6)};
	send_frame(c, &h, f, len);
}

/* ---- a server that reads a little and hangs up ---- */
static void serve(int s, int *fds)
{
	static u8 buf[100000];
	int fd = accept4(s, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC), *slot = &fds[below(16)];

	if (fd >= 0) {
		if (*slot >= 0)
			close(*slot);
		*slot = fd;
	}
	for (int i = 0; i < 16; i++) {
		if (fds[i] < 0 || below(4))
			continue;
		if (read(fds[i], buf, sizeof(buf)) >= 0 && write(fds[i], buf, below(2) ? 100 : sizeof(buf)) < 0)
			errno = 0;
		if (!below(30)) {
			close(fds[i]);
			fds[i] = -1;
		}
	}
}

static int own_network(void)
{
	struct ifreq r = {.ifr_name = "lo", .ifr_flags = IFF_UP};
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(PORT), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int s = -1;

	if (unshare(CLONE_NEWUSER | CLONE_NEWNET) < 0 && unshare(CLONE_NEWNET) < 0)
		return -1;
	s = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (s < 0 || ioctl(s, SIOCSIFFLAGS, &r) < 0 || bind(s, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(s, 64) < 0)
		return -1;
	return s;
}

static bool round_ok(int s, unsigned frames)
{
	struct net_options o = {.kind = NET_USER, .host_loopback = true};
	struct loop *l = loop_new();
	struct card c = {0};
	struct err e = {0};
	u8 *f = calloc(1, NET_FRAME_MAX + 4096);
	int fds[16];

	memset(fds, -1, sizeof(fds));
	if (net_open(l, &o, &c.net, &e)) {
		fprintf(stderr, "%s\n", e.text);
		return false;
	}
	c.net->client = &client;
	c.net->dev = &c;
	for (unsigned i = 0; i < frames && !c.down; i++) {
		send_one(&c, f);
		if (i % 16 == 0) {
			run(l);
			serve(s, fds);
		}
	}
	c.arp = false;
	for (int i = 0; i < 2000 && !c.arp && !c.down; i++) {
		send_frame(&c, &(struct virtio_net_hdr_v1){0}, f, arp(f));
		usleep(1000);
		run(l);
	}
	net_destroy(c.net);
	loop_free(l);
	free(f);
	for (int i = 0; i < 16; i++)
		if (fds[i] >= 0)
			close(fds[i]);
	return c.arp && !c.down;
}

int main(int argc, char **argv)
{
	u64 seed = argc > 1 ? strtoull(argv[1], NULL, 0) : 1;
	unsigned frames = argc > 2 ? (unsigned)strtoul(argv[2], NULL, 0) : 20000, good = 0;
	char path[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 20);
	int s = own_network();

	if (s < 0) {
		printf("0 passed, 0 failed, 1 skipped\n");
		return 0;
	}
	path[n] = 0;
	for (int i = 0; i < 3; i++)
		*strrchr(path, '/') = 0;
	strcat(path, "/doppel-net");
	setenv("DOPPEL_NET", path, 0);
	signal(SIGPIPE, SIG_IGN);
	log_set_level(LOG_ERROR);
	for (unsigned i = 0; i < ROUNDS; i++) {
		state = 88172645463325252ull ^ (seed * ROUNDS + i) * 0x9e3779b97f4a7c15ull;
		if (round_ok(s, frames))
			good++;
		else
			printf("round %u of seed %llu failed\n", i, (unsigned long long)seed);
	}
	printf("%u passed, %u failed\n", good, ROUNDS - good);
	return good != ROUNDS;
}
