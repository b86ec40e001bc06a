/*
 * Sessions and the ring. The guest never waits for a session: a session that does not drain its socket falls behind in the ring
 * and, when the ring has lapped it, loses the oldest bytes. The foreground session is different: while it is there, the guest's UART
 * waits for it (a pipe such as `doppel run | less` must not lose output).
 *
 * Lock order: UART lock, then c->lock. Sink callbacks are made without c->lock.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include "vmm/console.h"

enum { RING_SIZE = 1 << 18, SESSIONS_MAX = 16, INPUT_MAX = 512, CTRL_BRACKET = 0x1d };

struct session {
	struct session *next;
	struct console *c;
	struct console_session_options o;
	u64 sent;            /* position in the stream of all output; under c->lock */
	u64 until;           /* with o.once: where it ends */
	bool out_armed;      /* EPOLLOUT on out: under c->lock */
	bool pollable;       /* out is something epoll takes; files are not */
	bool in_paused;
	bool in_eof;
	bool in_file;        /* a plain file: read whenever the guest takes input, epoll has no part in it */
	int in_poll, out_poll; /* our own duplicates: in and out may be one file */
	struct escape escape;
	u8 pending[INPUT_MAX]; /* typed, not yet taken by the guest */
	size_t npending;
	bool quit_after;
};

struct console {
	struct chardev chardev;
	struct loop *loop;
	pthread_mutex_t lock;
	u8 *ring;
	u64 head;              /* bytes ever written */
	bool short_write;      /* the device waits for room */
	struct session *sessions;
	u32 nsessions;
	bool flush_queued;
};

size_t escape_filter(struct escape *e, u8 *p, size_t n, bool *quit)
{
	size_t out = 0;

	for (size_t i = 0; i < n && !*quit; i++) {
		if (e->armed) {
			e->armed = false;
			if (p[i] == 'q' || p[i] == 'Q')
				*quit = true;
			else
				p[out++] = p[i]; /* Ctrl-] Ctrl-] sends one */
		} else if (p[i] == CTRL_BRACKET) {
			e->armed = true;
		} else {
			p[out++] = p[i];
		}
	}
	return out;
}

static void session_end(struct session *s)
{
	struct console *c = s->c;
	void (*ended)(void *arg) = s->o.ended;
	void *arg = s->o.arg;

	if (!s->in_eof)
		loop_del(c->loop, s->in_poll);
	if (s->pollable && s->out_poll != s->in_poll)
		loop_del(c->loop, s->out_poll);
	pthread_mutex_lock(&c->lock);
	for (struct session **p = &c->sessions; *p; p = &(*p)->next) {
		if (*p == s) {
			*p = s->next;
			c->nsessions--;
			break;
		}
	}
	pthread_mutex_unlock(&c->lock);
	close(s->in_poll);
	close(s->out_poll);
	if (s->o.owned) {
		close(s->o.in);
		if (s->o.out != s->o.in)
			close(s->o.out);
	}
	free(s);
	if (ended)
		ended(arg);
}

/* Sends what the ring has for the session; false when its peer is gone. */
static bool session_flush_locked(struct session *s)
{
	struct console *c = s->c;

	if (c->head - s->sent > RING_SIZE)
		s->sent = c->head - RING_SIZE;
	while (s->sent < c->head) {
		u64 at = s->sent % RING_SIZE, n = MIN(c->head - s->sent, RING_SIZE - at);
		struct pollfd pfd = {.fd = s->o.out, .events = POLLOUT};
		ssize_t r = 0;

		/* a terminal or pipe is shared and must stay blocking: when it polls ready, PIPE_BUF bytes do not block */
		if (poll(&pfd, 1, 0) == 0)
			break;
		r = write(s->o.out, c->ring + at, MIN(n, (u64)PIPE_BUF));

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0 && errno != EAGAIN)
			return false;
		if (r < 0)
			break;
		s->sent += (u64)r;
	}
	return !s->o.once || s->sent < s->until;
}

