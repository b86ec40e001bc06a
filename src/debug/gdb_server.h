/* The gdb server's sockets: listening ones that were there before the sandbox, one client at a time. Main thread only. */
#ifndef DEBUG_GDB_SERVER_H
#define DEBUG_GDB_SERVER_H

#include "base/loop.h"
#include "debug/gdb.h"

#define GDB_LISTENERS_MAX 2

struct gdb_server;
int gdb_server_new(struct loop *l, const struct gdb_target *t, struct gdb_server **out);
int gdb_server_listen(struct gdb_server *s, int fd); /* owns the fd on success */
struct gdb *gdb_server_session(struct gdb_server *s);
bool gdb_server_connected(const struct gdb_server *s);
void gdb_server_flush(struct gdb_server *s); /* after anything that may have said something to gdb */
void gdb_server_free(struct gdb_server *s);

#endif
