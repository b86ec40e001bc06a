/* Inside the host's session: session.c is the loop, session_tty.c the terminal and signals, session_send.c the request. */
#ifndef CLI_SESSION_INT_H
#define CLI_SESSION_INT_H

#include "cli/session.h"

struct session {
	const struct session_request *q;
	const struct session_vm *vm;
	session_sink *sink;
	void *arg;
	struct session_result *result;
	int sock, signals; /* signalfd; -1: none */
	bool greeted;      /* "OK port" has come */
	bool started, over;
	u32 tty;           /* TTY_* */
	bool raw, stop_came; /* stop_came: by SIGTSTP, so that the others of our group have it too */
	bool input_ended;
	u32 window;        /* bytes of input the guest will take */
	u8 in[2 * (FRAME_MAX + FRAME_HEADER)]; /* from the guest */
	size_t n_in;
	u8 *out;           /* to the guest */
	size_t out_at, n_out, out_room;
	const u8 *pending; /* output not yet written, inside in[] */
	size_t n_pending, frame_used;
	int pending_fd;
	bool closed[3];    /* nobody reads it */
};

/* ---- session_send.c ---- */
int session_put(struct session *s, u32 type, const void *p, size_t n);
int session_put_u32(struct session *s, u32 type, const u32 *v, unsigned n);
int session_put_request(struct session *s);
int session_flush(struct session *s); /* what the socket takes now */

/* ---- session_tty.c ---- */
u32 session_terminals(bool no_input);           /* TTY_* of our descriptors */
void session_tty_size(u32 *rows, u32 *columns);
int session_signals_open(struct session *s);
void session_signals_close(struct session *s);
void session_on_signal(struct session *s);
void session_raw(struct session *s, bool on);   /* on: if we are in the foreground */
void session_stopped(struct session *s, int sig); /* stops us as the command is; returns when we go on */

#endif
