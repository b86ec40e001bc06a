/*
 * A session's loop: bytes between the connection and the command's descriptors, signals and sizes in, the command's end
 * out. Nothing here blocks on the command: whatever it does not read waits in s->input (INPUT_WINDOW bytes), whatever the
 * host does not read waits in s->out, and then in the command.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "guest/operations.h"
#include "guest/session_int.h"

struct session {
	const struct agent *agent;
	struct stream s;
	struct request r;
	struct command c;
	int signals; /* signalfd: SIGCHLD */
	bool over, stopped;
	int status;  /* of waitpid, when over */
};

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

/* ---- input ---- */
/* Gives the command what it takes; what nobody will ever read counts as taken. */
static void push_input(struct session *x)
{
	struct stream *s = &x->s;
	int fd = x->r.tty & TTY_INPUT ? x->c.terminal : x->c.in;
	size_t taken = 0;

	while (s->n_input) {
		ssize_t n = fd < 0 ? (ssize_t)s->n_input : write(fd, s->input + s->input_at, s->n_input);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			break;
		if (n < 0) {
			close_fd(&x->c.in);
			n = (ssize_t)s->n_input;
		}
		s->input_at += (size_t)n;
		s->n_input -= (size_t)n;
		taken += (size_t)n;
	}
	if (!s->n_input) {
		s->input_at = 0;
		if (s->input_ended)
			close_fd(&x->c.in);
	}
	if (taken)
		stream_put_u32(s, F_TAKEN, (uint32_t)taken, 0, 1);
}

static bool take_input(struct stream *s, const struct frame *f)
{
	if (s->input_ended || f->n > sizeof(s->input) - s->n_input)
		return false; /* more than was granted */
	if (s->input_at + s->n_input + f->n > sizeof(s->input)) {
		memmove(s->input, s->input + s->input_at, s->n_input);
		s->input_at = 0;
	}
	memcpy(s->input + s->input_at + s->n_input, f->p, f->n);
	s->n_input += f->n;
	return true;
}

/* A terminal has no end of input; its end-of-file key is what a program sees of one. */
static void end_input(struct session *x)
{
	static const char eof = 4;

	if ((x->r.tty & TTY_INPUT) && write(x->c.terminal, &eof, 1) < 0)
		x->s.input_ended = true;
	x->s.input_ended = true;
}

/* ---- control ---- */
static void send_signal(struct session *x, int sig)
{
	pid_t group = x->c.terminal >= 0 ? tcgetpgrp(x->c.terminal) : x->c.pid;

	if (sig <= 0 || sig >= NSIG || x->over)
		return;
	if (x->stopped && sig == SIGCONT)
		group = x->c.pid;
	x->stopped = false;
	kill(group > 0 ? -group : -x->c.pid, sig);
}

static void set_size(struct session *x, const struct frame *f)
{
	struct winsize w = {.ws_row = (unsigned short)frame_u32(f, 0), .ws_col = (unsigned short)frame_u32(f, 1)};

	if (x->c.terminal >= 0 && ioctl(x->c.terminal, TIOCSWINSZ, &w) < 0)
		return;
}

static bool on_frame(struct session *x, const struct frame *f)
{
	switch (f->type) {
	case F_INPUT:
		return take_input(&x->s, f);
	case F_INPUT_END:
		end_input(x);
		return true;
	case F_SIGNAL:
		send_signal(x, (int)frame_u32(f, 0));
		return true;
	case F_SIZE:
		set_size(x, f);
		return true;
	case F_CLOSED:
		if (frame_u32(f, 0) == 1 || frame_u32(f, 0) == 2)
			close_fd(frame_u32(f, 0) == 1 ? &x->c.out : &x->c.err);
		return true;
	default:
		return false;
	}
}

static void from_host(struct session *x)
{
	struct frame f;

	stream_fill(&x->s, false);
	while (stream_next(&x->s, &f))
		if (!on_frame(x, &f))
			x->s.broken = true;
	push_input(x);
}

/* ---- output ---- */
/* One read's worth; false: nothing there now. */
static bool pull(struct session *x, int *fd, uint32_t type)
{
	uint8_t buf[FRAME_DATA];
	size_t room = stream_room(&x->s);
	ssize_t n;

	if (*fd < 0 || !room)
		return false;
	n = read(*fd, buf, room < sizeof(buf) ? room : sizeof(buf));
	if (n < 0 && errno == EINTR)
		return true;
	if (n > 0) {
		stream_put(&x->s, type, buf, (uint32_t)n);
		return true;
	}
	if (n == 0 || errno != EAGAIN)
		close_fd(fd); /* EIO from a terminal: nobody has it open */
	return false;
}