static u64 slowest_owned_by_vm_locked(struct console *c)
{
	u64 at = c->head;

	for (struct session *s = c->sessions; s; s = s->next)
		if (!s->o.owned)
			at = MIN(at, s->sent);
	return at;
}

static void arm_out(struct session *s, bool want)
{
	u32 in = s->in_paused || s->in_eof ? 0 : EPOLLIN;

	if (!s->pollable || s->out_armed == want)
		return;
	s->out_armed = want;
	loop_mod(s->c->loop, s->out_poll, (want ? EPOLLOUT : 0) | (s->out_poll == s->in_poll ? in : 0));
}

/* Main thread: pushes output to all sessions, buries those whose peer is gone, wakes a waiting device. */
static void flush_all(void *console)
{
	struct console *c = console;
	bool drained = false;

	for (;;) {
		struct session *gone = NULL;

		pthread_mutex_lock(&c->lock);
		c->flush_queued = false;
		for (struct session *s = c->sessions; s && !gone; s = s->next) {
			if (!session_flush_locked(s))
				gone = s;
			else
				arm_out(s, s->sent < c->head);
		}
		drained = !gone && c->short_write && c->head - slowest_owned_by_vm_locked(c) < RING_SIZE / 2;
		if (drained)
			c->short_write = false;
		pthread_mutex_unlock(&c->lock);
		if (!gone)
			break;
		session_end(gone);
	}
	if (drained && c->chardev.sink && c->chardev.sink->drained)
		c->chardev.sink->drained(c->chardev.dev);
}

/* ---- chardev: from the device, any thread ---- */
static size_t con_write(struct chardev *chardev, const u8 *p, size_t n)
{
	struct console *c = container_of(chardev, struct console, chardev);
	u64 room = 0;
	bool queue = false;

	pthread_mutex_lock(&c->lock);
	room = RING_SIZE - (c->head - slowest_owned_by_vm_locked(c));
	if (n > room) {
		n = room;
		c->short_write = true;
	}
	for (size_t i = 0; i < n; i++)
		c->ring[(c->head + i) % RING_SIZE] = p[i];
	c->head += n;
	queue = !c->flush_queued;
	c->flush_queued = true;
	pthread_mutex_unlock(&c->lock);
	if (queue)
		loop_call(c->loop, flush_all, c);
	return n;
}

/* Gives the guest what was typed; stops reading while it does not take it. */
static void push_input(struct session *s)
{
	struct chardev *d = &s->c->chardev;
	size_t took = s->npending;

	if (d->sink)
		took = d->sink->input(d->dev, s->pending, s->npending);
	memmove(s->pending, s->pending + took, s->npending - took);
	s->npending -= took;
	if (s->in_paused == (s->npending > 0))
		return;
	s->in_paused = s->npending > 0;
	if (!s->in_eof)
		loop_mod(s->c->loop, s->in_poll,
			 (s->in_paused ? 0 : EPOLLIN) | (s->out_poll == s->in_poll && s->out_armed ? EPOLLOUT : 0));
}

/* Feeds a plain file until the guest stops taking it. */
static void feed_file(struct session *s)
{
	while (s->in_file && !s->npending) {
		ssize_t n = read(s->o.in, s->pending, sizeof(s->pending));

		if (n <= 0) {
			s->in_file = false;
			break;
		}
		s->npending = (size_t)n;
		push_input(s);
	}
}

static void resume_input(void *console)
{
	struct console *c = console;

	for (struct session *s = c->sessions; s; s = s->next) {
		if (s->npending)
			push_input(s);
		feed_file(s);
	}
}

static void con_resume(struct chardev *chardev)
{
	struct console *c = container_of(chardev, struct console, chardev);

	loop_call(c->loop, resume_input, c);
}

static void con_attached(struct chardev *chardev)
{
	if (chardev->sink->opened)
		chardev->sink->opened(chardev->dev, true);
}

static void con_destroy(struct chardev *chardev)
{
	console_free(container_of(chardev, struct console, chardev));
}

static const struct chardev_ops con_ops = {
	.write = con_write, .resume = con_resume, .attached = con_attached, .destroy = con_destroy};

