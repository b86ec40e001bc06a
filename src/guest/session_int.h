/* Inside a session: session.c reads the request and waits, stream.c moves the bytes, command.c starts the command. */
#ifndef GUEST_SESSION_INT_H
#define GUEST_SESSION_INT_H

#include <stdbool.h>
#include <sys/types.h>

#include "guest/request.h"
#include "guest/session.h"

enum { OUT_BUFFER = 64 << 10, FRAMES_BUFFER = 2 * (FRAME_MAX + FRAME_HEADER) };

/* Ends of the command's descriptors that are ours; -1: none, or closed. */
struct command {
	pid_t pid;
	int terminal;    /* master */
	int in, out, err; /* pipes, for what is no terminal */
};

struct stream {
	int sock;
	uint8_t frames[FRAMES_BUFFER]; /* from the host */
	size_t n_frames, used;         /* used: the frame last handed out */
	uint8_t input[INPUT_WINDOW];   /* to the command */
	size_t input_at, n_input;
	bool input_ended;
	uint8_t out[OUT_BUFFER];       /* to the host */
	size_t out_at, n_out;
	bool broken;                   /* the host is gone, or says nonsense */
};

/* ---- stream.c ---- */
/* Reads what is there (blocking if so asked); false: the connection is over. */
bool stream_fill(struct stream *s, bool wait);
/* Next whole frame; it is valid until the next call. */
bool stream_next(struct stream *s, struct frame *f);
size_t stream_room(const struct stream *s); /* bytes a frame may carry now */
/* There is room, or it is a bug: it must have been looked for. */
void stream_put(struct stream *s, uint32_t type, const void *p, uint32_t n);
void stream_put_u32(struct stream *s, uint32_t type, uint32_t a, uint32_t b, unsigned words);
void stream_flush(struct stream *s, bool wait);
void stream_fail(struct stream *s, int error, const char *text);
/* Everything for operations that only print: blocks until it is on its way. */
int stream_write_all(struct stream *s, const void *p, size_t n);

/* ---- command.c ---- */
/* 0, or -errno with *what the step that failed. */
int command_start(const struct request *r, struct command *c, const char **what);

#endif
