/* The terminal, or whatever standard input and output are. */
#ifndef BACKENDS_CHARDEV_STDIO_H
#define BACKENDS_CHARDEV_STDIO_H

#include "backends/chardev.h"

struct chardev_stdio_config {
	int in, out; /* usually 0 and 1; stay open and keep their flags; in -1: output only */
	bool raw;    /* a terminal at in is put into raw mode until destroy */
	u8 escape;   /* 0: none. This byte, then a key, calls on_escape; twice: the byte itself */
	void (*on_escape)(void *arg, u8 key); /* main thread */
	void (*on_end)(void *arg);            /* input ended; may be NULL */
	void *arg;
};
/* Blocks SIGWINCH in the calling thread when in is a terminal (the size follows the window): call it before
 * other threads start. */
int chardev_stdio_create(struct loop *l, const struct chardev_stdio_config *c, struct chardev **out,
			 struct err *e);
/* Restores the terminal's mode; async-signal-safe; for ends of the process that do not pass destroy. */
void chardev_stdio_restore(struct chardev *c);

#endif
