/*
 * Chardevs on file descriptors. Output goes out at once when the descriptor takes it, else into a 64 KiB
 * buffer that the main loop empties; a full buffer is a short write. Input is read on the main loop; what the
 * device does not take stays in a 4 KiB buffer and nothing more is read (the descriptor leaves the loop: a
 * hang-up would wake it for ever) until the device resumes.
 */
#include "backends/chardev_fd.h"

#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CAUTIOUS = 512 }; /* bytes a ready pipe or terminal takes without blocking (POSIX PIPE_BUF) */

static void wake_up(struct chardev_fd *c)
{
	const u64 one = 1;
	if (write(c->wake, &one, sizeof(one)) != sizeof(one))
		return; /* full: awake already */
}

/* ---- output; lock held ---- */
/* Bytes taken, 0: not now, -1: nobody will ever read this again */
static ssize_t write_some(struct chardev_fd *c, const u8 *p, size_t n)
{
	struct pollfd pfd = {.fd = c->out, .events = POLLOUT};
	ssize_t r = 0;
	if (c->out_may_block) {
		if (poll(&pfd, 1, 0) != 1)
			return 0;
		n = MIN(n, (size_t)CAUTIOUS);
	}
	r = c->out_socket ? send(c->out, p, n, MSG_DONTWAIT | MSG_NOSIGNAL) : write(c->out, p, n);
	if (r >= 0)
		return r;
	return errno == EAGAIN || errno == EINTR ? 0 : -1;
}

static void forget_output(struct chardev_fd *c)
{
	if (c->out_watched)
		loop_del(c->loop, c->out);
	if (c->out >= 0)
		close(c->out);
	c->out = -1;
	c->out_watched = false;
	c->out_head = c->out_count = 0;
}

static void flush_locked(struct chardev_fd *c)
{
	while (c->out >= 0 && c->out_count) {
		size_t run = MIN(c->out_count, CHARDEV_OUT_SIZE - c->out_head);
		ssize_t n = write_some(c, c->out_buf + c->out_head, run);
		if (n < 0)
			forget_output(c);
		if (n <= 0)
			return;
		c->out_head = (c->out_head + (size_t)n) % CHARDEV_OUT_SIZE;
		c->out_count -= (size_t)n;
	}
}

static size_t buffer_locked(struct chardev_fd *c, const u8 *p, size_t n)
{
	n = MIN(n, CHARDEV_OUT_SIZE - c->out_count);
	for (size_t done = 0; done < n;) {
		size_t at = (c->out_head + c->out_count) % CHARDEV_OUT_SIZE;
		size_t run = MIN(n - done, CHARDEV_OUT_SIZE - at);
		memcpy(c->out_buf + at, p + done, run);
		c->out_count += run;
		done += run;
	}
	return n;
}

static void out_ready(void *arg, u32 events);

size_t chardev_fd_write(struct chardev *base, const u8 *p, size_t n)
{
	struct chardev_fd *c = container_of(base, struct chardev_fd, base);
	size_t done = 0;
	pthread_mutex_lock(&c->lock);
	if (c->out >= 0 && !c->out_count) {
		ssize_t r = write_some(c, p, n);
		if (r < 0)
			forget_output(c);
		done = r > 0 ? (size_t)r : 0;
	}
	if (c->out < 0)
		done = n; /* nobody there: it vanishes, as on an unplugged line */
	if (done < n) {
		done += buffer_locked(c, p + done, n - done);
		c->short_write |= done < n;
		if (!c->out_watched && !c->out_unpollable)
			c->out_watched = loop_add(c->loop, c->out, EPOLLOUT, out_ready, c) == 0;
		if (!c->out_watched)
			wake_up(c);
	}
	pthread_mutex_unlock(&c->lock);
	return done;
}

static void out_ready(void *arg, u32 events)
{
	struct chardev_fd *c = arg;
	pthread_mutex_lock(&c->lock);
	if (c->out >= 0 && (events & (EPOLLERR | EPOLLHUP)) && !(events & EPOLLOUT))
		forget_output(c);
	flush_locked(c);
	if (!c->out_count && c->out_watched) {
		loop_del(c->loop, c->out);
		c->out_watched = false;
	}
	bool drained = c->short_write && c->out_count < CHARDEV_OUT_SIZE / 2;
	if (drained)
		c->short_write = false;
	pthread_mutex_unlock(&c->lock);
	if (drained && c->base.sink)
		c->base.sink->drained(c->base.dev);
}

void chardev_fd_flush(struct chardev_fd *c, int timeout_ms)
{
	pthread_mutex_lock(&c->lock);
	flush_locked(c);
	while (c->out >= 0 && c->out_count && timeout_ms > 0) {
		struct pollfd pfd = {.fd = c->out, .events = POLLOUT};
		poll(&pfd, 1, MIN(timeout_ms, 20));
		timeout_ms -= 20;
		flush_locked(c);
	}
	pthread_mutex_unlock(&c->lock);
}

