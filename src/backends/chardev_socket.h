/* A chardev behind a UNIX socket: one peer at a time. */
#ifndef BACKENDS_CHARDEV_SOCKET_H
#define BACKENDS_CHARDEV_SOCKET_H

#include "backends/chardev.h"

struct chardev_socket_config {
	const char *path; /* created with mode 0600; a stale socket there is replaced; removed by destroy */
	int fd;           /* instead of path: a connected stream socket to take over (path NULL) */
};
int chardev_socket_create(struct loop *l, const struct chardev_socket_config *c, struct chardev **out,
			  struct err *e);

#endif