/* ---- sessions ---- */
static void input_ended(struct session *s)
{
	loop_del(s->c->loop, s->in_poll);
	s->in_eof = true;
	if (s->o.owned)
		session_end(s); /* a console client that hangs up; the foreground one reads on: its input may be /dev/null */
}

static void session_input(struct session *s)
{
	ssize_t n = read(s->o.in, s->pending + s->npending, sizeof(s->pending) - s->npending);
	bool quit = false;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		input_ended(s);
		return;
	}
	if (s->o.once)
		return;
	if (s->o.escapes)
		n = (ssize_t)escape_filter(&s->escape, s->pending + s->npending, (size_t)n, &quit);
	s->npending += (size_t)n;
	push_input(s);
	if (quit)
		session_end(s);
}

static void session_event(void *arg, u32 events)
{
	struct session *s = arg;
	struct console *c = s->c;
	bool in = !s->in_eof && !s->in_paused && (events & (EPOLLIN | EPOLLHUP | EPOLLERR));

	if (in)
		session_input(s); /* s may be gone after this */
	if (events & EPOLLOUT)
		flush_all(c);
}

static void session_out_event(void *arg, u32 events)
{
	struct session *s = arg;

	flush_all(s->c);
}

int console_session_add(struct console *c, const struct console_session_options *o)
{
	struct session *s = NULL;
	int ret = 0;

	if (c->nsessions >= SESSIONS_MAX)
		return -EBUSY;
	s = calloc(1, sizeof(*s));
	if (!s)
		return -ENOMEM;
	*s = (struct session){.c = c, .o = *o};
	s->in_poll = fcntl(o->in, F_DUPFD_CLOEXEC, 3);
	s->out_poll = o->in == o->out ? s->in_poll : fcntl(o->out, F_DUPFD_CLOEXEC, 3);
	if (s->in_poll < 0 || s->out_poll < 0) {
		ret = -errno;
		goto fail;
	}
	pthread_mutex_lock(&c->lock);
	s->sent = o->replay ? c->head - MIN(c->head, (u64)RING_SIZE) : c->head;
	s->until = c->head;
	s->next = c->sessions;
	c->sessions = s;
	c->nsessions++;
	pthread_mutex_unlock(&c->lock);
	/* epoll refuses plain files: they are always ready */
	ret = loop_add(c->loop, s->in_poll, EPOLLIN, session_event, s);
	s->in_eof = s->in_file = ret == -EPERM;
	if (s->in_file)
		loop_call(c->loop, resume_input, c);
	if (s->out_poll == s->in_poll)
		s->pollable = !ret;
	else
		s->pollable = loop_add(c->loop, s->out_poll, 0, session_out_event, s) == 0;
	loop_call(c->loop, flush_all, c);
	return 0;
fail:
	if (s->in_poll >= 0)
		close(s->in_poll);
	free(s);
	return ret;
}

size_t console_tail(struct console *c, char *buf, size_t n)
{
	u64 from = 0;

	pthread_mutex_lock(&c->lock);
	n = MIN(n, (size_t)MIN(c->head, (u64)RING_SIZE));
	from = c->head - n;
	for (size_t i = 0; i < n; i++)
		buf[i] = (char)c->ring[(from + i) % RING_SIZE];
	pthread_mutex_unlock(&c->lock);
	return n;
}

struct console *console_new(struct loop *l)
{
	struct console *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	c->ring = malloc(RING_SIZE);
	if (!c->ring) {
		free(c);
		return NULL;
	}
	c->chardev.ops = &con_ops;
	c->loop = l;
	pthread_mutex_init(&c->lock, NULL);
	return c;
}

void console_free(struct console *c)
{
	if (!c)
		return;
	flush_all(c);
	while (c->sessions) {
		c->sessions->o.ended = NULL;
		session_end(c->sessions);
	}
	pthread_mutex_destroy(&c->lock);
	free(c->ring);
	free(c);
}

struct chardev *console_chardev(struct console *c)
{
	return &c->chardev;
}
