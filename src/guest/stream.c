/* The connection of a session: frames in, frames out, both through bounded buffers. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "guest/session_int.h"

bool stream_fill(struct stream *s, bool wait)
{
	ssize_t n;

	if (s->n_frames == sizeof(s->frames))
		return true; /* stream_next() empties it */
	n = recv(s->sock, s->frames + s->n_frames, sizeof(s->frames) - s->n_frames, wait ? 0 : MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return true;
	if (n <= 0) {
		s->broken = true;
		return false;
	}
	s->n_frames += (size_t)n;
	return true;
}

bool stream_next(struct stream *s, struct frame *f)
{
	long n;

	s->n_frames -= s->used;
	memmove(s->frames, s->frames + s->used, s->n_frames);
	s->used = 0;
	n = frame_parse(s->frames, s->n_frames, f);
	if (n < 0)
		s->broken = true;
	if (n <= 0)
		return false;
	s->used = (size_t)n;
	return true;
}

void stream_flush(struct stream *s, bool wait)
{
	while (s->n_out && !s->broken) {
		ssize_t n = send(s->sock, s->out + s->out_at, s->n_out, MSG_NOSIGNAL | (wait ? 0 : MSG_DONTWAIT));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return;
		if (n < 0) {
			s->broken = true;
			return;
		}
		s->out_at += (size_t)n;
		s->n_out -= (size_t)n;
	}
	s->out_at = 0;
}

size_t stream_room(const struct stream *s)
{
	size_t room = sizeof(s->out) - s->n_out;
	size_t reserve = 8 * (FRAME_HEADER + 8); /* for the small frames that must always fit */

	return room > FRAME_HEADER + reserve ? room - FRAME_HEADER - reserve : 0;
}

static void append(struct stream *s, const void *p, size_t n)
{
	if (s->out_at + s->n_out + n > sizeof(s->out)) {
		memmove(s->out, s->out + s->out_at, s->n_out);
		s->out_at = 0;
	}
	if (s->n_out + n > sizeof(s->out)) {
		s->broken = true;
		return;
	}
	if (n)
		memcpy(s->out + s->out_at + s->n_out, p, n);
	s->n_out += n;
}

void stream_put(struct stream *s, uint32_t type, const void *p, uint32_t n)
{
	uint8_t h[FRAME_HEADER];

	frame_header(h, type, n);
	if (sizeof(s->out) - s->n_out < FRAME_HEADER + (size_t)n)
		stream_flush(s, true);
	append(s, h, sizeof(h));
	append(s, p, n);
}

void stream_put_u32(struct stream *s, uint32_t type, uint32_t a, uint32_t b, unsigned words)
{
	uint8_t p[8];

	put_u32(p, a);
	put_u32(p + 4, b);
	stream_put(s, type, p, 4 * words);
}

void stream_fail(struct stream *s, int error, const char *text)
{
	uint8_t p[4 + 512];
	size_t n = strlen(text);

	n = n > 512 ? 512 : n;
	put_u32(p, (uint32_t)error);
	memcpy(p + 4, text, n);
	stream_put(s, F_FAILED, p, (uint32_t)(4 + n));
	stream_flush(s, true);
}

int stream_write_all(struct stream *s, const void *p, size_t n)
{
	while (n && !s->broken) {
		size_t now = n < FRAME_DATA ? n : FRAME_DATA;

		stream_put(s, F_OUTPUT, p, (uint32_t)now);
		p = (const uint8_t *)p + now;
		n -= now;
	}
	return s->broken ? -EPIPE : 0;
}
