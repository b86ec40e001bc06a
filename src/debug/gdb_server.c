/* Sockets of the gdb server, on the main loop. A second debugger is turned away; one that vanishes counts as detached. */
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>
#include "base/base.h"
#include "debug/gdb_server.h"

struct gdb_server {
	struct loop *loop;
	struct gdb *g;
	struct listener {
		struct gdb_server *s;
		int fd;
	} listener[GDB_LISTENERS_MAX];
	u32 nlisteners;
	int fd;            /* the debugger; -1: none */
	bool want_out;
};

static void hang_up(struct gdb_server *s)
{
	int fd = s->fd;

	if (fd < 0)
		return;
	s->fd = -1;
	loop_del(s->loop, fd);
	close(fd);
	gdb_detach(s->g);
}

void gdb_server_flush(struct gdb_server *s)
{
	size_t n = 0;
	const char *p = NULL;

	if (!s || s->fd < 0)
		return;
	while (p = gdb_output(s->g, &n), n) {
		ssize_t r = send(s->fd, p, n, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0 && errno != EAGAIN) {
			hang_up(s);
			return;
		}
		if (r < 0)
			break;
		gdb_output_taken(s->g, (size_t)r);
	}
	if (!n && gdb_wants_close(s->g)) {
		hang_up(s);
	} else if (s->want_out != (n > 0)) {
		s->want_out = n > 0;
		loop_mod(s->loop, s->fd, EPOLLIN | (n ? EPOLLOUT : 0));
	}
}

static void on_client(void *arg, u32 events)
{
	struct gdb_server *s = arg;
	u8 buf[4096];
	ssize_t n = 0;

	if (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
		n = recv(s->fd, buf, sizeof(buf), MSG_DONTWAIT);
		if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
			hang_up(s);
			return;
		}
		if (n > 0)
			gdb_input(s->g, buf, (size_t)n);
	}
	gdb_server_flush(s);
}

static void on_connect(void *arg, u32 events)
{
	struct listener *l = arg;
	struct gdb_server *s = l->s;
	int fd = accept4(l->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0)
		return;
	if (s->fd >= 0 || loop_add(s->loop, fd, EPOLLIN, on_client, s) < 0) {
		close(fd);
		return;
	}
	s->fd = fd;
	s->want_out = false;
	gdb_attach(s->g);
}

int gdb_server_new(struct loop *l, const struct gdb_target *t, struct gdb_server **out)
{
	struct gdb_server *s = calloc(1, sizeof(*s));

	if (!s)
		return -ENOMEM;
	*s = (struct gdb_server){.loop = l, .g = gdb_new(t), .fd = -1};
	if (!s->g) {
		free(s);
		return -ENOMEM;
	}
	*out = s;
	return 0;
}

int gdb_server_listen(struct gdb_server *s, int fd)
{
	struct listener *l = &s->listener[s->nlisteners];
	int ret = 0;

	if (s->nlisteners == GDB_LISTENERS_MAX)
		return -ENOSPC;
	*l = (struct listener){.s = s, .fd = fd};
	ret = loop_add(s->loop, fd, EPOLLIN, on_connect, l);
	if (!ret)
		s->nlisteners++;
	return ret;
}

struct gdb *gdb_server_session(struct gdb_server *s)
{
	return s->g;
}

bool gdb_server_connected(const struct gdb_server *s)
{
	return s && s->fd >= 0;
}

void gdb_server_free(struct gdb_server *s)
{
	if (!s)
		return;
	gdb_server_flush(s);
	if (s->fd >= 0) {
		loop_del(s->loop, s->fd);
		close(s->fd);
	}
	for (u32 i = 0; i < s->nlisteners; i++) {
		loop_del(s->loop, s->listener[i].fd);
		close(s->listener[i].fd);
	}
	gdb_free(s->g);
	free(s);
}