/* ---- input; loop thread ---- */
static void in_ready(void *arg, u32 events);

static void watch_input(struct chardev_fd *c, bool on)
{
	if (c->in_unpollable || c->in < 0 || on == c->in_watched)
		return;
	if (on)
		c->in_watched = loop_add(c->loop, c->in, EPOLLIN, in_ready, c) == 0;
	else
		loop_del(c->loop, c->in);
	if (!on)
		c->in_watched = false;
}

static void end_input(struct chardev_fd *c)
{
	watch_input(c, false);
	close(c->in);
	c->in = -1;
	if (c->ended)
		c->ended(c);
}

/* Hands the buffer to the device; false when it did not take all, and will resume. */
static bool feed(struct chardev_fd *c)
{
	while (c->in_count) {
		pthread_mutex_lock(&c->lock);
		c->resumed = false;
		pthread_mutex_unlock(&c->lock);
		size_t n =
		    c->base.sink ? c->base.sink->input(c->base.dev, c->in_buf + c->in_at, c->in_count) : 0;
		c->in_at += n;
		c->in_count -= n;
		if (!c->in_count)
			break;
		pthread_mutex_lock(&c->lock);
		bool again = c->resumed; /* it made room while we were on our way out */
		pthread_mutex_unlock(&c->lock);
		if (!again)
			return false;
	}
	return true;
}

static void pump(struct chardev_fd *c)
{
	c->paused = !feed(c);
	watch_input(c, !c->paused);
	if (!c->paused && c->in_unpollable && c->in >= 0)
		in_ready(c, EPOLLIN);
}

static void in_ready(void *arg, u32 events)
{
	struct chardev_fd *c = arg;
	if (c->in_count || c->in < 0)
		return;
	ssize_t n = read(c->in, c->in_buf, sizeof(c->in_buf));
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		end_input(c);
		return;
	}
	c->in_at = 0;
	c->in_count = c->filter ? c->filter(c, c->in_buf, (size_t)n) : (size_t)n;
	c->paused = !feed(c);
	watch_input(c, !c->paused);
	if (!c->paused && c->in_unpollable)
		wake_up(c); /* a plain file is always ready, but not to the exclusion of everything else */
}

void chardev_fd_resume(struct chardev *base)
{
	struct chardev_fd *c = container_of(base, struct chardev_fd, base);
	pthread_mutex_lock(&c->lock);
	c->resumed = true;
	pthread_mutex_unlock(&c->lock);
	wake_up(c);
}

static void on_wake(void *arg, u32 events)
{
	struct chardev_fd *c = arg;
	u64 n;
	if (read(c->wake, &n, sizeof(n)) != sizeof(n))
		return;
	out_ready(c, 0);
	pump(c);
}

/* ---- lifecycle ---- */
int chardev_fd_init(struct chardev_fd *c, struct loop *l, const struct chardev_ops *ops)
{
	c->base.ops = ops;
	c->loop = l;
	c->in = c->out = -1;
	c->wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (c->wake < 0)
		return -errno;
	int r = loop_add(l, c->wake, EPOLLIN, on_wake, c);
	if (r) {
		close(c->wake);
		return r;
	}
	pthread_mutex_init(&c->lock, NULL);
	return 0;
}

/* epoll refuses what is always ready (EPERM): plain files, /dev/null. */
static bool unpollable(struct chardev_fd *c, int fd)
{
	int r = loop_add(c->loop, fd, 0, out_ready, c);
	if (!r)
		loop_del(c->loop, fd);
	return r == -EPERM;
}

int chardev_fd_connect(struct chardev_fd *c, int in, int out)
{
	pthread_mutex_lock(&c->lock);
	c->out = out;
	c->out_unpollable = out >= 0 && unpollable(c, out);
	c->out_head = c->out_count = 0;
	pthread_mutex_unlock(&c->lock);
	c->in = in;
	c->in_unpollable = in >= 0 && unpollable(c, in);
	c->in_at = c->in_count = 0;
	c->paused = false;
	watch_input(c, true);
	if (c->in_unpollable)
		wake_up(c);
	return in >= 0 && !c->in_unpollable && !c->in_watched ? -EIO : 0;
}

void chardev_fd_disconnect(struct chardev_fd *c)
{
	watch_input(c, false);
	if (c->in >= 0)
		close(c->in);
	c->in = -1;
	c->in_count = 0;
	pthread_mutex_lock(&c->lock);
	forget_output(c);
	pthread_mutex_unlock(&c->lock);
	wake_up(c); /* a writer may be waiting for room: it has all of it now */
}

void chardev_fd_fini(struct chardev_fd *c)
{
	chardev_fd_disconnect(c);
	loop_del(c->loop, c->wake);
	close(c->wake);
	pthread_mutex_destroy(&c->lock);
}