static void pull_all(struct session *x)
{
	pull(x, &x->c.terminal, F_TERMINAL);
	pull(x, &x->c.out, F_OUTPUT);
	pull(x, &x->c.err, F_ERROR_OUTPUT);
	stream_flush(&x->s, false);
}

/* What the command left in its pipes; who of its children still has them open does not hold the session up. */
static void drain(struct session *x)
{
	static const uint32_t types[] = {F_TERMINAL, F_OUTPUT, F_ERROR_OUTPUT};
	int *fds[] = {&x->c.terminal, &x->c.out, &x->c.err};

	for (unsigned i = 0; i < 3; i++)
		do
			stream_flush(&x->s, true);
		while (!x->s.broken && pull(x, fds[i], types[i]));
	stream_flush(&x->s, true);
}

/* ---- the command's life ---- */
static void reap(struct session *x)
{
	struct signalfd_siginfo si;
	int status;
	pid_t pid;

	if (read(x->signals, &si, sizeof(si)) < 0)
		return;
	while ((pid = waitpid(-1, &status, WNOHANG | WUNTRACED)) > 0) {
		if (pid != x->c.pid)
			continue;
		if (WIFSTOPPED(status)) {
			x->stopped = true;
			stream_put_u32(&x->s, F_STOPPED, (uint32_t)WSTOPSIG(status), 0, 1);
		} else {
			x->over = true;
			x->status = status;
		}
	}
}

static void loop(struct session *x)
{
	while (!x->over && !x->s.broken) {
		bool room = stream_room(&x->s) > 0;
		int in = x->r.tty & TTY_INPUT ? x->c.terminal : x->c.in;
		struct pollfd p[] = {
			{.fd = x->s.sock, .events = (short)(POLLIN | (x->s.n_out ? POLLOUT : 0))},
			{.fd = x->signals, .events = POLLIN},
			{.fd = room ? x->c.terminal : -1, .events = POLLIN},
			{.fd = room ? x->c.out : -1, .events = POLLIN},
			{.fd = room ? x->c.err : -1, .events = POLLIN},
			{.fd = x->s.n_input ? in : -1, .events = POLLOUT},
		};

		if (poll(p, sizeof(p) / sizeof(p[0]), -1) < 0 && errno != EINTR)
			break;
		if (p[0].revents)
			from_host(x);
		if (p[5].revents)
			push_input(x);
		pull_all(x);
		if (p[1].revents)
			reap(x);
	}
}

static void run(struct session *x)
{
	const char *what = "";
	int e = command_start(&x->r, &x->c, &what);

	if (e) {
		stream_fail(&x->s, -e, what);
		return;
	}
	stream_put_u32(&x->s, F_STARTED, (uint32_t)x->c.pid, 0, 1);
	stream_flush(&x->s, false);
	from_host(x); /* what came with the request */
	loop(x);
	if (!x->over) { /* the host is gone */
		kill(-x->c.pid, SIGHUP);
		kill(-x->c.pid, SIGCONT);
		return;
	}
	drain(x);
	stream_put_u32(&x->s, F_EXIT, WIFSIGNALED(x->status) ? EXIT_SIGNAL : EXIT_STATUS,
		       (uint32_t)(WIFSIGNALED(x->status) ? WTERMSIG(x->status) : WEXITSTATUS(x->status)), 2);
	stream_flush(&x->s, true);
}

/* Before anything forks, so that no end is missed. */
static int watch_children(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigaddset(&set, SIGTTOU); /* the session's own calls on its terminal */
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGHUP, SIG_IGN);
	signal(SIGPIPE, SIG_IGN);
	sigdelset(&set, SIGTTOU);
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

static bool read_request(struct session *x)
{
	struct frame f;

	while (!x->r.complete) {
		if (!stream_fill(&x->s, true))
			return false;
		while (!x->r.complete && stream_next(&x->s, &f))
			if (request_frame(&x->r, &f) < 0)
				x->s.broken = true;
		if (x->s.broken)
			return false;
	}
	return true;
}

void session_serve(const struct agent *a, int sock)
{
	struct session *x = calloc(1, sizeof(*x));

	if (!x)
		return;
	x->agent = a;
	x->s.sock = sock;
	x->signals = watch_children();
	if (x->signals >= 0 && read_request(x)) {
		if (x->r.operation == OP_RUN)
			run(x);
		else
			operation_serve(a, &x->r, &x->s);
	}
	request_free(&x->r);
	free(x);
}
