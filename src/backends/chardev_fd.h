/* A chardev on file descriptors: the common part of terminals and sockets. Inside the backends room. */
#ifndef BACKENDS_CHARDEV_FD_H
#define BACKENDS_CHARDEV_FD_H

#include <pthread.h>

#include "backends/chardev.h"

enum { CHARDEV_OUT_SIZE = 65536, CHARDEV_IN_SIZE = 4096 };

struct chardev_fd {
	struct chardev base;
	struct loop *loop;
	pthread_mutex_t lock;
	int in, out, wake;  /* -1: none */
	bool out_socket;    /* send(2) without signals */
	bool out_may_block; /* not made non-blocking: ask poll(2) first */
	bool in_unpollable; /* a plain file: always ready */
	bool out_unpollable;
	/* under lock */
	bool out_watched, short_write, resumed;
	size_t out_head, out_count;
	u8 out_buf[CHARDEV_OUT_SIZE];
	/* loop thread only */
	bool in_watched, paused;
	size_t in_at, in_count;
	u8 in_buf[CHARDEV_IN_SIZE];
	/* hooks, may be NULL: filter edits fresh input in place and returns its new length; ended: input is
	 * over */
	size_t (*filter)(struct chardev_fd *c, u8 *p, size_t n);
	void (*ended)(struct chardev_fd *c);
};

int chardev_fd_init(struct chardev_fd *c, struct loop *l, const struct chardev_ops *ops);
/* Takes over the descriptors. Main thread. A failure leaves the direction unconnected. */
int chardev_fd_connect(struct chardev_fd *c, int in, int out);
void chardev_fd_disconnect(struct chardev_fd *c); /* closes them; what was not written is lost */
void chardev_fd_flush(struct chardev_fd *c,
		      int timeout_ms); /* main thread: gives the reader that long to take what is buffered */
void chardev_fd_fini(struct chardev_fd *c);
/* chardev_ops members for users of this part */
size_t chardev_fd_write(struct chardev *base, const u8 *p, size_t n);
void chardev_fd_resume(struct chardev *base);

#endif
