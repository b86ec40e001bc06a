/* The socket to a VM (backends/net_proto.h). */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "net/net.h"

enum { SLOT = (LINK_MESSAGE_MAX + 63) & ~63 };

int link_in_init(struct link_in *in)
{
	void *p = mmap(NULL, (size_t)SLOT * NET_BATCH, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	*in = (struct link_in){.slots = p};
	return p == MAP_FAILED ? -errno : 0;
}

u8 *link_message(const struct link_in *in, unsigned i)
{
	return in->slots + (size_t)i * SLOT;
}

int link_receive(struct link_in *in, int fd)
{
	struct mmsghdr m[NET_BATCH];
	struct iovec iov[NET_BATCH];
	int got = 0;

	in->n = 0;
	for (unsigned i = 0; i < NET_BATCH; i++) {
		iov[i] = (struct iovec){.iov_base = link_message(in, i), .iov_len = LINK_MESSAGE_MAX};
		m[i] = (struct mmsghdr){.msg_hdr = {.msg_iov = &iov[i], .msg_iovlen = 1}};
	}
	do
		got = recvmmsg(fd, m, NET_BATCH, MSG_DONTWAIT, NULL);
	while (got < 0 && errno == EINTR);
	if (got < 0)
		return errno == EAGAIN ? -EAGAIN : -EPIPE;
	for (int i = 0; i < got; i++) {
		if (!m[i].msg_len)
			return -EPIPE; /* end of file; no one sends empty messages */
		in->len[in->n++] = m[i].msg_hdr.msg_flags & MSG_TRUNC || m[i].msg_len < NET_HDR ? 0 : m[i].msg_len;
	}
	return got ? 0 : -EPIPE;
}

void link_say(int fd, enum link_type type, const char *text)
{
	struct virtio_net_hdr_v1 h = {.num_buffers = (u16)type};
	struct iovec iov[2] = {{.iov_base = &h, .iov_len = sizeof(h)}, {.iov_base = (void *)text, .iov_len = strlen(text)}};
	struct msghdr m = {.msg_iov = iov, .msg_iovlen = 2};

	if (sendmsg(fd, &m, MSG_NOSIGNAL) < 0)
		exit(0); /* nobody is there any more */
}
