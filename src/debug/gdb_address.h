/* Where a debugger may connect: HOST:PORT, :PORT (this machine only), or a path. */
#ifndef DEBUG_GDB_ADDRESS_H
#define DEBUG_GDB_ADDRESS_H

#include "base/base.h"

/* A listening socket, not blocking; or -errno. text[n]: what `target remote` takes. */
int gdb_address_listen(const char *address, char *text, size_t n, struct err *e);

#endif
