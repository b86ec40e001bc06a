/*
 * A session's loop. Memory is bounded: input is read when the guest has granted room for it, and the connection is read when the
 * last output has been written.
 */
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include "cli/cli.h"
#include "cli/session_int.h"

static void finish(struct session *s, enum session_end end, int value, const char *text, size_t n)
{
	s->over = true;
	*s->result = (struct session_result){.end = end, .value = value};
	n = MIN(n, sizeof(s->result->text) - 1);
	for (size_t i = 0; i < n; i++) /* the guest's words: nothing a terminal would obey */
		s->result->text[i] = text[i] >= ' ' && text[i] != 0x7f ? text[i] : '?';
}

static void lost(struct session *s)
{
	if (!s->over)
		finish(s, SESSION_LOST, 0, NULL, 0);
}

/* ---- output ---- */
/* What write(2) takes without waiting; a pipe that polls ready takes PIPE_BUF bytes. */
static void write_pending(struct session *s)
{
	while (s->n_pending) {
		struct pollfd p = {.fd = s->pending_fd, .events = POLLOUT};
		ssize_t n = 0;

		if (poll(&p, 1, 0) <= 0)
			return;
		n = write(s->pending_fd, s->pending, MIN(s->n_pending, (size_t)PIPE_BUF));
		if (n < 0 && (errno == EINTR || errno == EAGAIN))
			return;
		if (n < 0) { /* the guest's command learns it as it would here: by SIGPIPE */
			u32 which = (u32)s->pending_fd;

			s->closed[which] = true;
			session_put_u32(s, F_CLOSED, &which, 1);
			n = (ssize_t)s->n_pending;
		}
		s->pending += n;
		s->n_pending -= (size_t)n;
	}
}

static void on_output(struct session *s, const struct frame *f, int fd)
{
	if (s->sink) {
		int ret = s->sink(s->arg, fd, f->p, f->n);

		if (ret)
			finish(s, SESSION_FAILED, -ret, NULL, 0);
		return;
	}
	if (s->closed[fd])
		return;
	s->pending = f->p;
	s->n_pending = f->n;
	s->pending_fd = fd;
	write_pending(s);
}

/* ---- frames ---- */
static void on_frame(struct session *s, const struct frame *f)
{
	switch (f->type) {
	case F_STARTED:
		s->started = true;
		session_raw(s, true);
		break;
	case F_OUTPUT:
		on_output(s, f, 1);
		break;
	case F_ERROR_OUTPUT:
		on_output(s, f, 2);
		break;
	case F_TERMINAL:
		on_output(s, f, s->tty & TTY_OUTPUT ? 1 : s->tty & TTY_ERROR ? 2 : 0);
		break;
	case F_TAKEN:
		s->window += frame_u32(f, 0);
		if (s->window > INPUT_WINDOW)
			lost(s);
		break;
	case F_STOPPED:
		session_stopped(s, (int)frame_u32(f, 0));
		break;
	case F_EXIT:
		finish(s, frame_u32(f, 0) == EXIT_SIGNAL ? SESSION_SIGNAL : SESSION_STATUS, (int)(frame_u32(f, 1) & 0xff), NULL, 0);
		break;
	case F_FAILED:
		finish(s, SESSION_FAILED, (int)(frame_u32(f, 0) & 0xfff), (const char *)f->p + 4, f->n > 4 ? f->n - 4 : 0);
		break;
	default:
		lost(s); /* no agent of ours */
	}
}

/* "OK port\n" from the VM's device, once the agent has accepted. */
static void take_greeting(struct session *s)
{
	u8 *end = memchr(s->in, '\n', MIN(s->n_in, (size_t)32));

	if (!end) {
		if (s->n_in >= 32)
			lost(s);
		return;
	}
	s->greeted = true;
	s->n_in -= (size_t)(end + 1 - s->in);
	memmove(s->in, end + 1, s->n_in);
}

/* Frames as far as their output can be written. */
static void take_frames(struct session *s)
{
	if (!s->greeted)
		take_greeting(s);
	while (s->greeted && !s->over && !s->n_pending) {
		struct frame f;
		long n = 0;

		s->n_in -= s->frame_used;
		memmove(s->in, s->in + s->frame_used, s->n_in);
		s->frame_used = 0;
		n = frame_parse(s->in, s->n_in, &f);
		if (n < 0)
			lost(s);
		if (n <= 0)
			return;
		s->frame_used = (size_t)n;
		on_frame(s, &f);
	}
}

