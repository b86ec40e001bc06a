/* The host's side of virtio-vsock: accepting, the CONNECT line, Unix sockets that must never block. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "backends/dialer.h"
#include "base/base.h"
#include "devices/vsock_int.h"

enum { FIRST_PORT = 1 << 30, HDR = sizeof(struct virtio_vsock_hdr) };
static const u8 both = VIRTIO_VSOCK_SHUTDOWN_RCV | VIRTIO_VSOCK_SHUTDOWN_SEND;

static struct loop *loop_of(const struct virtio_vsock *s)
{
	return machine_loop(s->v.machine);
}

/* Input is watched while nothing is known to be there; output while something waits. */
static void watch(struct vsock_conn *c)
{
	u32 want = c->n ? EPOLLOUT : 0;
	if (c->state == VSOCK_LINE)
		want |= EPOLLIN;
	else if (!c->in_ready && !(c->host_shut & VIRTIO_VSOCK_SHUTDOWN_SEND))
		want |= EPOLLIN | EPOLLRDHUP;
	if (want != c->events && loop_mod(loop_of(c->s), c->fd, want) == 0)
		c->events = want;
}

/* ---- connections ---- */
struct vsock_conn *vsock_find(struct virtio_vsock *s, u32 host_port, u32 guest_port)
{
	for (unsigned i = 0; i < VSOCK_CONNS_MAX; i++) {
		struct vsock_conn *c = s->conn[i];
		if (c && c->state != VSOCK_LINE && c->host_port == host_port && c->guest_port == guest_port)
			return c;
	}
	return NULL;
}

void vsock_conn_free(struct vsock_conn *c)
{
	for (unsigned i = 0; i < VSOCK_CONNS_MAX; i++)
		if (c->s->conn[i] == c)
			c->s->conn[i] = NULL;
	if (c->fd >= 0) {
		loop_del(loop_of(c->s), c->fd);
		close(c->fd);
	}
	free(c->buf);
	free(c);
}

static struct vsock_conn *conn_new(struct virtio_vsock *s, int fd, enum vsock_state state)
{
	for (unsigned i = 0; i < VSOCK_CONNS_MAX; i++) {
		if (s->conn[i])
			continue;
		s->conn[i] = calloc(1, sizeof(*s->conn[i]));
		if (s->conn[i])
			*s->conn[i] = (struct vsock_conn){.s = s, .fd = fd, .state = state};
		return s->conn[i];
	}
	return NULL;
}

/* Nobody holds the other end any more. What was written there goes to the guest before it is told. */
static void hang_up(struct vsock_conn *c)
{
	if (c->state == VSOCK_LINE || (c->owed & VSOCK_OWE_REQUEST)) {
		vsock_conn_free(c);
		return;
	}
	loop_del(loop_of(c->s), c->fd); /* EPOLLHUP would not stop */
	c->hung_up = c->in_ready = true;
	c->taken += c->n;
	c->n = 0;
	if (c->host_shut & VIRTIO_VSOCK_SHUTDOWN_SEND) { /* its end is known already */
		c->host_shut = both;
		c->owed |= VSOCK_OWE_SHUTDOWN;
	}
}

