/*
 * Standard input and output as a chardev. The descriptors are shared with other processes (a shell, a
 * pipeline), so they are not made non-blocking: a terminal or pipe is opened again through /proc, which gives
 * a file description of our own; a socket is written without waiting; what can be neither is asked by poll
 * before each small write.
 */
#include "backends/chardev_stdio.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include "backends/chardev_fd.h"

struct chardev_stdio {
	struct chardev_fd fd;
	struct chardev_stdio_config config;
	bool is_terminal, raw, escaped;
	struct termios saved;
	int winch; /* signalfd; -1: none */
};

static struct chardev_stdio *stdio_of(struct chardev *base)
{
	return container_of(base, struct chardev_stdio, fd.base);
}

/* Our own way to what fd is: *non_blocking says whether a write can never wait. */
static int own(int fd, int mode, bool *non_blocking)
{
	struct stat st;
	char path[32];
	*non_blocking = false;
	if (fstat(fd, &st))
		return -errno;
	if (S_ISCHR(st.st_mode) || S_ISFIFO(st.st_mode)) {
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		int n = open(path, mode | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
		if (n >= 0) {
			*non_blocking = true;
			return n;
		}
	}
	int n = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	if (n < 0)
		return -errno;
	*non_blocking = S_ISREG(st.st_mode) || S_ISSOCK(st.st_mode);
	return n;
}

static bool is_socket(int fd)
{
	struct stat st;
	return fstat(fd, &st) == 0 && S_ISSOCK(st.st_mode);
}

/* ---- the escape key ---- */
static size_t filter_escape(struct chardev_fd *fd, u8 *p, size_t n)
{
	struct chardev_stdio *s = container_of(fd, struct chardev_stdio, fd);
	size_t out = 0;
	for (size_t i = 0; i < n; i++) {
		bool escape = p[i] == s->config.escape;
		if (s->escaped && !escape && s->config.on_escape)
			s->config.on_escape(s->config.arg, p[i]);
		else if (s->escaped || !escape)
			p[out++] = p[i];
		s->escaped = !s->escaped && escape;
	}
	return out;
}

static void input_ended(struct chardev_fd *fd)
{
	struct chardev_stdio *s = container_of(fd, struct chardev_stdio, fd);
	if (s->config.on_end)
		s->config.on_end(s->config.arg);
}

/* ---- size ---- */
static void report_size(struct chardev_stdio *s)
{
	struct winsize w;
	const struct chardev_sink *k = s->fd.base.sink;
	if (s->is_terminal && k && k->resized && ioctl(s->config.in, TIOCGWINSZ, &w) == 0)
		k->resized(s->fd.base.dev, w.ws_col, w.ws_row);
}

static void on_winch(void *arg, u32 events)
{
	struct chardev_stdio *s = arg;
	struct signalfd_siginfo info;
	if (read(s->winch, &info, sizeof(info)) == sizeof(info))
		report_size(s);
}

static void watch_size(struct chardev_stdio *s)
{
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGWINCH);
	if (pthread_sigmask(SIG_BLOCK, &set, NULL))
		return;
	s->winch = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
	if (s->winch >= 0 && loop_add(s->fd.loop, s->winch, EPOLLIN, on_winch, s)) {
		close(s->winch);
		s->winch = -1;
	}
}

/* ---- lifecycle ---- */
static int make_raw(struct chardev_stdio *s, struct err *e)
{
	struct termios t;
	if (tcgetattr(s->config.in, &s->saved))
		return err_set(e, errno, "terminal: cannot read its mode: %s", strerror(errno));
	t = s->saved;
	cfmakeraw(&t);
	t.c_oflag |= OPOST; /* log lines of ours share the screen: keep newlines whole */
	if (tcsetattr(s->config.in, TCSADRAIN, &t))
		return err_set(e, errno, "terminal: cannot set raw mode: %s", strerror(errno));
	s->raw = true;
	return 0;
}

void chardev_stdio_restore(struct chardev *c)
{
	struct chardev_stdio *s = stdio_of(c);
	if (s->raw)
		tcsetattr(s->config.in, TCSADRAIN, &s->saved);
	s->raw = false;
}

static void stdio_attached(struct chardev *c)
{
	struct chardev_stdio *s = stdio_of(c);
	if (c->sink->opened)
		c->sink->opened(c->dev, true);
	report_size(s);
	chardev_fd_resume(c);
}

static void stdio_destroy(struct chardev *c)
{
	struct chardev_stdio *s = stdio_of(c);
	chardev_fd_flush(&s->fd, 500);
	chardev_stdio_restore(c);
	if (s->winch >= 0) {
		loop_del(s->fd.loop, s->winch);
		close(s->winch);
	}
	chardev_fd_fini(&s->fd);
	free(s);
}

static const struct chardev_ops stdio_ops = {.write = chardev_fd_write,
					     .resume = chardev_fd_resume,
					     .attached = stdio_attached,
					     .destroy = stdio_destroy};

static int connect_both(struct chardev_stdio *s, struct err *e)
{
	bool in_ok, out_ok;
	int in = s->config.in < 0 ? -1 : own(s->config.in, O_RDONLY, &in_ok);
	int out = own(s->config.out, O_WRONLY, &out_ok);
	if (out < 0) {
		if (in >= 0)
			close(in);
		return err_set(e, -out, "standard output: %s", strerror(-out));
	}
	s->fd.out_may_block = !out_ok;
	s->fd.out_socket = is_socket(out);
	int r = chardev_fd_connect(&s->fd, in >= 0 ? in : -1, out); /* closed standard input: output only */
	return r ? err_set(e, -r, "standard input: cannot watch: %s", strerror(-r)) : 0;
}

int chardev_stdio_create(struct loop *l, const struct chardev_stdio_config *c, struct chardev **out,
			 struct err *e)
{
	struct chardev_stdio *s = calloc(1, sizeof(*s));
	if (!s)
		return err_set(e, ENOMEM, "terminal: out of memory");
	s->config = *c;
	s->winch = -1;
	int r = chardev_fd_init(&s->fd, l, &stdio_ops);
	if (r) {
		free(s);
		return err_set(e, -r, "terminal: %s", strerror(-r));
	}
	s->fd.filter = c->escape ? filter_escape : NULL;
	s->fd.ended = input_ended;
	s->is_terminal = c->in >= 0 && isatty(c->in);
	r = connect_both(s, e);
	if (!r && s->is_terminal && c->raw)
		r = make_raw(s, e);
	if (r) {
		chardev_fd_fini(&s->fd);
		free(s);
		return r;
	}
	if (s->is_terminal)
		watch_size(s);
	*out = &s->fd.base;
	return 0;
}
