/*
 * The switch between VMs of one user (--net lan=NAME): a learning Ethernet switch with a port for each VM. A frame goes to the port
 * its destination was last heard from, else to all others. A port that does not keep up loses frames, as on any switch, and delays
 * nobody. Each port may have MACS_PER_PORT addresses, so that no VM can push out what others have taught.
 *
 * Offloads pass through: a large frame stays whole unless its receiver did not ask for such.
 */
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "backends/net_offload.h"
#include "net/net.h"

enum { PORTS_MAX = 64, MACS_PER_PORT = 64, TABLE = 8192, PROBES = 16, AGE_S = 300, FIRST_MS = 10000, END_MS = 50, GSO_MIN = 48 };

struct entry {
	u8 mac[NET_MAC];
	u16 port; /* + 1; 0: free */
	s64 seen; /* seconds */
};
struct port {
	int fd; /* -1: free */
	u64 offloads;
	unsigned macs;
};
struct lan_switch {
	const char *socket, *lock, *dir;
	int listener, lock_fd;
	s64 now;
	unsigned n;
	struct port port[PORTS_MAX];
	struct entry table[TABLE];
	struct link_in in;
	u8 scratch[NET_FRAME_MAX];
};

/* ---- addresses ---- */
static unsigned hash(const u8 *mac)
{
	u64 v = 0;

	memcpy(&v, mac, NET_MAC);
	return (unsigned)(v * 0x9e3779b97f4a7c15ull >> 51); /* 13 bits */
}

static void forget(struct lan_switch *s, struct entry *e)
{
	if (e->port)
		s->port[e->port - 1].macs--;
	e->port = 0;
}

static struct entry *find(struct lan_switch *s, const u8 *mac)
{
	for (unsigned i = 0, h = hash(mac); i < PROBES; i++) {
		struct entry *e = &s->table[(h + i) % TABLE];

		if (e->port && s->now - e->seen > AGE_S)
			forget(s, e);
		if (e->port && !memcmp(e->mac, mac, NET_MAC))
			return e;
	}
	return NULL;
}

static void learn(struct lan_switch *s, const u8 *mac, unsigned port)
{
	struct entry *e = find(s, mac);

	if (mac[0] & 1)
		return;
	if (e && e->port != port + 1)
		forget(s, e);
	for (unsigned i = 0, h = hash(mac); i < PROBES && (!e || !e->port); i++)
		if (!s->table[(h + i) % TABLE].port)
			e = &s->table[(h + i) % TABLE];
	if (!e || (!e->port && s->port[port].macs == MACS_PER_PORT))
		return;
	if (!e->port) {
		memcpy(e->mac, mac, NET_MAC);
		e->port = (u16)(port + 1);
		s->port[port].macs++;
	}
	e->seen = s->now;
}

