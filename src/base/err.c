/* Error texts and the log: one line each on stderr, no allocation. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "base/base.h"

int err_set(struct err *e, int errno_value, const char *fmt, ...)
{
	va_list ap;

	if (e && !e->text[0]) {
		va_start(ap, fmt);
		vsnprintf(e->text, sizeof(e->text), fmt, ap);
		va_end(ap);
	}
	return -errno_value;
}

/* The one exception to "no state in file scope": the process has one stderr. */
static enum log_level log_limit = LOG_WARN;

void log_set_level(enum log_level l)
{
	log_limit = l;
}

void log_msg(enum log_level l, const char *fmt, ...)
{
	char line[1024] = "doppel: ";
	int n = (int)strlen(line);
	va_list ap;

	if (l > log_limit)
		return;
	va_start(ap, fmt);
	n += vsnprintf(line + n, sizeof(line) - n - 1, fmt, ap);
	va_end(ap);
	if (n > (int)sizeof(line) - 2)
		n = sizeof(line) - 2;
	line[n++] = '\n';
	/* one write: lines of several threads do not mix */
	if (write(STDERR_FILENO, line, n) < 0)
		return;
}
