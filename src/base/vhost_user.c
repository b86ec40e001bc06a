/* Messages of vhost-user, whole or not at all. */
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/vhost_user.h"

_Static_assert(sizeof(struct vu_header) == VU_HEADER_BYTES, "the wire's layout");
_Static_assert(sizeof(struct vu_config) == VU_PAYLOAD_MAX, "the largest payload");
_Static_assert(sizeof(struct vu_mem_table) <= VU_PAYLOAD_MAX, "fits");

int vu_send(int sock, const struct vu_message *m)
{
	u8 bytes[VU_HEADER_BYTES + VU_PAYLOAD_MAX];
	union {
		struct cmsghdr align;
		char buf[CMSG_SPACE(VU_FDS_MAX * sizeof(int))];
	} control = {0};
	struct iovec iov = {.iov_base = bytes, .iov_len = VU_HEADER_BYTES + m->h.size};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

	memcpy(bytes, &m->h, VU_HEADER_BYTES);
	memcpy(bytes + VU_HEADER_BYTES, m->payload, m->h.size);
	if (m->n_fds) {
		msg.msg_control = control.buf;
		msg.msg_controllen = CMSG_SPACE(m->n_fds * sizeof(int));
		struct cmsghdr *c = CMSG_FIRSTHDR(&msg);

		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(m->n_fds * sizeof(int));
		memcpy(CMSG_DATA(c), m->fds, m->n_fds * sizeof(int));
	}
	while (iov.iov_len) {
		ssize_t n = sendmsg(sock, &msg, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		iov.iov_base = (u8 *)iov.iov_base + n;
		iov.iov_len -= (size_t)n;
		msg.msg_control = NULL;
		msg.msg_controllen = 0;
	}
	return 0;
}

static void take_fds(struct vu_message *m, struct msghdr *msg)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		for (size_t i = 0; i < n; i++) {
			int fd = -1;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
			if (m->n_fds < VU_FDS_MAX)
				m->fds[m->n_fds++] = fd;
			else
				close(fd);
		}
	}
}

/* n more bytes to p, and whatever descriptors come with them */
static int receive_bytes(int sock, struct vu_message *m, void *p, size_t n, u64 deadline)
{
	u8 *at = p;

	while (n) {
		union {
			struct cmsghdr align;
			char buf[CMSG_SPACE(VU_FDS_MAX * sizeof(int))];
		} control;
		struct iovec iov = {.iov_base = at, .iov_len = n};
		struct msghdr msg = {.msg_iov = &iov,
				     .msg_iovlen = 1,
				     .msg_control = control.buf,
				     .msg_controllen = sizeof(control)};
		struct pollfd pfd = {.fd = sock, .events = POLLIN};
		u64 now = deadline ? now_ms() : 0;
		int ready = poll(&pfd, 1, deadline ? (int)(deadline > now ? deadline - now : 0) : -1);

		if (ready < 0 && errno == EINTR)
			continue;
		if (ready <= 0)
			return ready ? -errno : -ETIMEDOUT;
		ssize_t got = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);

		if (got < 0 && (errno == EINTR || errno == EAGAIN))
			continue;
		if (got <= 0)
			return got ? -errno : -ECONNRESET;
		take_fds(m, &msg);
		at += got;
		n -= (size_t)got;
	}
	return 0;
}

int vu_receive(int sock, struct vu_message *m, int timeout_ms)
{
	u64 deadline = timeout_ms < 0 ? 0 : now_ms() + (u64)timeout_ms;

	memset(m, 0, sizeof(*m));
	int ret = receive_bytes(sock, m, &m->h, VU_HEADER_BYTES, deadline);

	if (!ret && (m->h.size > VU_PAYLOAD_MAX || (m->h.flags & VU_VERSION_MASK) != VU_VERSION))
		ret = -EPROTO;
	if (!ret)
		ret = receive_bytes(sock, m, m->payload, m->h.size, deadline);
	if (ret)
		vu_close_fds(m);
	return ret;
}

void vu_close_fds(struct vu_message *m)
{
	for (unsigned i = 0; i < m->n_fds; i++)
		if (m->fds[i] >= 0)
			close(m->fds[i]);
	m->n_fds = 0;
}
