/* Starting doppel-net. */
#ifndef BACKENDS_NET_PROCESS_H
#define BACKENDS_NET_PROCESS_H

#include "base/base.h"

/* Starts `doppel-net argv...` (argv[0] is set here) with fd as its descriptor 3; its pid, or -errno. */
int net_process_start(char **argv, int fd, struct err *e);
/* Waits for its first message: 0, or -errno and what it said. -EPIPE: it ended without a word. */
int net_process_ready(int fd, struct err *e);

#endif
