/*
 * The user-mode network: libslirp between the guest's frames and this host's sockets. Large TCP frames go in uncut.
 *
 * Nothing is dropped while the VM is slow: frames for it queue up here, and with too many of them the host's sockets are not read
 * (QUEUE_HIGH), which throttles their senders.
 */
#include <arpa/inet.h>
#include <poll.h>
#include <signal.h>
#include <slirp/libslirp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "backends/net_offload.h"
#include "net/closing.h"
#include "net/filter.h"
#include "net/net.h"
#include "net/queue.h"
#include "net/reassemble.h"

/* Each connection may take 256 KiB of buffers: FILES_MAX bounds what a guest can make this process take. */
enum { QUEUE_HIGH = 1 << 20, FILES_MAX = 4096, FILES_SPARE = 32, FULL_MS = 10, IDLE_MS = 1000, TIMERS = 8 };

struct timer {
	bool used;
	SlirpTimerCb cb;
	void *arg;
	s64 expires; /* ms; -1: not set */
};
struct user {
	Slirp *slirp;
	int fd;
	struct link_in in;
	struct queue out;
	struct reassembler *fragments;
	struct closing *closing;
	struct pollfd *fds;
	unsigned n_fds, room, files;
	struct timer timer[TIMERS];
	bool gone;
};

/* ---- what libslirp asks of us ---- */
static s64 get_ns(void *arg)
{
	return (s64)now_ns();
}

static ssize_t send_packet(const void *frame, size_t len, void *arg)
{
	struct user *u = arg;
	/* libslirp has made the checksum: the guest need not look at it */
	const struct virtio_net_hdr_v1 h = {.flags = VIRTIO_NET_HDR_F_DATA_VALID};

	if (len < NET_FRAME_MIN || len > NET_FRAME_MAX)
		return (ssize_t)len;
	closing_from_net(u->closing, frame, (u32)len);
	queue_add(&u->out, u->fd, &h, frame, (u32)len);
	return (ssize_t)len;
}

static void guest_error(const char *text, void *arg) {}

static void *timer_new(SlirpTimerCb cb, void *cb_arg, void *arg)
{
	struct user *u = arg;

	for (unsigned i = 0; i < TIMERS; i++) {
		if (u->timer[i].used)
			continue;
		u->timer[i] = (struct timer){.used = true, .cb = cb, .arg = cb_arg, .expires = -1};
		return &u->timer[i];
	}
	abort(); /* it makes one */
}

static void timer_free(void *timer, void *arg)
{
	*(struct timer *)timer = (struct timer){0};
}

static void timer_mod(void *timer, s64 ms, void *arg)
{
	((struct timer *)timer)->expires = ms;
}

static void poll_fd(int fd, void *arg) {}
static void notify(void *arg) {}

static const SlirpCb callbacks = {.send_packet = send_packet,
				  .guest_error = guest_error,
				  .clock_get_ns = get_ns,
				  .timer_new = timer_new,
				  .timer_free = timer_free,
				  .timer_mod = timer_mod,
				  .register_poll_fd = poll_fd,
				  .unregister_poll_fd = poll_fd,
				  .notify = notify};

/* ---- polling ---- */
static const struct {
	int slirp;
	short poll;
} poll_bits[] = {{SLIRP_POLL_IN, POLLIN}, {SLIRP_POLL_OUT, POLLOUT}, {SLIRP_POLL_PRI, POLLPRI}, {SLIRP_POLL_ERR, POLLERR},
		 {SLIRP_POLL_HUP, POLLHUP}};

static int add_poll(int fd, int events, void *arg)
{
	struct user *u = arg;
	short bits = 0;

	if (u->n_fds == u->room) {
		unsigned room = u->room ? 2 * u->room : 64;
		struct pollfd *p = realloc(u->fds, room * sizeof(*p));

		if (!p)
			return -1;
		u->fds = p;
		u->room = room;
	}
	for (unsigned i = 0; i < ARRAY_SIZE(poll_bits); i++)
		if (events & poll_bits[i].slirp)
			bits |= poll_bits[i].poll;
	u->fds[u->n_fds] = (struct pollfd){.fd = fd, .events = bits};
	return (int)u->n_fds++;
}

static int get_events(int i, void *arg)
{
	struct user *u = arg;
	int events = 0;

	for (unsigned b = 0; i >= 0 && b < ARRAY_SIZE(poll_bits); b++)
		if (u->fds[i].revents & poll_bits[b].poll)
			events |= poll_bits[b].slirp;
	return events;
}

/* How long to sleep: libslirp wants to be asked each second even without a reason; with no socket there is none. */
static int wait_ms(const struct user *u, u32 slirp_ms)
{
	s64 ms = slirp_ms >= IDLE_MS && u->n_fds == 1 ? INT32_MAX : slirp_ms, now = (s64)now_ms();

	for (unsigned i = 0; i < TIMERS; i++)
		if (u->timer[i].used && u->timer[i].expires >= 0)
			ms = MIN(ms, MAX(u->timer[i].expires - now, 0));
	return (int)MIN(ms, INT32_MAX);
}

static void run_timers(struct user *u)
{
	s64 now = (s64)now_ms();

	for (unsigned i = 0; i < TIMERS; i++) {
		struct timer *t = &u->timer[i];

		if (!t->used || t->expires < 0 || t->expires > now)
			continue;
		t->expires = -1;
		t->cb(t->arg);
	}
}

