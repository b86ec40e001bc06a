/* A guest's side of FUSE, for tests: requests put together by hand in one chain of local memory. */
#ifndef TESTS_FS_CLIENT_H
#define TESTS_FS_CLIENT_H

#include "fs/fs_int.h"

struct fs_client {
	char dir[64]; /* the share */
	struct fs fs;
	struct fs_thread *t;
	u8 in[FS_ARG_MAX + 4096], out[FS_OUT_MAX + 4096];
	u32 in_len;
	u32 room;  /* bytes for the answer; sizeof(out) unless a test wants less */
	u32 split; /* cut both parts into segments of so many bytes; 0: one each */
	u64 unique;
	u32 uid, gid;
	const u8 *reply; /* of the last call: behind the header */
	u32 reply_len;
};

/* A share in a new directory under /tmp. The process' working directory becomes /proc/self/fd. */
void client_open(struct fs_client *c, const struct fs_options *o);
void client_close(struct fs_client *c); /* removes the directory */
void client_init(struct fs_client *c);  /* FUSE_INIT */
const char *client_path(struct fs_client *c,
			const char *name); /* of a file in the share, for the host's own calls */

/* Request: begin, add arguments, send: 0 or -errno of the answer. */
void client_begin(struct fs_client *c, u32 opcode, u64 node);
void client_add(struct fs_client *c, const void *p, u32 n);
void client_add_name(struct fs_client *c, const char *name);
int client_send(struct fs_client *c);

/* the usual ones */
int client_call(struct fs_client *c, u32 opcode, u64 node, const void *arg, u32 n, const char *name);
int client_lookup(struct fs_client *c, u64 dir, const char *name, struct fuse_entry_out *e);
u64 client_find(struct fs_client *c, u64 dir, const char *name); /* the node; 0: none */
int client_openat(struct fs_client *c, u32 opcode, u64 node, u32 flags, u64 *fh);
int client_create(struct fs_client *c, u64 dir, const char *name, u32 flags, u32 mode, u64 *node, u64 *fh);
int client_read(struct fs_client *c, u64 node, u64 fh, u64 offset, u32 size);
int client_write(struct fs_client *c, u64 node, u64 fh, u64 offset, const void *p, u32 n);
int client_release(struct fs_client *c, u64 node, u64 fh);
void client_forget(struct fs_client *c, u64 node, u64 n);

#endif