/* ---- forwarding ---- */
static void send_frame(const struct port *p, const struct virtio_net_hdr_v1 *h, const u8 *frame, u32 len)
{
	struct iovec iov[2] = {{.iov_base = (void *)h, .iov_len = NET_HDR}, {.iov_base = (void *)frame, .iov_len = len}};
	const struct msghdr m = {.msg_iov = iov, .msg_iovlen = 2};

	if (sendmsg(p->fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
		return; /* full: dropped */
}

static void send_plain(void *port, const u8 *frame, u32 len)
{
	const struct virtio_net_hdr_v1 none = {0};

	send_frame(port, &none, frame, len);
}

static bool understands(const struct port *p, const struct virtio_net_hdr_v1 *h)
{
	u64 need = h->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM ? BIT64(VIRTIO_NET_F_GUEST_CSUM) : 0;

	if ((h->gso_type & ~VIRTIO_NET_HDR_GSO_ECN) == VIRTIO_NET_HDR_GSO_TCPV4)
		need |= BIT64(VIRTIO_NET_F_GUEST_TSO4);
	else if (h->gso_type)
		need |= BIT64(VIRTIO_NET_F_GUEST_TSO6);
	if (h->gso_type & VIRTIO_NET_HDR_GSO_ECN)
		need |= BIT64(VIRTIO_NET_F_GUEST_ECN);
	return !(need & ~p->offloads);
}

static void forward_to(struct lan_switch *s, struct port *p, const struct virtio_net_hdr_v1 *h, const u8 *frame, u32 len)
{
	if (understands(p, h)) {
		send_frame(p, h, frame, len);
		return;
	}
	if (h->gso_type && h->gso_size < GSO_MIN)
		return;
	memcpy(s->scratch, frame, len);
	if (offload_segment(h, s->scratch, len, send_plain, p))
		return; /* nonsense */
}

static void forward(struct lan_switch *s, unsigned from, const struct virtio_net_hdr_v1 *h, const u8 *frame, u32 len)
{
	const struct entry *to = frame[0] & 1 ? NULL : find(s, frame);

	learn(s, frame + NET_MAC, from);
	if (to && to->port != from + 1) {
		forward_to(s, &s->port[to->port - 1], h, frame, len);
		return;
	}
	for (unsigned i = 0; i < PORTS_MAX && !to; i++)
		if (s->port[i].fd >= 0 && i != from)
			forward_to(s, &s->port[i], h, frame, len);
}

/* What the header says about the frame is checked by those who use it: the receiving VM's kernel, offload_segment. */
static void take_message(struct lan_switch *s, unsigned port, const u8 *m, u32 n)
{
	struct virtio_net_hdr_v1 h;
	u32 len = n - NET_HDR;

	if (n < NET_HDR)
		return;
	memcpy(&h, m, sizeof(h));
	if (h.num_buffers == LINK_FRAME && len >= NET_FRAME_MIN)
		forward(s, port, &h, m + NET_HDR, len);
	else if (h.num_buffers == LINK_OFFLOADS && len == sizeof(u64))
		memcpy(&s->port[port].offloads, m + NET_HDR, sizeof(u64));
}

/* ---- ports ---- */
static void leave(struct lan_switch *s, unsigned port)
{
	for (unsigned i = 0; i < TABLE; i++)
		if (s->table[i].port == port + 1)
			forget(s, &s->table[i]);
	close(s->port[port].fd);
	s->port[port] = (struct port){.fd = -1};
	s->n--;
}

static void join(struct lan_switch *s)
{
	const int size = LINK_BUFFER;
	int fd = accept4(s->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	unsigned i = 0;

	if (fd < 0)
		return;
	while (i < PORTS_MAX && s->port[i].fd >= 0)
		i++;
	if (i == PORTS_MAX) {
		link_say(fd, LINK_FAILED, "--net lan: the switch has no free port (64 VMs)");
		close(fd);
		return;
	}
	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	link_say(fd, LINK_READY, "");
	s->port[i].fd = fd;
	s->n++;
}

/* Nobody is there: if nobody is about to come either, the socket goes, and true is returned. */
static bool end(struct lan_switch *s)
{
	if (flock(s->lock_fd, LOCK_EX | LOCK_NB) < 0)
		return false; /* someone is coming */
	join(s);
	if (s->n) {
		flock(s->lock_fd, LOCK_UN);
		return false;
	}
	unlink(s->socket);
	unlink(s->lock);
	rmdir(s->dir); /* if it was the last */
	return true;
}

static void serve(struct lan_switch *s)
{
	struct pollfd fds[1 + PORTS_MAX];
	bool had_any = false;

	for (;;) {
		struct timespec t;
		int n = 0;

		fds[0] = (struct pollfd){.fd = s->listener, .events = POLLIN};
		for (unsigned i = 0; i < PORTS_MAX; i++)
			fds[1 + i] = (struct pollfd){.fd = s->port[i].fd, .events = POLLIN};
		n = poll(fds, 1 + PORTS_MAX, s->n ? -1 : had_any ? END_MS : FIRST_MS);
		if (n < 0 && errno != EINTR)
			return;
		clock_gettime(CLOCK_MONOTONIC, &t);
		s->now = t.tv_sec;
		for (unsigned i = 0; i < PORTS_MAX && n > 0; i++) {
			if (!fds[1 + i].revents || s->port[i].fd < 0)
				continue;
			int ret = link_receive(&s->in, s->port[i].fd);

			for (unsigned k = 0; k < s->in.n; k++)
				take_message(s, i, link_message(&s->in, k), s->in.len[k]);
			if (ret == -EPIPE)
				leave(s, i);
		}
		if (fds[0].revents)
			join(s);
		had_any |= s->n > 0;
		if (!s->n && (had_any || !n) && end(s))
			return;
	}
}

/* SOCKET LOCK DIRECTORY: the paths to remove at the end */
int switch_main(int argc, char **argv)
{
	struct lan_switch *s = calloc(1, sizeof(*s));
	int null = open("/dev/null", O_WRONLY | O_CLOEXEC);

	if (argc != 3 || !s || null < 0)
		return 2;
	signal(SIGPIPE, SIG_IGN);
	s->listener = NET_FD;
	s->socket = argv[0];
	s->lock = argv[1];
	s->dir = argv[2];
	s->lock_fd = open(s->lock, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	for (unsigned i = 0; i < PORTS_MAX; i++)
		s->port[i].fd = -1;
	if (s->lock_fd < 0 || link_in_init(&s->in))
		return 1;
	dup2(null, STDERR_FILENO); /* the terminal is that of the first VM, which others may outlive */
	if (sandbox_enter(ROLE_SWITCH))
		return 1;
	serve(s);
	return 0;
}
