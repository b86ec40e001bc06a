/*
 * The VM's side of a spooled device. The files are made by a process of its own (spooler.c), which can do nothing
 * else, and to which the VM can only send messages: one byte that says what follows, then data.
 */
#include "backends/chardev_spool.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "backends/spooler.h"

struct chardev_spool {
	struct chardev base;
	struct loop *loop;
	int fd;
	pid_t pid;
	pthread_mutex_t lock;
	char pending; /* SPOOL_END or SPOOL_DROP that did not fit */
	bool short_write, dead;
	bool waits; /* for room: the guest leaves the device */
};

static struct chardev_spool *spool_of(struct chardev *c)
{
	return container_of(c, struct chardev_spool, base);
}

/* False: no room now. A dead spooler takes everything. */
static bool send_locked(struct chardev_spool *s, char what, const void *p, size_t n)
{
	struct iovec iov[2] = {{&what, 1}, {(void *)p, n}};
	struct msghdr m = {.msg_iov = iov, .msg_iovlen = n ? 2 : 1};
	ssize_t r = 0;
	if (s->dead)
		return true;
	do
		r = sendmsg(s->fd, &m, (s->waits ? 0 : MSG_DONTWAIT) | MSG_NOSIGNAL);
	while (r < 0 && s->waits && errno == EINTR);
	if (r >= 0)
		return true;
	if (errno == EAGAIN || errno == EWOULDBLOCK || errno == ENOBUFS || errno == EINTR) {
		s->short_write = true;
		loop_mod(s->loop, s->fd, EPOLLOUT);
		return false;
	}
	s->dead = true;
	log_msg(LOG_ERROR, "spool: its process has ended: jobs are lost");
	return true;
}

static size_t spool_write(struct chardev *c, const u8 *p, size_t n)
{
	struct chardev_spool *s = spool_of(c);
	size_t done = 0;
	pthread_mutex_lock(&s->lock);
	while (!s->pending && done < n) {
		size_t now = MIN(n - done, (size_t)SPOOL_DATA_MAX);
		if (!send_locked(s, SPOOL_DATA, p + done, now))
			break;
		done += now;
	}
	s->short_write |= done < n;
	pthread_mutex_unlock(&s->lock);
	return done;
}

static void spool_ended(struct chardev *c, bool complete)
{
	struct chardev_spool *s = spool_of(c);
	char what = complete ? SPOOL_END : SPOOL_DROP;
	pthread_mutex_lock(&s->lock);
	if (s->pending || !send_locked(s, what, NULL, 0))
		s->pending = what;
	pthread_mutex_unlock(&s->lock);
}

static void spool_ready(void *arg, u32 events)
{
	struct chardev_spool *s = arg;
	bool drained = false;
	pthread_mutex_lock(&s->lock);
	if (events & (EPOLLHUP | EPOLLERR)) {
		if (!s->dead)
			log_msg(LOG_ERROR, "spool: its process has ended: jobs are lost");
		s->dead = true;
		loop_del(s->loop, s->fd);
	} else {
		loop_mod(s->loop, s->fd, 0);
	}
	if (s->pending && send_locked(s, s->pending, NULL, 0))
		s->pending = 0;
	if (!s->pending) {
		drained = s->short_write;
		s->short_write = false;
	}
	pthread_mutex_unlock(&s->lock);
	if (drained && s->base.sink)
		s->base.sink->drained(s->base.dev);
}

/* The last jobs of a guest that powers off at once are complete jobs too. */
static void spool_settle(struct chardev *c, bool on)
{
	struct chardev_spool *s = spool_of(c);
	pthread_mutex_lock(&s->lock);
	s->waits = on;
	if (on && s->pending && send_locked(s, s->pending, NULL, 0))
		s->pending = 0;
	pthread_mutex_unlock(&s->lock);
}

static void spool_resume(struct chardev *c) {}

static void spool_attached(struct chardev *c)
{
	if (c->sink->opened)
		c->sink->opened(c->dev, true);
}

/* A job that was not ended is dropped by the spooler; those that were are files when this returns. */
static void spool_destroy(struct chardev *c)
{
	struct chardev_spool *s = spool_of(c);
	spool_settle(c, true);
	loop_del(s->loop, s->fd);
	close(s->fd);
	while (waitpid(s->pid, NULL, 0) < 0 && errno == EINTR)
		;
	pthread_mutex_destroy(&s->lock);
	free(s);
}

static const struct chardev_ops spool_ops = {.write = spool_write,
					     .resume = spool_resume,
					     .attached = spool_attached,
					     .ended = spool_ended,
					     .settle = spool_settle,
					     .destroy = spool_destroy};

static int start(struct chardev_spool *s, int dir, const char *vm)
{
	int fds[2];
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds))
		return -errno;
	s->pid = fork();
	if (!s->pid)
		spooler_main(fds[1], dir, vm);
	close(fds[1]);
	if (s->pid < 0) {
		close(fds[0]);
		return -errno;
	}
	s->fd = fds[0];
	return 0;
}

int chardev_spool_create(struct loop *l, const char *dir, const char *vm, struct chardev **out, struct err *e)
{
	struct chardev_spool *s = calloc(1, sizeof(*s));
	if (!s)
		return err_set(e, ENOMEM, "--spool: no memory");
	*s = (struct chardev_spool){.base.ops = &spool_ops, .loop = l, .fd = -1};
	pthread_mutex_init(&s->lock, NULL);
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int r = fd < 0 ? -errno : faccessat(fd, ".", W_OK, AT_EACCESS) ? -errno : 0;
	if (!r)
		r = start(s, fd, vm);
	if (fd >= 0)
		close(fd);
	if (!r) {
		r = loop_add(l, s->fd, 0, spool_ready, s);
		if (r) {
			close(s->fd);
			waitpid(s->pid, NULL, 0);
		}
	}
	if (r) {
		pthread_mutex_destroy(&s->lock);
		free(s);
		return err_set(e, -r, "--spool: %s: %s (give a directory that you may write to)", dir, strerror(-r));
	}
	*out = &s->base;
	return 0;
}
