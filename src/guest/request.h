/* What a session is to do, put together from its request frames. */
#ifndef GUEST_REQUEST_H
#define GUEST_REQUEST_H

#include <stdbool.h>

#include "guest/proto.h"

struct strings {
	char **v; /* ends with NULL */
	unsigned n, room;
};
struct request {
	uint32_t operation;
	struct strings argv, env;
	char *cwd;
	uint32_t uid, gid, umask;
	uint32_t groups[REQUEST_GROUPS];
	unsigned n_groups;
	uint32_t tty, rows, columns;
	size_t bytes; /* of all strings */
	bool complete;
};
/* 0, or -1: no request (the session ends). */
int request_frame(struct request *r, const struct frame *f);
void request_free(struct request *r);

#endif
