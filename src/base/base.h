/* Errors, log, safe arithmetic, files: what all rooms of the VMM use (the engine has engine/lib). */
#ifndef BASE_BASE_H
#define BASE_BASE_H

#include <errno.h>
#include <time.h>
#include "base/types.h"

/* Errors are 0 or -errno. The text for the person goes into a struct err, first cause wins. */
struct err {
	char text[400]; /* "what: why (what to do)" */
};
int err_set(struct err *e, int errno_value, const char *fmt, ...) __attribute__((format(printf, 3, 4))); /* returns -errno_value */

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };
void log_set_level(enum log_level l);
void log_msg(enum log_level l, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* CLOCK_MONOTONIC */
static inline u64 now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (u64)t.tv_sec * 1000000000 + (u64)t.tv_nsec;
}

static inline u64 now_ms(void)
{
	return now_ns() / 1000000;
}

static inline bool add_overflows(u64 a, u64 b)
{
	return a + b < a;
}
/* [a, a+n) inside [0, limit) */
static inline bool range_within(u64 a, u64 n, u64 limit)
{
	return a <= limit && n <= limit - a;
}

/* "512M", "1GiB", "64k" -> bytes; 0 or -EINVAL/-ERANGE */
int parse_size(const char *s, u64 *out);
/* whole file into malloc'd memory, at most max bytes (-EFBIG) */
int read_file(const char *path, u64 max, void **data, u64 *size);
int write_all(int fd, const void *p, u64 n);
int read_all(int fd, void *p, u64 n); /* -EIO at early end */

#endif
