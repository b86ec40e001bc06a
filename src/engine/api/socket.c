/*
 * The VM socket: one message in, one answer out, on the main thread. When the VMM is gone, the engine goes.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "engine/api/api.h"
#include "engine/lib/lib.h"
#include "engine/lib/loop.h"

static struct {
	int sock, attr_fd;
	u8 buf[KVMW_MSG_MAX];
} api = {.sock = -1, .attr_fd = -1};

static void receive_fds(struct msghdr *m, struct api_call *c)
{
	for (struct cmsghdr *h = CMSG_FIRSTHDR(m); h; h = CMSG_NXTHDR(m, h)) {
		unsigned n = (unsigned)((h->cmsg_len - CMSG_LEN(0)) / sizeof(int));
		int fds[KVMW_FDS_MAX];

		if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS)
			continue;
		n = MIN(n, KVMW_FDS_MAX);
		memcpy(fds, CMSG_DATA(h), n * sizeof(int));
		for (unsigned i = 0; i < n; i++) {
			if (c->nfds < KVMW_FDS_MAX)
				c->fds[c->nfds++] = fds[i];
			else
				close(fds[i]);
		}
	}
}

static void answer(s64 ret, const struct api_call *c)
{
	struct kvmw_rep rep = {.ret = ret, .size = ret < 0 && ret != -E2BIG ? 0 : c->size, .nfds = c->reply_fd >= 0};
	struct iovec iov[2] = {{&rep, sizeof(rep)}, {c->buf, rep.size}};
	char cbuf[CMSG_SPACE(sizeof(int))] __attribute__((aligned(8))) = {0};
	struct msghdr m = {.msg_iov = iov, .msg_iovlen = 2};
	ssize_t n;

	if (c->reply_fd >= 0) {
		struct cmsghdr *h;

		m.msg_control = cbuf;
		m.msg_controllen = sizeof(cbuf);
		h = CMSG_FIRSTHDR(&m);
		h->cmsg_level = SOL_SOCKET;
		h->cmsg_type = SCM_RIGHTS;
		h->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(h), &c->reply_fd, sizeof(int));
	}
	while ((n = sendmsg(api.sock, &m, MSG_NOSIGNAL)) < 0 && errno == EINTR)
		;
	if (n < 0)
		_exit(0);
}

static s64 handle(const struct kvmw_req *q, struct api_call *c)
{
	if (q->object == KVMW_SYSTEM)
		return api_dispatch(api_system_rows, api_system_count, q->ioctl, c);
	if (q->object == KVMW_VM)
		return api_dispatch(api_vm_rows, api_vm_count, q->ioctl, c);
	return -EINVAL;
}

static void on_message(void *arg)
{
	struct kvmw_req q;
	char cbuf[CMSG_SPACE(sizeof(int) * KVMW_FDS_MAX)] __attribute__((aligned(8)));
	struct iovec iov[2] = {{&q, sizeof(q)}, {api.buf, sizeof(api.buf)}};
	struct msghdr m = {.msg_iov = iov, .msg_iovlen = 2, .msg_control = cbuf, .msg_controllen = sizeof(cbuf)};
	struct api_call c = {.vm = the_vm(), .buf = api.buf, .room = sizeof(api.buf) - 4096, .reply_fd = -1};
	ssize_t n = recvmsg(api.sock, &m, MSG_CMSG_CLOEXEC);
	s64 ret;

	(void)arg;
	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return;
	if (n < (ssize_t)sizeof(q))
		_exit(0); /* the VMM closed its end */
	receive_fds(&m, &c);
	c.arg = q.arg;
	c.size = (u32)((u64)n - sizeof(q));
	if (q.size > c.size)
		ret = -EINVAL;
	else
		ret = handle(&q, &c);
	for (u32 i = 0; i < c.nfds; i++)
		if (c.fds[i] >= 0)
			close(c.fds[i]);
	answer(ret, &c);
}

int api_attr_fd(void)
{
	return api.attr_fd;
}

int api_init(int sock)
{
	int fd = memfd_create("page-attributes", MFD_CLOEXEC);
	void *p;

	api.sock = sock;
	if (fd < 0 || ftruncate(fd, ENG_ATTR_SIZE) < 0)
		return -errno;
	p = mmap((void *)ENG_ATTR_BASE, ENG_ATTR_SIZE, PROT_READ | PROT_WRITE,
		 MAP_SHARED | MAP_NORESERVE | MAP_FIXED_NOREPLACE, fd, 0);
	if (p != (void *)ENG_ATTR_BASE)
		return -ENOMEM;
	api.attr_fd = fd;
	return 0;
}

void api_serve(void)
{
	fcntl(api.sock, F_SETFD, FD_CLOEXEC);
	if (loop_add(api.sock, on_message, NULL) < 0)
		eng_panic("doppel-engine: cannot watch the socket");
}
