/* More about files than base.h: reading through an open descriptor. */
#ifndef BASE_FILE_H
#define BASE_FILE_H

#include "base/types.h"

/* Whole file by descriptor (a regular file from its start, its offset unchanged); as read_file(). */
int read_fd(int fd, u64 max, void **data, u64 *size);

#endif
