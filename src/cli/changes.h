/* The agent's stream of changes, taken apart; what a hostile guest sends is refused, not believed. */
#ifndef CLI_CHANGES_H
#define CLI_CHANGES_H

#include "base/base.h"
#include "guest/change.h"

struct changes {
	/* 0, or -errno: it ends. The record's strings are valid until it returns. */
	int (*record)(void *arg, const struct change *c);
	int (*content)(void *arg, const u8 *p, size_t n, bool last); /* NULL: none is expected */
	void *arg;
	u8 *buf;
	size_t n;
	u64 content_left;
};
int changes_feed(struct changes *c, const u8 *p, size_t n);
bool changes_whole(const struct changes *c); /* nothing is missing at the end */
void changes_free(struct changes *c);
int changes_sink(void *changes, int fd, const u8 *p, size_t n); /* a session_sink */

/* Prints "A  12.3K  /path"; an int (*record)() whose arg is a FILE. */
int changes_print(void *file, const struct change *c);

#endif
