/* The terminal: raw while a console session lasts, restored however the process ends. One per process. */
#ifndef BASE_TERM_H
#define BASE_TERM_H

#include "base/types.h"

/* 0, or -errno (-ENOTTY: fd is no terminal; nothing changed). Restores at exit and on fatal signals. */
int term_raw(int fd);
void term_restore(void); /* safe in signal handlers */
bool term_size(int fd, u16 *cols, u16 *rows);

#endif
