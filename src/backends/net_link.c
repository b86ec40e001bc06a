/* The VMM's end of a link to doppel-net (net_proto.h). Frames leave straight from guest memory, in batches. */
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "backends/net_proto.h"

enum { SLOT = (LINK_MESSAGE_MAX + 63) & ~63, SLOTS = 16, IOV_MAX_SENT = NET_BATCH * 20, REAP_MS = 1000 };

struct link {
	struct net net;
	struct loop *loop;
	int fd, pid;
	u32 events; /* what the loop listens for */
	bool dead;
	u8 *slots;
	unsigned n, at; /* slots [at, n) hold messages not yet consumed */
	bool tell;	/* its features have changed, and the process does not know */
	u64 guest_features;
	u32 len[SLOTS];
	struct net_packet packet;
	struct mmsghdr out[NET_BATCH];
	struct iovec out_iov[IOV_MAX_SENT];
};

static struct link *link_of(struct net *n)
{
	return container_of(n, struct link, net);
}

static void listen_for(struct link *k, u32 events)
{
	if (k->dead || events == k->events)
		return;
	k->events = events;
	loop_mod(k->loop, k->fd, events);
}

/* ---- out ---- */
/* Not waiting: what does not go now goes with the next frame, either way. */
static void tell_features(struct link *k)
{
	struct {
		struct virtio_net_hdr_v1 hdr;
		u64 features;
	} __attribute__((packed)) m = {.hdr.num_buffers = LINK_OFFLOADS, .features = k->guest_features};

	if (k->tell && send(k->fd, &m, sizeof(m), MSG_DONTWAIT | MSG_NOSIGNAL) == sizeof(m))
		k->tell = false;
}

/* Messages for as many frames as the iovec array holds; at least one. */
static unsigned prepare(struct link *k, const struct net_frame *f, unsigned count)
{
	unsigned used = 0, i = 0;

	for (; i < MIN(count, (unsigned)NET_BATCH); i++) {
		struct iovec *iov = &k->out_iov[used];

		if (used + 1 + f[i].n_iov > IOV_MAX_SENT)
			break;
		iov[0] = (struct iovec){.iov_base = (void *)&f[i].hdr, .iov_len = NET_HDR};
		memcpy(iov + 1, f[i].iov, f[i].n_iov * sizeof(*iov));
		k->out[i] = (struct mmsghdr){.msg_hdr = {.msg_iov = iov, .msg_iovlen = 1 + f[i].n_iov}};
		used += 1 + f[i].n_iov;
	}
	return i;
}

static unsigned link_send(struct net *net, unsigned pair, const struct net_frame *f, unsigned count)
{
	struct link *k = link_of(net);
	unsigned done = 0;

	tell_features(k);
	while (done < count && !k->dead) {
		unsigned n = prepare(k, f + done, count - done);
		int sent = n ? sendmmsg(k->fd, k->out, n, MSG_DONTWAIT | MSG_NOSIGNAL) : 0;

		if (sent > 0)
			done += (unsigned)sent;
		else if (sent < 0 && errno == EINTR)
			continue;
		else if (sent < 0 && (errno == EAGAIN || errno == ENOBUFS)) {
			listen_for(k, k->events | EPOLLOUT);
			return done;
		} else {
			done++; /* this one can never be sent */
		}
	}
	return count;
}

/* ---- in ---- */
static bool fill(struct link *k)
{
	struct mmsghdr m[SLOTS];
	struct iovec iov[SLOTS];
	int got = 0;

	for (unsigned i = 0; i < SLOTS; i++) {
		iov[i] = (struct iovec){.iov_base = k->slots + i * SLOT, .iov_len = LINK_MESSAGE_MAX};
		m[i] = (struct mmsghdr){.msg_hdr = {.msg_iov = &iov[i], .msg_iovlen = 1}};
	}
	do
		got = recvmmsg(k->fd, m, SLOTS, MSG_DONTWAIT, NULL);
	while (got < 0 && errno == EINTR);
	k->at = k->n = 0;
	for (int i = 0; i < got && m[i].msg_len; i++) /* an empty one is the end of file, and repeats for ever */
		k->len[k->n++] = m[i].msg_hdr.msg_flags & MSG_TRUNC ? 0 : m[i].msg_len;
	return k->n;
}

