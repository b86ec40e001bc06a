/* Where doppel keeps files: runtime (sockets, locks) and cache, by the XDG base directory specification. */
#ifndef BASE_PATHS_H
#define BASE_PATHS_H

#include "base/base.h"

enum { PATHS_MAX = 96 }; /* socket addresses hold 108 bytes; NAME and the socket's name must fit behind */

/* The private directory (mode 0700, ours) with one directory per VM; made if create. */
int path_runtime(char *buf, size_t n, bool create, struct err *e);
/* $XDG_CACHE_HOME/doppel or ~/.cache/doppel; not made. */
int path_cache(char *buf, size_t n, struct err *e);
/* A part of doppel: where the environment's variable (NULL: none) says, beside this executable (build tree), in ../libexec or ../share/doppel
 * (installed), where access(2) allows mode. */
int path_part(const char *part, const char *variable, int mode, char *buf, size_t n, struct err *e);
/* $XDG_STATE_HOME/doppel or ~/.local/state/doppel; not made. */
int path_state(char *buf, size_t n, struct err *e);

#endif
