/* Inside the server: a request being served, and what the operations share. */
#ifndef FS_FS_INT_H
#define FS_FS_INT_H

#include "fs/fs.h"

struct fs_request {
	struct fs *fs;
	struct fs_thread *t;
	const struct virtq_chain *c;
	struct fuse_in_header h;
	u64 number; /* of the share's requests, from 1 */
	const u8 *arg; /* what follows the header: a copy */
	u32 arg_len, arg_at;
	struct fs_node *node;
	u32 room;  /* bytes for the answer, behind its header */
	u32 reply; /* bytes of the answer that are there */
};

/* Arguments, one after the other; NULL when the request has no more. */
const void *req_take(struct fs_request *r, u32 n);
const char *req_string(struct fs_request *r); /* up to its NUL */
int req_name(struct fs_request *r,
	     const char **name); /* a name that is one path component; or -EINVAL, -ENAMETOOLONG */
int req_reply(struct fs_request *r, const void *p, u32 n); /* -ERANGE: the guest left no room */

/* ---- nodes ---- */
/* A reference, to be put back; NULL: no such node. With _fd: node->fd is open and stays so until node_unpin.
 */
struct fs_node *node_get(struct fs *fs, u64 id);
void node_put(struct fs *fs, struct fs_node *n);
int node_pin(struct fs *fs, struct fs_node *n); /* the descriptor, or -errno; -EACCES: closed to the guest */
int node_pin_closed(struct fs *fs, struct fs_node *n); /* only to look at it from outside */
void node_unpin(struct fs *fs, struct fs_node *n);
/* The file that st describes, seen as name in dir (open as dir_fd): counted as looked up by the guest, which may forget it before it is told
 * of it: it guesses the number. So a reference, to be put back; NULL: no memory. */
struct fs_node *node_seen(struct fs *fs, struct fs_node *dir, int dir_fd, const char *name,
			  const struct statx *st);
/* A file that has no name yet; owns fd if it succeeds. Looked up, and a reference, likewise. */
struct fs_node *node_adopt(struct fs *fs, int fd, const struct statx *st);
void node_forget(struct fs *fs, u64 id, u64 lookups);
/* A reference to the node for name in dir, if the guest knows it. */
struct fs_node *node_find(struct fs *fs, int dir_fd, const char *name);
void node_moved(struct fs *fs, struct fs_node *n, struct fs_node *dir, const char *name);
/* The name goes: afterwards the node lives by its descriptor. */
void node_unlinked(struct fs *fs, struct fs_node *n, struct fs_node *dir, const char *name);
struct fs_key key_of(const struct fs *fs, const struct statx *st);

/* tables of numbered objects; under fs->lock */
int table_add(struct fs_table *t, void *p, u64 *id);
void *table_get(const struct fs_table *t, u64 id);
void table_del(struct fs_table *t, u64 id);
void table_free(struct fs_table *t);

/* ---- handles ---- */
int handle_new(struct fs *fs, struct fs_node *n, int fd, bool writable, u64 *id); /* owns fd if it succeeds */
struct fs_handle *handle_get(struct fs *fs, u64 id,
			     const struct fs_node *n); /* of that node; NULL: no such */
void handle_put(struct fs *fs, struct fs_handle *h);
/* The thread's promise to read on in h before the next request, or none (NULL); takes the reference. */
void handle_ahead(struct fs_thread *t, struct fs_handle *h, u64 request);
void handle_close(struct fs *fs, u64 id, const struct fs_node *n);
/* Answers an open request with a new handle of fd, which is the handle's or closed from here on. */
int op_opened(struct fs_request *r, int fd, bool write, struct fuse_open_out *out);

/* ---- habit.c ---- */
bool habit_wants_attributes(struct fs *fs, struct fs_node *dir, u8 type);
void habit_looked_up(struct fs *fs, struct fs_node *dir);
u32 habit_opened_dir(struct fs *fs, struct fs_node *dir, const struct statx *st);

/* ---- shared by operations (attr.c, cred.c) ---- */
#define FS_STATX_MASK (STATX_BASIC_STATS | STATX_BTIME | STATX_MNT_ID)
void attr_fill(const struct fs *fs, const struct statx *st, struct fuse_attr *a);
void attr_timeout(const struct fs *fs, u64 *s, u32 *ns);
int node_statx(struct fs *fs, struct fs_node *n, struct statx *st);
/* Looks name up in r's directory and answers with the entry. */
int entry_fill(struct fs_request *r, struct fs_node *dir, int dir_fd, const char *name,
	       struct fuse_entry_out *out);
int reply_entry(struct fs_request *r, int dir_fd, const char *name);
/* Opens the file itself, a regular file or a directory: flags of open(2). Not by its name, so it is this
 * file. */
int node_reopen(struct fs *fs, struct fs_node *n, int flags);
u64 guest_ino(const struct fs *fs, dev_t dev, u64 ino);
/* What the guest is to do with cached data of a file it opens (FOPEN_*). */
u32 open_flags(const struct fs *fs);
void proc_name(int fd, char buf[16]);

/* What the thread does between these, it does with the guest's user and group (if this process may). */
struct fs_cred {
	bool entered;
};
bool cred_may_act(void);
int cred_enter(const struct fs_request *r, struct fs_cred *c);
void cred_leave(struct fs_cred *c);
/* Between these the kernel clears setuid and setgid bits of files written, whoever we are. */
void cred_drop_fsetid(const struct fs *fs);
void cred_raise_fsetid(const struct fs *fs);

/* ---- dax.c ---- */
enum dax { DAX_UNKNOWN, DAX_NO, DAX_YES };
bool dax_offered(const struct fs *fs);
void dax_forget(struct fs *fs);
void dax_work_ahead(struct fs_thread *t);
u32 dax_attr(struct fs *fs, struct fs_node *n, const struct statx *st); /* FUSE_ATTR_DAX or 0 */

typedef int fs_op(struct fs_request *r);
fs_op op_lookup, op_getattr, op_setattr, op_readlink, op_symlink, op_mknod, op_mkdir, op_unlink, op_rmdir,
    op_rename, op_rename2, op_link, op_open, op_read, op_write, op_statfs, op_release, op_fsync, op_setxattr,
    op_getxattr, op_listxattr, op_removexattr, op_flush, op_init, op_opendir, op_readdir, op_readdirplus,
    op_releasedir, op_fsyncdir, op_getlk, op_setlk, op_setlkw, op_access, op_create, op_destroy, op_fallocate,
    op_lseek, op_copy_file_range, op_syncfs, op_tmpfile, op_setupmapping, op_removemapping, op_forget, op_batch_forget, op_ioctl, op_statx;

#endif
