/*
 * --net socket,path=P and --net passt,path=P: a Unix stream socket on which each frame is preceded by its length, 4 bytes,
 * big-endian (as QEMU's -netdev stream has it). The peer knows no offloading: checksums are made here, and large frames cut.
 *
 * The peer is not trusted: a length that no frame has ends the connection, and the guest's link is down from then on.
 */
#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "backends/net.h"
#include "backends/net_offload.h"

enum { PASST_MTU = 65520, PREFIX = 4, GSO_MIN = 48 /* as Linux has it */, HEADERS_MAX = 300 };
/* A large frame takes at most so much once it is cut; there is room for two. */
enum { CUT_MAX = NET_FRAME_MAX + (NET_FRAME_MAX / GSO_MIN + 1) * (HEADERS_MAX + PREFIX), OUT_BYTES = 2 * CUT_MAX };
enum { IN_BYTES = 4 * (PREFIX + NET_FRAME_MAX) };

struct stream {
	struct net net;
	struct loop *loop;
	int fd;
	u32 events;
	bool dead;
	bool checked; /* the peer makes right checksums: passt does */
	unsigned in_at, in_n;
	unsigned out_at, out_n;
	struct net_packet packet;
	u8 in[IN_BYTES], out[OUT_BYTES], frame[NET_FRAME_MAX];
};

static struct stream *stream_of(struct net *n)
{
	return container_of(n, struct stream, net);
}

static void listen_for(struct stream *s, u32 events)
{
	if (s->dead || events == s->events)
		return;
	s->events = events;
	loop_mod(s->loop, s->fd, events);
}

/* ---- out ---- */
static void put_frame(void *arg, const u8 *frame, u32 len)
{
	struct stream *s = arg;
	u32 prefix = htonl(len);

	if (OUT_BYTES - s->out_n < PREFIX + len)
		return; /* cannot be: see CUT_MAX */
	memcpy(s->out + s->out_n, &prefix, PREFIX);
	memcpy(s->out + s->out_n + PREFIX, frame, len);
	s->out_n += PREFIX + len;
}

