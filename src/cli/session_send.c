/* What goes to the agent: an elastic buffer, because the request must be whole before the guest is there. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include "cli/session_int.h"

static int reserve(struct session *s, size_t n)
{
	size_t room = s->out_room ? s->out_room : 65536;
	u8 *p = NULL;

	if (s->out_at) {
		memmove(s->out, s->out + s->out_at, s->n_out);
		s->out_at = 0;
	}
	while (room < s->n_out + n)
		room *= 2;
	if (room == s->out_room)
		return 0;
	p = realloc(s->out, room);
	if (!p)
		return -ENOMEM;
	s->out = p;
	s->out_room = room;
	return 0;
}

static int put_raw(struct session *s, const void *p, size_t n)
{
	int ret = reserve(s, n);

	if (ret || !n)
		return ret;
	memcpy(s->out + s->n_out, p, n);
	s->n_out += n;
	return 0;
}

int session_put(struct session *s, u32 type, const void *p, size_t n)
{
	u8 h[FRAME_HEADER];
	int ret = 0;

	if (n > FRAME_MAX)
		return -E2BIG;
	frame_header(h, type, (u32)n);
	ret = put_raw(s, h, sizeof(h));
	return ret ? ret : put_raw(s, p, n);
}

int session_put_u32(struct session *s, u32 type, const u32 *v, unsigned n)
{
	u8 p[4 * (3 + REQUEST_GROUPS)];

	for (unsigned i = 0; i < n; i++)
		put_u32(p + 4 * i, v[i]);
	return session_put(s, type, p, 4 * (size_t)n);
}

static int put_strings(struct session *s, u32 type, char **v)
{
	int ret = 0;

	for (; v && *v && !ret; v++)
		ret = session_put(s, type, *v, strlen(*v));
	return ret;
}

int session_put_request(struct session *s)
{
	const struct session_request *q = s->q;
	u32 ids[3 + REQUEST_GROUPS] = {q->uid, q->gid, q->umask}, tty[3] = {s->tty}, n = MIN(q->n_groups, (u32)REQUEST_GROUPS);
	char connect[32];
	int ret = snprintf(connect, sizeof(connect), "CONNECT %d\n", AGENT_PORT);

	for (u32 i = 0; i < n; i++)
		ids[3 + i] = q->groups[i];
	session_tty_size(&tty[1], &tty[2]);
	ret = put_raw(s, connect, (size_t)ret);
	if (!ret)
		ret = session_put_u32(s, F_OPERATION, &q->operation, 1);
	if (!ret)
		ret = put_strings(s, F_ARG, q->argv);
	if (!ret)
		ret = put_strings(s, F_ENV, q->env);
	if (!ret && q->cwd)
		ret = session_put(s, F_CWD, q->cwd, strlen(q->cwd));
	if (!ret)
		ret = session_put_u32(s, F_IDS, ids, 3 + n);
	if (!ret)
		ret = session_put_u32(s, F_TTY, tty, 3);
	return ret ? ret : session_put(s, F_START, NULL, 0);
}

int session_flush(struct session *s)
{
	while (s->n_out) {
		ssize_t n = send(s->sock, s->out + s->out_at, s->n_out, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN ? 0 : -errno;
		s->out_at += (size_t)n;
		s->n_out -= (size_t)n;
	}
	s->out_at = 0;
	return 0;
}
