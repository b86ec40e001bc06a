/*
 * The serial console's host side: what the guest prints goes to every session and into a ring of the last bytes; what sessions type
 * goes to the guest. The foreground terminal is a session, so is each `doppel console`.
 */
#ifndef VMM_CONSOLE_H
#define VMM_CONSOLE_H

#include "backends/chardev.h"

struct console;
struct console *console_new(struct loop *l);
void console_free(struct console *c); /* after the machine: closes all sessions */
struct chardev *console_chardev(struct console *c);

struct console_session_options {
	int in, out;      /* may be the same fd; non-blocking sockets or terminals */
	bool owned;       /* close them at the end */
	bool replay;      /* start with what the ring holds */
	bool escapes;     /* Ctrl-] q ends the session */
	bool once;        /* ends when what the ring held is out; takes no input */
	void (*ended)(void *arg); /* main thread; may be NULL */
	void *arg;
};
/* Main thread. 0 or -errno. */
int console_session_add(struct console *c, const struct console_session_options *o);

size_t console_tail(struct console *c, char *buf, size_t n); /* the last n bytes of output, at most */

/* Ctrl-] q recogniser: feeds bytes through, in place; returns the bytes left to send; *quit when asked for. */
struct escape {
	bool armed;
};
size_t escape_filter(struct escape *e, u8 *p, size_t n, bool *quit);

#endif