static void flush(struct stream *s)
{
	while (s->out_at < s->out_n) {
		ssize_t n = send(s->fd, s->out + s->out_at, s->out_n - s->out_at, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			break;
		if (n < 0)
			s->out_at = s->out_n; /* the loop will find out why */
		else
			s->out_at += (unsigned)n;
	}
	memmove(s->out, s->out + s->out_at, s->out_n - s->out_at);
	s->out_n -= s->out_at;
	s->out_at = 0;
	listen_for(s, s->out_n ? s->events | EPOLLOUT : s->events & ~EPOLLOUT);
}

static unsigned stream_send(struct net *net, unsigned pair, const struct net_frame *f, unsigned count)
{
	struct stream *s = stream_of(net);
	unsigned i = 0;

	for (; i < count && !s->dead; i++) {
		u32 at = 0;

		if (OUT_BYTES - s->out_n < CUT_MAX)
			flush(s);
		if (OUT_BYTES - s->out_n < CUT_MAX)
			break;
		for (unsigned k = 0; k < f[i].n_iov; at += (u32)f[i].iov[k++].iov_len)
			memcpy(s->frame + at, f[i].iov[k].iov_base, f[i].iov[k].iov_len);
		if (f[i].hdr.gso_type && f[i].hdr.gso_size < GSO_MIN)
			continue;
		if (offload_segment(&f[i].hdr, s->frame, at, put_frame, s))
			continue; /* nonsense: dropped */
	}
	flush(s);
	return s->dead ? count : i;
}

/* ---- in ---- */
static bool fill(struct stream *s)
{
	ssize_t n = 0;

	memmove(s->in, s->in + s->in_at, s->in_n - s->in_at);
	s->in_n -= s->in_at;
	s->in_at = 0;
	do
		n = recv(s->fd, s->in + s->in_n, IN_BYTES - s->in_n, MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	if (n <= 0)
		return false;
	s->in_n += (unsigned)n;
	return true;
}

/* Length of the frame at in_at when all of it is there; 0: not yet; -1: nonsense. */
static int whole(const struct stream *s)
{
	u32 len = 0;

	if (s->in_n - s->in_at < PREFIX)
		return 0;
	memcpy(&len, s->in + s->in_at, PREFIX);
	len = ntohl(len);
	if (len < NET_FRAME_MIN || len > NET_FRAME_MAX)
		return -1;
	return s->in_n - s->in_at - PREFIX >= len ? (int)len : 0;
}

static const struct net_packet *stream_peek(struct net *net, unsigned pair)
{
	struct stream *s = stream_of(net);
	int len = 0;

	while (!s->dead && (len = whole(s)) == 0)
		if (!fill(s))
			return NULL;
	if (len <= 0) {
		shutdown(s->fd, SHUT_RDWR); /* the loop sees a hang-up */
		return NULL;
	}
	s->packet = (struct net_packet){.hdr.flags = s->checked ? VIRTIO_NET_HDR_F_DATA_VALID : 0,
					.data = s->in + s->in_at + PREFIX, .len = (u32)len};
	return &s->packet;
}

static void stream_next(struct net *net, unsigned pair)
{
	struct stream *s = stream_of(net);

	s->in_at += PREFIX + s->packet.len;
}

static void stream_listen(struct net *net, unsigned pair, bool on)
{
	struct stream *s = stream_of(net);

	listen_for(s, on ? s->events | EPOLLIN : s->events & ~EPOLLIN);
}

/* ---- life ---- */
static void on_event(void *arg, u32 events)
{
	struct stream *s = arg;

	if ((events & EPOLLIN) && s->net.client)
		s->net.client->readable(s->net.dev, 0);
	if ((events & EPOLLOUT) && s->net.client)
		s->net.client->writable(s->net.dev, 0);
	if (!(events & (EPOLLHUP | EPOLLERR)))
		return;
	log_msg(LOG_WARN, "network: the connection ended; the guest's link is down");
	loop_del(s->loop, s->fd);
	s->dead = true;
	if (s->net.client)
		s->net.client->link(s->net.dev, false);
}

static void stream_destroy(struct net *net)
{
	struct stream *s = stream_of(net);

	if (!s->dead)
		loop_del(s->loop, s->fd);
	close(s->fd);
	free(s);
}

static const struct net_ops stream_ops = {.name = "stream",
					  .send = stream_send,
					  .peek = stream_peek,
					  .next = stream_next,
					  .listen = stream_listen,
					  .destroy = stream_destroy};

static int dial(const struct net_options *o, struct err *e)
{
	const char *kind = o->kind == NET_PASST ? "passt" : "socket";
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd = -1, ret = 0;

	if (strlen(o->text) >= sizeof(a.sun_path))
		return err_set(e, ENAMETOOLONG, "--net %s,path=%s: too long for a socket address", kind, o->text);
	memcpy(a.sun_path, o->text, strlen(o->text));
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd >= 0 && connect(fd, (struct sockaddr *)&a, sizeof(a)) == 0)
		return fd;
	ret = err_set(e, errno, "--net %s,path=%s: %s (%s)", kind, o->text, strerror(errno),
		      o->kind == NET_PASST ? "start passt --socket PATH first" : "something must listen there");
	if (fd >= 0)
		close(fd);
	return ret;
}

int net_open_stream(struct loop *l, const struct net_options *o, struct net **out, struct err *e)
{
	bool passt = o->kind == NET_PASST;
	struct stream *s = NULL;
	int fd = dial(o, e), ret = 0;

	if (fd < 0)
		return fd;
	s = calloc(1, sizeof(*s));
	if (!s) {
		close(fd);
		return err_set(e, ENOMEM, "--net: no memory");
	}
	s->net = (struct net){.ops = &stream_ops, .pairs = 1, .mtu = o->mtu ? o->mtu : passt ? PASST_MTU : 0,
			      .features = BIT64(VIRTIO_NET_F_CSUM) | BIT64(VIRTIO_NET_F_GUEST_CSUM)};
	if (!passt) /* what passt's MTU lets through is as large as TSO makes it */
		s->net.features |= BIT64(VIRTIO_NET_F_HOST_TSO4) | BIT64(VIRTIO_NET_F_HOST_TSO6) | BIT64(VIRTIO_NET_F_HOST_ECN);
	s->loop = l;
	s->fd = fd;
	s->checked = passt;
	s->events = EPOLLIN;
	ret = loop_add(l, fd, s->events, on_event, s);
	if (ret) {
		close(fd);
		free(s);
		return err_set(e, -ret, "--net: %s", strerror(-ret));
	}
	*out = &s->net;
	return 0;
}