static const struct net_packet *link_peek(struct net *net, unsigned pair)
{
	struct link *k = link_of(net);

	tell_features(k);
	for (;;) {
		if (k->at == k->n && (k->dead || !fill(k)))
			return NULL;
		for (; k->at < k->n; k->at++) {
			const u8 *p = k->slots + k->at * SLOT;
			u32 len = k->len[k->at];

			if (len < NET_HDR + NET_FRAME_MIN)
				continue;
			memcpy(&k->packet.hdr, p, NET_HDR);
			if (k->packet.hdr.num_buffers != LINK_FRAME)
				continue;
			k->packet.data = p + NET_HDR;
			k->packet.len = len - NET_HDR;
			return &k->packet;
		}
	}
}

static void link_next(struct net *net, unsigned pair)
{
	struct link *k = link_of(net);

	if (k->at < k->n)
		k->at++;
}

static void link_listen(struct net *net, unsigned pair, bool on)
{
	struct link *k = link_of(net);

	listen_for(k, on ? k->events | EPOLLIN : k->events & ~EPOLLIN);
}

static void link_offloads(struct net *net, u64 features)
{
	struct link *k = link_of(net);
	k->guest_features = features;
	k->tell = true;
	tell_features(k);
}

/* ---- life ---- */
static void died(struct link *k)
{
	int status = 0;

	loop_del(k->loop, k->fd);
	k->dead = true;
	log_msg(LOG_WARN, "network: its process ended; the guest's link is down");
	if (k->pid > 0 && waitpid(k->pid, &status, WNOHANG) == k->pid)
		k->pid = 0;
	if (k->net.client)
		k->net.client->link(k->net.dev, false);
}

static void on_event(void *arg, u32 events)
{
	struct link *k = arg;

	if ((events & EPOLLIN) && k->net.client)
		k->net.client->readable(k->net.dev, 0);
	if (events & (EPOLLHUP | EPOLLERR)) {
		died(k);
		return;
	}
	if (events & EPOLLOUT) {
		listen_for(k, k->events & ~EPOLLOUT);
		if (k->net.client)
			k->net.client->writable(k->net.dev, 0);
	}
}

/* Its process ends when the socket closes; one that does not is left to init. */
static void reap(struct link *k)
{
	const struct timespec ms = {.tv_nsec = 1000000};

	for (int i = 0; i < REAP_MS && waitpid(k->pid, NULL, WNOHANG) == 0; i++)
		nanosleep(&ms, NULL);
}

static void link_destroy(struct net *net)
{
	struct link *k = link_of(net);

	if (!k->dead)
		loop_del(k->loop, k->fd);
	close(k->fd);
	if (k->pid > 0)
		reap(k);
	munmap(k->slots, (size_t)SLOT * SLOTS);
	free(k);
}

static const struct net_ops link_ops = {.name = "doppel-net",
					.send = link_send,
					.peek = link_peek,
					.next = link_next,
					.listen = link_listen,
					.offloads = link_offloads,
					.destroy = link_destroy};

int net_link_new(struct loop *l, int fd, int pid, u64 features, u16 mtu, struct net **out)
{
	const int size = LINK_BUFFER;
	struct link *k = calloc(1, sizeof(*k));
	void *slots = mmap(NULL, (size_t)SLOT * SLOTS, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int ret = 0;

	if (!k || slots == MAP_FAILED) {
		ret = -ENOMEM;
		goto fail;
	}
	*k = (struct link){.net = {.ops = &link_ops, .features = features, .pairs = 1, .mtu = mtu}, .loop = l, .fd = fd,
			   .pid = pid, .events = EPOLLIN, .slots = slots};
	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)); /* as much as the system gives */
	ret = loop_add(l, fd, k->events, on_event, k);
	if (ret)
		goto fail;
	*out = &k->net;
	return 0;
fail:
	if (slots != MAP_FAILED)
		munmap(slots, (size_t)SLOT * SLOTS);
	free(k);
	return ret;
}
