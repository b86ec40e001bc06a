/* The process behind a spooled device. Inside the backends room. */
#ifndef BACKENDS_SPOOLER_H
#define BACKENDS_SPOOLER_H

enum { SPOOL_DATA = 'D', SPOOL_END = 'E', SPOOL_DROP = 'X', SPOOL_DATA_MAX = 16384 };

/* Serves until the socket ends. vm: begins the files' names. */
void spooler_main(int socket, int dir, const char *vm) __attribute__((noreturn));

#endif
