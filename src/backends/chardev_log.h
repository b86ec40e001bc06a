/* A chardev that remembers the last output, and passes both directions on to another one. */
#ifndef BACKENDS_CHARDEV_LOG_H
#define BACKENDS_CHARDEV_LOG_H

#include "backends/chardev.h"

/* size: bytes remembered, > 0. next: the chardev behind, owned from success on; NULL: none (output is only
 * remembered). */
int chardev_log_create(struct chardev *next, size_t size, struct chardev **out);
/* Any thread: copies up to n of the remembered bytes from position *pos on (counted since the start of the
 * machine; moved up to what is still there) and advances *pos behind them. Returns how many. */
size_t chardev_log_read(struct chardev *log, u64 *pos, void *buf, size_t n);

#endif
