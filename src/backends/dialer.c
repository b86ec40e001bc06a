/*
 * The child holds a socket pair's end and nothing else. A request is {tag, port}; an answer {tag, errno}, with the
 * connection as SCM_RIGHTS when errno is 0. It ends when the other end closes.
 */
#include "backends/dialer.h"

#include <fcntl.h>
#include <linux/close_range.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/loop.h"

struct dialer {
	int fd;
	pid_t pid;
	struct loop *loop;
	dialer_cb *cb;
	void *arg;
};
struct request {
	u64 tag;
	u32 port;
};
struct answer {
	u64 tag;
	s32 error;
};
union control {
	struct cmsghdr align;
	char space[CMSG_SPACE(sizeof(int))];
};

/* ---- in the child ---- */
static int connect_to(const char *path, u32 port)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	if (snprintf(a.sun_path, sizeof(a.sun_path), "%s_%u", path, port) >= (int)sizeof(a.sun_path))
		return -ENAMETOOLONG;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	/* non-blocking: a full backlog refuses (EAGAIN), nobody waits for others */
	if (connect(fd, (struct sockaddr *)&a, sizeof(a)) == 0)
		return fd;
	int e = errno;
	close(fd);
	return -e;
}

static bool answer(int sock, u64 tag, int fd)
{
	struct answer a = {.tag = tag, .error = fd < 0 ? -fd : 0};
	union control control = {0};
	struct iovec iov = {.iov_base = &a, .iov_len = sizeof(a)};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
	if (fd >= 0) {
		m.msg_control = control.space;
		m.msg_controllen = sizeof(control.space);
		struct cmsghdr *c = CMSG_FIRSTHDR(&m);
		*c = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(fd))};
		memcpy(CMSG_DATA(c), &fd, sizeof(fd));
	}
	return sendmsg(sock, &m, MSG_NOSIGNAL) == (ssize_t)sizeof(a);
}

static void __attribute__((noreturn)) serve(int sock, const char *path)
{
	struct request r;
	sigset_t all;
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL); /* it ends with the VM, by its socket */
	sock = dup2(sock, 0);
	if (sock < 0 || close_range(1, ~0u, 0) < 0)
		_exit(1);
	prctl(PR_SET_NAME, "doppel-dialer");
	while (recv(sock, &r, sizeof(r), 0) == (ssize_t)sizeof(r)) {
		int fd = connect_to(path, r.port);
		bool told = answer(sock, r.tag, fd);
		if (fd >= 0)
			close(fd);
		if (!told)
			break;
	}
	_exit(0);
}

/* ---- in the VM's process ---- */
int dialer_start(const char *path, struct dialer **out, struct err *e)
{
	struct dialer *d = calloc(1, sizeof(*d));
	int pair[2];
	if (!d)
		return err_set(e, ENOMEM, "vsock: no memory");
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) {
		free(d);
		return err_set(e, errno, "vsock: no socket pair: %s", strerror(errno));
	}
	d->pid = fork();
	if (d->pid == 0)
		serve(pair[1], path);
	close(pair[1]);
	if (d->pid < 0) {
		int error = errno;
		close(pair[0]);
		free(d);
		return err_set(e, error, "vsock: cannot start a process: %s", strerror(error));
	}
	d->fd = pair[0];
	*out = d;
	return 0;
}

static int fd_in(struct msghdr *m)
{
	int fd = -1;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c))
		if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS && c->cmsg_len == CMSG_LEN(sizeof(fd)))
			memcpy(&fd, CMSG_DATA(c), sizeof(fd));
	return fd;
}

static void on_answer(void *arg, u32 events)
{
	struct dialer *d = arg;
	struct answer a;
	union control control;
	struct iovec iov = {.iov_base = &a, .iov_len = sizeof(a)};
	struct msghdr m = {.msg_iov = &iov,
			   .msg_iovlen = 1,
			   .msg_control = control.space,
			   .msg_controllen = sizeof(control.space)};
	ssize_t n = recvmsg(d->fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n != (ssize_t)sizeof(a)) {
		loop_del(d->loop, d->fd); /* it is gone: later requests fail at once */
		return;
	}
	int fd = fd_in(&m);
	d->cb(d->arg, a.tag, fd >= 0 ? fd : a.error ? -a.error : -EIO);
}

int dialer_attach(struct dialer *d, struct loop *l, dialer_cb *cb, void *arg)
{
	d->loop = l;
	d->cb = cb;
	d->arg = arg;
	return loop_add(l, d->fd, EPOLLIN, on_answer, d);
}

int dialer_ask(struct dialer *d, u32 port, u64 tag)
{
	const struct request r = {.tag = tag, .port = port};
	return send(d->fd, &r, sizeof(r), MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)sizeof(r) ? 0 : -EAGAIN;
}

void dialer_stop(struct dialer *d)
{
	if (d->loop)
		loop_del(d->loop, d->fd);
	close(d->fd);
	waitpid(d->pid, NULL, 0);
	free(d);
}
