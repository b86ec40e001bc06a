/*
 * libslirp's messages, which a guest can cause at will: they go nowhere, but for the last words before an abort. These functions
 * stand before those of glib, whose logging opens files, which doppel-net cannot. (glib's prototypes, without its headers.)
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/base.h"

enum { LEVEL_ERROR = 1 << 2 /* G_LOG_LEVEL_ERROR: the caller does not expect to go on */ };

void g_log(const char *domain, int level, const char *format, ...) __attribute__((format(printf, 3, 4)));
void g_return_if_fail_warning(const char *domain, const char *function, const char *expression);
void g_warn_message(const char *domain, const char *file, int line, const char *function, const char *expression);

void g_log(const char *domain, int level, const char *format, ...)
{
	char text[300];
	va_list ap;

	if (!(level & LEVEL_ERROR))
		return;
	va_start(ap, format);
	vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	log_msg(LOG_ERROR, "network: libslirp: %s", text);
	abort();
}

void g_return_if_fail_warning(const char *domain, const char *function, const char *expression) {}

void g_warn_message(const char *domain, const char *file, int line, const char *function, const char *expression) {}