/* ---- to the socket ---- */
/* 1: taken; 0: not now; -1: nobody there. */
static int send_some(struct vsock_conn *c, const struct iovec *iov, unsigned n, u32 *done)
{
	const struct msghdr m = {.msg_iov = (struct iovec *)iov, .msg_iovlen = n};
	ssize_t r = sendmsg(c->fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (r < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (r < 0)
		return -1;
	*done = (u32)r;
	c->taken += (u32)r;
	return 1;
}

static void tell_credit(struct vsock_conn *c)
{
	if (c->taken - c->taken_told >= VSOCK_BUF / 2)
		c->owed |= VSOCK_OWE_CREDIT;
}

static void flush(struct vsock_conn *c)
{
	while (c->n) {
		struct iovec iov[2] = {{.iov_base = c->buf + c->head, .iov_len = MIN(c->n, VSOCK_BUF - c->head)},
				       {.iov_base = c->buf}};
		u32 done = 0;
		iov[1].iov_len = c->n - iov[0].iov_len;
		int r = send_some(c, iov, iov[1].iov_len ? 2 : 1, &done);
		if (r < 0) {
			c->taken += c->n; /* its reader is gone; what it writes still counts */
			c->n = 0;
		}
		if (r <= 0)
			break;
		c->head = (c->head + done) % VSOCK_BUF;
		c->n -= done;
	}
	tell_credit(c);
}

/* After a flush: what the guest ended ends here once all is delivered. May free c. */
static void follow_guest(struct vsock_conn *c)
{
	if (c->n || !(c->guest_shut & VIRTIO_VSOCK_SHUTDOWN_SEND))
		return;
	if (c->guest_shut == both)
		vsock_conn_free(c);
	else if (!c->hung_up)
		shutdown(c->fd, SHUT_WR);
}

static bool buffer(struct vsock_conn *c, const struct virtq_chain *chain, u32 off, u32 n)
{
	if (!n)
		return true;
	if (!c->buf)
		c->buf = malloc(VSOCK_BUF);
	if (!c->buf)
		return false;
	u32 at = (c->head + c->n) % VSOCK_BUF, first = MIN(n, VSOCK_BUF - at);
	if (!chain_read(chain, HDR + off, c->buf + at, first) ||
	    !chain_read(chain, HDR + off + first, c->buf, n - first))
		return false;
	c->n += n;
	return true;
}

bool vsock_to_host(struct vsock_conn *c, const struct virtq_chain *chain, u32 n)
{
	u32 done = 0;
	if (n > VSOCK_BUF - c->n)
		return false;
	if (c->hung_up || (c->host_shut & VIRTIO_VSOCK_SHUTDOWN_RCV)) {
		c->taken += n;
		tell_credit(c);
		return true;
	}
	if (!c->n && n) {
		unsigned k = chain_slice(chain, false, HDR, n, c->s->iov);
		if (send_some(c, c->s->iov, k, &done) < 0) {
			done = n;
			c->taken += n;
		}
	}
	if (!buffer(c, chain, done, n - done))
		return false;
	tell_credit(c);
	watch(c);
	return true;
}

void vsock_guest_shut(struct vsock_conn *c)
{
	follow_guest(c);
}

/* ---- from the socket ---- */
u32 vsock_credit(const struct vsock_conn *c)
{
	u32 flying = c->sent - c->peer_fwd;
	return flying < c->peer_alloc ? c->peer_alloc - flying : 0;
}

ssize_t vsock_from_host(struct vsock_conn *c, const struct iovec *iov, unsigned n)
{
	struct msghdr m = {.msg_iov = (struct iovec *)iov, .msg_iovlen = n};
	ssize_t r = recvmsg(c->fd, &m, MSG_DONTWAIT);
	if (r < 0 && (errno == EAGAIN || errno == EINTR)) {
		c->in_ready = false;
		watch(c);
		return -EAGAIN;
	}
	return r < 0 ? -errno : r;
}

/* ---- the line "CONNECT port\n" ---- */
static u32 new_port(struct virtio_vsock *s)
{
	bool used = true;
	while (used) {
		s->next_port = s->next_port < FIRST_PORT || s->next_port == UINT32_MAX ? FIRST_PORT : s->next_port + 1;
		used = false;
		for (unsigned i = 0; i < VSOCK_CONNS_MAX; i++)
			used |= s->conn[i] && s->conn[i]->state != VSOCK_LINE && s->conn[i]->host_port == s->next_port;
	}
	return s->next_port;
}

static bool parse_connect(const char *line, size_t n, u32 *port)
{
	static const char word[] = "CONNECT ";
	u64 v = 0;
	if (n < sizeof(word) || memcmp(line, word, sizeof(word) - 1) != 0)
		return false;
	for (size_t i = sizeof(word) - 1; i < n; i++) {
		if (line[i] < '0' || line[i] > '9')
			return false;
		v = v * 10 + (u64)(line[i] - '0');
		if (v >= UINT32_MAX) /* VMADDR_PORT_ANY */
			return false;
	}
	*port = (u32)v;
	return true;
}

/* What follows the line is the guest's: it stays in the socket. */
static void read_line(struct vsock_conn *c)
{
	char line[VSOCK_LINE_MAX];
	ssize_t n = recv(c->fd, line, sizeof(line), MSG_PEEK | MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	char *end = n > 0 ? memchr(line, '\n', (size_t)n) : NULL;
	if (!end && n > 0 && n < VSOCK_LINE_MAX)
		return; /* more comes; level-triggered, so a client that stops here costs wake-ups only as it writes */
	if (!end || !parse_connect(line, (size_t)(end - line), &c->guest_port) ||
	    recv(c->fd, line, (size_t)(end - line) + 1, MSG_DONTWAIT) != end - line + 1) {
		vsock_conn_free(c);
		return;
	}
	c->host_port = new_port(c->s);
	c->state = VSOCK_REQUESTED;
	c->owed = VSOCK_OWE_REQUEST;
	c->in_ready = true; /* nothing is read before the guest has accepted */
	watch(c);
}

void vsock_accepted(struct vsock_conn *c)
{
	char line[VSOCK_LINE_MAX];
	int n = snprintf(line, sizeof(line), "OK %u\n", c->host_port);
	c->state = VSOCK_OPEN;
	if (!c->hung_up && send(c->fd, line, (size_t)n, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
		log_msg(LOG_DEBUG, "virtio-vsock: a client left");
}

/* ---- events ---- */
static void on_socket(void *arg, u32 events)
{
	struct vsock_conn *c = arg;
	struct virtio_vsock *s = c->s;
	pthread_mutex_lock(&s->v.lock);
	if (c->state == VSOCK_LINE && (events & EPOLLIN)) {
		read_line(c);
	} else if (events & (EPOLLHUP | EPOLLERR)) {
		hang_up(c);
	} else {
		if (events & (EPOLLIN | EPOLLRDHUP))
			c->in_ready = true;
		if (events & EPOLLOUT)
			flush(c);
		watch(c);
		follow_guest(c);
	}
	vsock_pump(s);
	pthread_mutex_unlock(&s->v.lock);
}

static bool join(struct vsock_conn *c, u32 events)
{
	c->events = events;
	return loop_add(loop_of(c->s), c->fd, events, on_socket, c) == 0;
}

static void on_listen(void *arg, u32 events)
{
	struct virtio_vsock *s = arg;
	int fd = accept4(s->o.listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd < 0)
		return;
	pthread_mutex_lock(&s->v.lock);
	struct vsock_conn *c = conn_new(s, fd, VSOCK_LINE);
	if (!c)
		close(fd); /* as many as there may be */
	else if (!join(c, EPOLLIN))
		vsock_conn_free(c);
	pthread_mutex_unlock(&s->v.lock);
}

/* ---- the guest's requests ---- */
bool vsock_dial(struct virtio_vsock *s, const struct virtio_vsock_hdr *h)
{
	struct vsock_conn *c = s->o.dialer ? conn_new(s, -1, VSOCK_DIALING) : NULL;
	if (!c)
		return false;
	c->host_port = h->dst_port;
	c->guest_port = h->src_port;
	c->peer_alloc = h->buf_alloc;
	c->peer_fwd = h->fwd_cnt;
	if (dialer_ask(s->o.dialer, c->host_port, (u64)c->host_port << 32 | c->guest_port) == 0)
		return true;
	vsock_conn_free(c);
	return false;
}

static void refuse_dialed(struct vsock_conn *c)
{
	const struct vsock_reply r = {.host_port = c->host_port,
				      .guest_port = c->guest_port,
				      .host_cid = VSOCK_HOST_CID,
				      .type = VIRTIO_VSOCK_TYPE_STREAM};
	if (!vsock_reply_rst(c->s, &r))
		log_msg(LOG_DEBUG, "virtio-vsock: the guest takes no packets; it will time out");
	vsock_conn_free(c);
}

static void on_dialed(void *arg, u64 tag, int fd)
{
	struct virtio_vsock *s = arg;
	pthread_mutex_lock(&s->v.lock);
	struct vsock_conn *c = vsock_find(s, (u32)(tag >> 32), (u32)tag);
	if (!c || c->state != VSOCK_DIALING) {
		if (fd >= 0)
			close(fd); /* the guest has given up meanwhile */
	} else if (fd < 0) {
		refuse_dialed(c);
	} else {
		c->fd = fd;
		c->state = VSOCK_OPEN;
		c->owed = VSOCK_OWE_RESPONSE;
		if (!join(c, EPOLLIN | EPOLLRDHUP))
			refuse_dialed(c);
	}
	vsock_pump(s);
	pthread_mutex_unlock(&s->v.lock);
}

/* ---- lifecycle ---- */
int vsock_host_start(struct virtio_vsock *s)
{
	int e = s->o.listen_fd >= 0 ? loop_add(loop_of(s), s->o.listen_fd, EPOLLIN, on_listen, s) : 0;
	if (e || !s->o.dialer)
		return e;
	e = dialer_attach(s->o.dialer, loop_of(s), on_dialed, s);
	if (e && s->o.listen_fd >= 0)
		loop_del(loop_of(s), s->o.listen_fd);
	return e;
}

void vsock_host_stop(struct virtio_vsock *s)
{
	for (unsigned i = 0; i < VSOCK_CONNS_MAX; i++)
		if (s->conn[i])
			vsock_conn_free(s->conn[i]);
	if (s->o.listen_fd >= 0) {
		loop_del(loop_of(s), s->o.listen_fd);
		close(s->o.listen_fd);
	}
	if (s->o.dialer)
		dialer_stop(s->o.dialer);
}
