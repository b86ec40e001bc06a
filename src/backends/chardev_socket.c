/*
 * UNIX stream socket as a chardev. While nobody is connected output vanishes; a second peer waits in the
 * listen queue until the first has gone. The device hears of a peer's coming and going (sink->opened).
 */
#include "backends/chardev_socket.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "backends/chardev_fd.h"

struct chardev_socket {
	struct chardev_fd fd;
	int listen; /* -1: none */
	bool listening, connected;
	struct sockaddr_un addr;
};

static struct chardev_socket *socket_of(struct chardev *base)
{
	return container_of(base, struct chardev_socket, fd.base);
}

static void on_connection(void *arg, u32 events);

static void listen_on(struct chardev_socket *s, bool on)
{
	if (s->listen < 0 || on == s->listening)
		return;
	if (on)
		s->listening = loop_add(s->fd.loop, s->listen, EPOLLIN, on_connection, s) == 0;
	else
		loop_del(s->fd.loop, s->listen);
	if (!on)
		s->listening = false;
}

static void tell_opened(struct chardev_socket *s)
{
	const struct chardev_sink *k = s->fd.base.sink;
	if (k && k->opened)
		k->opened(s->fd.base.dev, s->connected);
}

/* The stream's two directions are two descriptors: each is in the loop on its own. */
static int use_stream(struct chardev_socket *s, int fd)
{
	int out = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	if (out < 0) {
		int r = -errno;
		close(fd);
		return r;
	}
	s->connected = true;
	int r = chardev_fd_connect(&s->fd, fd, out);
	if (r) {
		chardev_fd_disconnect(&s->fd);
		s->connected = false;
	}
	return r;
}

static void on_connection(void *arg, u32 events)
{
	struct chardev_socket *s = arg;
	int fd = accept4(s->listen, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (fd < 0 || use_stream(s, fd))
		return;
	listen_on(s, false);
	tell_opened(s);
}

static void peer_gone(struct chardev_fd *fd)
{
	struct chardev_socket *s = container_of(fd, struct chardev_socket, fd);
	s->connected = false;
	chardev_fd_disconnect(fd);
	tell_opened(s);
	listen_on(s, true);
}

static void socket_attached(struct chardev *c)
{
	struct chardev_socket *s = socket_of(c);
	if (s->connected)
		tell_opened(s);
	chardev_fd_resume(c);
}

static void socket_destroy(struct chardev *c)
{
	struct chardev_socket *s = socket_of(c);
	listen_on(s, false);
	chardev_fd_flush(&s->fd, 200);
	chardev_fd_fini(&s->fd);
	if (s->listen >= 0) {
		close(s->listen);
		unlink(s->addr.sun_path);
	}
	free(s);
}

static const struct chardev_ops socket_ops = {.write = chardev_fd_write,
					      .resume = chardev_fd_resume,
					      .attached = socket_attached,
					      .destroy = socket_destroy};

/* A socket file whose owner died refuses connections; one that answers belongs to somebody. */
static bool stale(const struct sockaddr_un *a)
{
	struct stat st;
	if (lstat(a->sun_path, &st) || !S_ISSOCK(st.st_mode))
		return false;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return false;
	bool refused = connect(fd, (const struct sockaddr *)a, sizeof(*a)) && errno == ECONNREFUSED;
	close(fd);
	return refused;
}

static int bind_private(int fd, const struct sockaddr_un *a)
{
	mode_t old = umask(0177);
	int r = bind(fd, (const struct sockaddr *)a, sizeof(*a)) ? -errno : 0;
	umask(old);
	return r;
}

static int open_listener(struct chardev_socket *s, const char *path, struct err *e)
{
	if (strlen(path) >= sizeof(s->addr.sun_path))
		return err_set(e, ENAMETOOLONG, "%s: too long for a socket (at most %zu bytes)", path,
			       sizeof(s->addr.sun_path) - 1);
	s->addr.sun_family = AF_UNIX;
	memcpy(s->addr.sun_path, path, strlen(path) + 1);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return err_set(e, errno, "%s: %s", path, strerror(errno));
	if (stale(&s->addr))
		unlink(path);
	int r = bind_private(fd, &s->addr);
	if (!r && listen(fd, 4))
		r = -errno;
	if (r) {
		close(fd);
		return err_set(e, -r, "%s: cannot listen: %s", path, strerror(-r));
	}
	s->listen = fd;
	listen_on(s, true);
	return 0;
}

int chardev_socket_create(struct loop *l, const struct chardev_socket_config *c, struct chardev **out,
			  struct err *e)
{
	const char *name = c->path ? c->path : "socket";
	struct chardev_socket *s = calloc(1, sizeof(*s));
	if (!s)
		return err_set(e, ENOMEM, "%s: out of memory", name);
	s->listen = -1;
	int r = chardev_fd_init(&s->fd, l, &socket_ops);
	if (r) {
		free(s);
		return err_set(e, -r, "%s: %s", name, strerror(-r));
	}
	s->fd.out_socket = true;
	s->fd.ended = peer_gone;
	if (c->path) {
		r = open_listener(s, c->path, e);
	} else {
		fcntl(c->fd, F_SETFL, O_NONBLOCK);
		r = use_stream(s, c->fd);
		if (r)
			err_set(e, -r, "socket: %s", strerror(-r));
	}
	if (r) {
		chardev_fd_fini(&s->fd);
		free(s);
		return r;
	}
	*out = &s->fd.base;
	return 0;
}