/* ---- serving ---- */
static void take_frame(struct user *u, const struct virtio_net_hdr_v1 *h, u8 *frame, u32 len)
{
	const u8 *whole = frame;
	u8 rst[CLOSING_FRAME];

	if (offload_finish(h, frame, len) || !filter_allows(frame, len))
		return;
	if (reassemble_needed(frame))
		whole = reassemble(u->fragments, frame, now_ms(), &len);
	if (!whole)
		return;
	closing_from_guest(u->closing, whole, len);
	slirp_input(u->slirp, whole, (int)len);
	len = closing_rst(u->closing, rst);
	if (len)
		slirp_input(u->slirp, rst, (int)len);
}

static void take_frames(struct user *u)
{
	int ret = link_receive(&u->in, u->fd);

	u->gone = ret == -EPIPE;
	for (unsigned i = 0; i < u->in.n; i++) {
		u8 *m = link_message(&u->in, i), *frame = m + NET_HDR;
		struct virtio_net_hdr_v1 h;
		u32 len = u->in.len[i] - NET_HDR;

		if (u->in.len[i] < NET_HDR + NET_FRAME_MIN)
			continue;
		memcpy(&h, m, sizeof(h));
		if (h.num_buffers == LINK_FRAME)
			take_frame(u, &h, frame, len);
	}
}

static void serve(struct user *u)
{
	while (!u->gone) {
		u32 ms = UINT32_MAX;
		bool full = u->out.bytes > QUEUE_HIGH;
		int n = 0;

		u->n_fds = 0;
		add_poll(u->fd, SLIRP_POLL_IN | (u->out.bytes ? SLIRP_POLL_OUT : 0), u);
		if (!full)
			slirp_pollfds_fill(u->slirp, &ms, add_poll, u);
		n = poll(u->fds, u->n_fds, full ? IDLE_MS : wait_ms(u, ms));
		if (n < 0 && errno != EINTR)
			return;
		if (u->n_fds + FILES_SPARE > u->files)
			poll(NULL, 0, FULL_MS); /* a connection that cannot be accepted stays readable: do not spin */
		if (u->fds[0].revents & (POLLIN | POLLHUP | POLLERR))
			take_frames(u);
		if (!full)
			slirp_pollfds_poll(u->slirp, n < 0, get_events, u);
		run_timers(u);
		queue_flush(&u->out, u->fd);
	}
}

/* ---- set-up ---- */
static Slirp *make_slirp(struct user *u, unsigned mtu, bool loopback)
{
	SlirpConfig c = {.version = 3, .in_enabled = true, .in6_enabled = true, .vprefix_len = 64, .if_mtu = mtu, .if_mru = mtu,
			 .disable_host_loopback = !loopback};

	inet_pton(AF_INET, "10.0.2.0", &c.vnetwork);
	inet_pton(AF_INET, "255.255.255.0", &c.vnetmask);
	inet_pton(AF_INET, "10.0.2.2", &c.vhost);
	inet_pton(AF_INET, "10.0.2.15", &c.vdhcp_start);
	inet_pton(AF_INET, "10.0.2.3", &c.vnameserver);
	inet_pton(AF_INET6, "fec0::", &c.vprefix_addr6);
	inet_pton(AF_INET6, "fec0::2", &c.vhost6);
	inet_pton(AF_INET6, "fec0::3", &c.vnameserver6);
	return slirp_new(&c, &callbacks, u);
}

/* "tcp:127.0.0.1:8080:80", written by the VMM */
static int add_forward(struct user *u, const char *text, char *why, size_t n)
{
	struct in_addr host, guest = {0};
	char proto[4], address[16];
	unsigned from = 0, to = 0;

	if (sscanf(text, "%3[a-z]:%15[0-9.]:%u:%u", proto, address, &from, &to) != 4 || inet_pton(AF_INET, address, &host) != 1) {
		snprintf(why, n, "--net: hostfwd=%s: not understood", text);
		return -EINVAL;
	}
	if (!slirp_add_hostfwd(u->slirp, proto[0] == 'u', host, (int)from, guest, (int)to))
		return 0;
	snprintf(why, n, "--net: hostfwd=%s: %s port %u of %s: %s (choose another)", text, proto, from, address, strerror(errno));
	return -EADDRINUSE;
}

static unsigned set_limits(void)
{
	struct rlimit r, none = {0, 0};

	setrlimit(RLIMIT_CORE, &none);
	if (getrlimit(RLIMIT_NOFILE, &r) < 0)
		return 0;
	r.rlim_cur = MIN(r.rlim_max, FILES_MAX);
	setrlimit(RLIMIT_NOFILE, &r);
	return (unsigned)r.rlim_cur;
}

/* MTU loopback|no-loopback FORWARD... */
int user_main(int argc, char **argv)
{
	const int size = LINK_BUFFER;
	struct user u = {.fd = NET_FD};
	char why[300];

	if (argc < 2)
		return 2;
	signal(SIGPIPE, SIG_IGN);
	u.files = set_limits();
	setsockopt(u.fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	u.slirp = make_slirp(&u, (unsigned)atoi(argv[0]), !strcmp(argv[1], "loopback"));
	u.fragments = reassembler_new();
	u.closing = closing_new();
	if (!u.slirp || !u.fragments || !u.closing || link_in_init(&u.in) || queue_init(&u.out)) {
		link_say(u.fd, LINK_FAILED, "--net user: no memory");
		return 1;
	}
	for (int i = 2; i < argc; i++) {
		if (add_forward(&u, argv[i], why, sizeof(why))) {
			link_say(u.fd, LINK_FAILED, why);
			return 1;
		}
	}
	if (sandbox_enter(ROLE_USER)) {
		link_say(u.fd, LINK_FAILED, "--net user: its sandbox cannot be entered (the kernel needs seccomp filters)");
		return 1;
	}
	link_say(u.fd, LINK_READY, "");
	serve(&u);
	return 0;
}