static void from_guest(struct session *s)
{
	ssize_t n = recv(s->sock, s->in + s->n_in, sizeof(s->in) - s->n_in, MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		take_frames(s);
		if (!s->n_pending)
			lost(s);
		return;
	}
	s->n_in += (size_t)n;
	take_frames(s);
}

/* ---- input ---- */
static bool wants_input(const struct session *s)
{
	return s->started && !s->input_ended && s->window && s->n_out < FRAME_DATA && (!(s->tty & TTY_INPUT) || s->raw);
}

static void from_user(struct session *s)
{
	u8 buf[FRAME_DATA];
	ssize_t n = read(STDIN_FILENO, buf, MIN(sizeof(buf), (size_t)s->window));

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n > 0) {
		s->window -= (u32)n;
		session_put(s, F_INPUT, buf, (size_t)n);
		return;
	}
	s->input_ended = true;
	session_put(s, F_INPUT_END, NULL, 0);
}

/* ---- the VM's messages: lines for standard error ---- */
static void from_vm(struct session *s)
{
	char buf[1024];
	ssize_t n = read(s->vm->messages, buf, sizeof(buf));

	if (n <= 0) {
		*s->vm->ended = n == 0 || errno != EINTR;
		return;
	}
	for (ssize_t i = 0; i < n; i++) {
		if (s->raw && buf[i] == '\n')
			fputc('\r', stderr);
		fputc(buf[i], stderr);
	}
}

static void loop(struct session *s)
{
	bool no_vm = !s->vm;

	while (!s->over) {
		struct pollfd p[] = {
			{.fd = s->n_pending || s->n_in == sizeof(s->in) ? -1 : s->sock, .events = POLLIN},
			{.fd = s->n_out ? s->sock : -1, .events = POLLOUT},
			{.fd = wants_input(s) ? STDIN_FILENO : -1, .events = POLLIN},
			{.fd = s->signals, .events = POLLIN},
			{.fd = no_vm || *s->vm->ended ? -1 : s->vm->messages, .events = POLLIN},
			{.fd = s->n_pending ? s->pending_fd : -1, .events = POLLOUT},
		};

		if (poll(p, ARRAY_SIZE(p), -1) < 0 && errno != EINTR)
			return lost(s);
		if (p[4].revents)
			from_vm(s);
		if (p[3].revents)
			session_on_signal(s);
		if (p[5].revents) {
			write_pending(s);
			take_frames(s);
		}
		if (p[0].revents && !s->over)
			from_guest(s);
		if (p[2].revents && !s->over)
			from_user(s);
		if (!s->over && session_flush(s) < 0 && !p[0].revents)
			return lost(s);
		if (!s->over && !no_vm && *s->vm->ended && !s->started)
			return lost(s);
	}
}

int session_run(int vsock, const struct session_request *q, const struct session_vm *vm, session_sink *sink, void *arg,
		struct session_result *out, struct err *e)
{
	struct session *s = calloc(1, sizeof(*s));
	int ret = s ? 0 : -ENOMEM;

	*out = (struct session_result){.end = SESSION_LOST};
	if (!ret) {
		*s = (struct session){.q = q, .vm = vm, .sink = sink, .arg = arg, .result = out, .sock = vsock, .signals = -1,
				      .window = INPUT_WINDOW, .input_ended = q->no_input};
		s->tty = sink ? 0 : session_terminals(q->no_input);
		signal(SIGPIPE, SIG_IGN);
		ret = session_signals_open(s);
	}
	if (!ret)
		ret = session_put_request(s);
	if (!ret && q->no_input)
		ret = session_put(s, F_INPUT_END, NULL, 0);
	if (!ret) {
		loop(s);
		session_raw(s, false);
	}
	if (s) {
		session_signals_close(s);
		free(s->out);
	}
	free(s);
	return ret ? err_set(e, -ret, "session: %s", strerror(-ret)) : 0;
}

int session_status(const struct session_result *r, const char *command)
{
	switch (r->end) {
	case SESSION_STATUS:
		return r->value;
	case SESSION_SIGNAL:
	case SESSION_KILLED:
		return 128 + r->value;
	case SESSION_FAILED:
		log_msg(LOG_ERROR, "%s: %s%s", r->text[0] ? r->text : command, strerror(r->value),
			r->value == ENOENT ? " (in the duplicate)" : "");
		return r->value == ENOENT ? 127 : 126;
	default:
		log_msg(LOG_ERROR, "%s: the VM ended before it did", command);
		return EXIT_DOPPEL;
	}
}
