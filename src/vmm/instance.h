/* A VM's place under the runtime directory: NAME/ with lock, info.json, qmp.sock, console.sock. The lock says whether it lives. */
#ifndef VMM_INSTANCE_H
#define VMM_INSTANCE_H

#include "base/base.h"
#include "base/paths.h"

#define INSTANCE_NAME_MAX 32

struct instance {
	char name[INSTANCE_NAME_MAX + 1];
	char dir[PATHS_MAX + INSTANCE_NAME_MAX + 2];
	int lock_fd;
};
struct instance_info {
	char name[INSTANCE_NAME_MAX + 1];
	int pid;
	u64 memory, started; /* bytes; seconds since 1970 */
	u32 cpus;
	char engine[16], kernel[200];
	char ports[400]; /* forwarded to the guest: "tcp 127.0.0.1:8080->80, ..." */
};

bool instance_name_ok(const char *name);
/* Claims the name: -EEXIST while a live VM has it; what a crashed one left is removed. */
int instance_claim(struct instance *in, const char *name, struct err *e);
void instance_release(struct instance *in); /* removes the directory */
int instance_write_info(const struct instance *in, const struct instance_info *info);
int instance_socket(const struct instance *in, const char *file, struct err *e); /* listening socket */

/* ---- other processes ---- */
/* Calls fn for each live VM, by name; removes what crashed ones left. */
int instance_each(void (*fn)(void *arg, const struct instance_info *info), void *arg, struct err *e);
int instance_connect(const char *name, const char *file, struct err *e); /* connected socket */
/* Opens one of its files for reading; -errno: it has none, or there is no such VM. */
int instance_open(const char *name, const char *file, struct err *e);
int instance_read_info(const char *name, struct instance_info *out, struct err *e);

#endif
