/*
 * A spooled device: what the guest writes between opening and closing it is a job, and becomes a file of its own
 * in a directory of the host, under its name only when it is complete.
 */
#ifndef BACKENDS_CHARDEV_SPOOL_H
#define BACKENDS_CHARDEV_SPOOL_H

#include "backends/chardev.h"

/* dir must exist; vm: begins the files' names. Starts a process: call it before there are threads. */
int chardev_spool_create(struct loop *l, const char *dir, const char *vm, struct chardev **out, struct err *e);

#endif
