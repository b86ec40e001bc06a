/*
 * What doppel and its agent in a duplicate say to each other, over one vsock connection per session (agent's port:
 * AGENT_PORT).
 *
 * Frames in both directions: type and length, 32 bits each, little-endian; then that many bytes, FRAME_MAX at most.
 * Host: request frames in any order, F_START, then input, signals and sizes as they come.
 * Guest: F_STARTED or F_FAILED; output; F_EXIT last.
 *
 * Flow control: output is the connection's own (who does not read makes the other wait). Input must not stand in the way
 * of signals: the host sends at most INPUT_WINDOW bytes that the guest has not yet said to have taken (F_TAKEN).
 */
#ifndef GUEST_PROTO_H
#define GUEST_PROTO_H

#include <stddef.h>
#include <stdint.h>

enum { AGENT_PORT = 1024 };
enum {
	FRAME_HEADER = 8,
	FRAME_MAX = 132 << 10,    /* an argument of Linux is 128 KiB at most */
	FRAME_DATA = 32 << 10,    /* what one frame of input or output carries at most */
	INPUT_WINDOW = 128 << 10,
	REQUEST_MAX = 6 << 20,    /* all arguments and variables together, as in execve(2) */
	REQUEST_STRINGS = 1 << 16,
	REQUEST_GROUPS = 1024,
};

enum frame_type {
	/* host: the request */
	F_OPERATION = 1, /* u32 enum operation; without it OP_RUN */
	F_ARG,           /* an argument, without NUL */
	F_ENV,           /* NAME=VALUE */
	F_CWD,
	F_IDS,           /* u32 uid, gid, umask, then supplementary groups */
	F_TTY,           /* u32 TTY_*, rows, columns: these descriptors are a terminal */
	F_START,
	/* host: while it runs */
	F_INPUT = 32,
	F_INPUT_END,
	F_SIGNAL,        /* u32 number, to the foreground processes */
	F_SIZE,          /* u32 rows, columns */
	F_CLOSED,        /* u32 1 or 2: nobody reads this output any more */
	/* guest */
	F_STARTED = 64,  /* u32 process id */
	F_OUTPUT,
	F_ERROR_OUTPUT,
	F_TERMINAL,      /* output of the terminal, whoever has it */
	F_TAKEN,         /* u32 bytes of input */
	F_STOPPED,       /* u32 signal: the command has stopped (Ctrl-Z); it goes on with F_SIGNAL SIGCONT */
	F_EXIT,          /* u32 EXIT_*, value */
	F_FAILED,        /* u32 errno, then text: it was not started */
};
enum { TTY_INPUT = 1, TTY_OUTPUT = 2, TTY_ERROR = 4 };
enum { EXIT_STATUS, EXIT_SIGNAL };

enum operation {
	OP_RUN,      /* execve of the arguments */
	OP_SYNC,     /* everything written is on the host's disk, or in its files */
	OP_POWEROFF,
	OP_DIFF,     /* what the layer changed, see change.h */
	OP_EXPORT,   /* these paths' content, see change.h */
};

/* ---- frames in a buffer ---- */
struct frame {
	uint32_t type, n;
	const uint8_t *p;
};
/* The frame at the start of n bytes: its length all told; 0: not complete yet; -1: no frame of ours. */
long frame_parse(const void *p, size_t n, struct frame *f);
void frame_header(uint8_t out[FRAME_HEADER], uint32_t type, uint32_t n);
/* Word i of a frame; 0 beyond its end. */
uint32_t frame_u32(const struct frame *f, unsigned i);
void put_u32(uint8_t *p, uint32_t v);
uint32_t get_u32(const uint8_t *p);

#endif
