/*
 * A FUSE request out of a chain (fuse.h): header and arguments are copied once and checked; the operation is
 * a row of the table. Data of READ and WRITE go between file and guest memory directly.
 */
#include <limits.h>
#include <string.h>

#include "fs/fs_int.h"

enum {
	WRITES = 1,   /* changes something: refused on a read-only share */
	NO_REPLY = 2, /* the guest does not wait */
	NO_NODE = 4,  /* the header's node means nothing */
	BEFORE_INIT = 8,
	DATA = 16, /* the arguments are followed by data, which stay where they are */
};
#ifndef FUSE_STATX
#define FUSE_STATX 52 /* protocol 7.39 */
#endif

static const struct row {
	fs_op *op;
	u16 min; /* bytes of arguments */
	u8 flags;
} rows[] = {
    [FUSE_LOOKUP] = {op_lookup, 2, 0},
    [FUSE_FORGET] = {op_forget, sizeof(struct fuse_forget_in), NO_REPLY | NO_NODE},
    [FUSE_GETATTR] = {op_getattr, sizeof(struct fuse_getattr_in), 0},
    [FUSE_SETATTR] = {op_setattr, sizeof(struct fuse_setattr_in), WRITES},
    [FUSE_READLINK] = {op_readlink, 0, 0},
    [FUSE_SYMLINK] = {op_symlink, 4, WRITES},
    [FUSE_MKNOD] = {op_mknod, sizeof(struct fuse_mknod_in), WRITES},
    [FUSE_MKDIR] = {op_mkdir, sizeof(struct fuse_mkdir_in), WRITES},
    [FUSE_UNLINK] = {op_unlink, 2, WRITES},
    [FUSE_RMDIR] = {op_rmdir, 2, WRITES},
    [FUSE_RENAME] = {op_rename, sizeof(struct fuse_rename_in), WRITES},
    [FUSE_LINK] = {op_link, sizeof(struct fuse_link_in), WRITES},
    [FUSE_OPEN] = {op_open, sizeof(struct fuse_open_in), 0},
    [FUSE_READ] = {op_read, sizeof(struct fuse_read_in), 0},
    [FUSE_WRITE] = {op_write, sizeof(struct fuse_write_in), WRITES | DATA},
    [FUSE_STATFS] = {op_statfs, 0, 0},
    [FUSE_RELEASE] = {op_release, sizeof(struct fuse_release_in), 0},
    [FUSE_FSYNC] = {op_fsync, sizeof(struct fuse_fsync_in), 0},
    [FUSE_SETXATTR] = {op_setxattr, FUSE_COMPAT_SETXATTR_IN_SIZE, WRITES},
    [FUSE_GETXATTR] = {op_getxattr, sizeof(struct fuse_getxattr_in), 0},
    [FUSE_LISTXATTR] = {op_listxattr, sizeof(struct fuse_getxattr_in), 0},
    [FUSE_REMOVEXATTR] = {op_removexattr, 2, WRITES},
    [FUSE_FLUSH] = {op_flush, sizeof(struct fuse_flush_in), 0},
    [FUSE_INIT] = {op_init, 16, NO_NODE | BEFORE_INIT},
    [FUSE_OPENDIR] = {op_opendir, sizeof(struct fuse_open_in), 0},
    [FUSE_READDIR] = {op_readdir, sizeof(struct fuse_read_in), 0},
    [FUSE_RELEASEDIR] = {op_releasedir, sizeof(struct fuse_release_in), 0},
    [FUSE_FSYNCDIR] = {op_fsyncdir, sizeof(struct fuse_fsync_in), 0},
    [FUSE_GETLK] = {op_getlk, sizeof(struct fuse_lk_in), 0},
    [FUSE_SETLK] = {op_setlk, sizeof(struct fuse_lk_in), 0},
    [FUSE_SETLKW] = {op_setlkw, sizeof(struct fuse_lk_in), 0},
    [FUSE_ACCESS] = {op_access, sizeof(struct fuse_access_in), 0},
    [FUSE_CREATE] = {op_create, sizeof(struct fuse_create_in), WRITES},
    [FUSE_DESTROY] = {op_destroy, 0, NO_NODE | BEFORE_INIT},
    [FUSE_IOCTL] = {op_ioctl, sizeof(struct fuse_ioctl_in), 0},
    [FUSE_BATCH_FORGET] = {op_batch_forget, sizeof(struct fuse_batch_forget_in), NO_REPLY | NO_NODE},
    [FUSE_FALLOCATE] = {op_fallocate, sizeof(struct fuse_fallocate_in), WRITES},
    [FUSE_READDIRPLUS] = {op_readdirplus, sizeof(struct fuse_read_in), 0},
    [FUSE_RENAME2] = {op_rename2, sizeof(struct fuse_rename2_in), WRITES},
    [FUSE_LSEEK] = {op_lseek, sizeof(struct fuse_lseek_in), 0},
    [FUSE_COPY_FILE_RANGE] = {op_copy_file_range, sizeof(struct fuse_copy_file_range_in), WRITES},
    [FUSE_SETUPMAPPING] = {op_setupmapping, sizeof(struct fuse_setupmapping_in), 0},
    [FUSE_REMOVEMAPPING] = {op_removemapping, sizeof(struct fuse_removemapping_in), NO_NODE},
    [FUSE_SYNCFS] = {op_syncfs, sizeof(struct fuse_syncfs_in), 0},
    [FUSE_TMPFILE] = {op_tmpfile, sizeof(struct fuse_create_in), WRITES},
    [FUSE_STATX] = {op_statx, 40, 0},
};

/* ---- arguments ---- */
const void *req_take(struct fs_request *r, u32 n)
{
	const u8 *p = r->arg + r->arg_at;

	if (n > r->arg_len - r->arg_at)
		return NULL;
	r->arg_at += n;
	return p;
}

const char *req_string(struct fs_request *r)
{
	const char *s = (const char *)r->arg + r->arg_at;
	const char *end = memchr(s, 0, r->arg_len - r->arg_at);

	if (!end)
		return NULL;
	r->arg_at += (u32)(end - s) + 1;
	return s;
}

int req_name(struct fs_request *r, const char **name)
{
	const char *s = req_string(r);

	if (!s || !*s || !strcmp(s, ".") || !strcmp(s, "..") || strchr(s, '/'))
		return -EINVAL;
	if (strlen(s) > FS_NAME_MAX)
		return -ENAMETOOLONG;
	*name = s;
	return 0;
}

int req_reply(struct fs_request *r, const void *p, u32 n)
{
	if (n > r->room - r->reply || !chain_write(r->c, sizeof(struct fuse_out_header) + r->reply, p, n))
		return -ERANGE;
	r->reply += n;
	return 0;
}

/* ---- serving ---- */
static const struct row *find_row(u32 opcode)
{
	return opcode < ARRAY_SIZE(rows) && rows[opcode].op ? &rows[opcode] : NULL;
}

/* Copies the arguments; the header says their length, and must not say more than there is. */
static int copy_arguments(struct fs_request *r, const struct row *row)
{
	u64 n = r->h.len;

	if (n < sizeof(r->h) || n > r->c->out_bytes)
		return -EINVAL;
	n -= sizeof(r->h);
	if (row->flags & DATA)
		n = MIN(n, row->min);
	if (n < row->min)
		return -EINVAL;
	if (n > FS_ARG_MAX)
		return -E2BIG;
	if (!chain_read(r->c, sizeof(r->h), r->t->arg, n))
		return -EINVAL;
	r->arg = r->t->arg;
	r->arg_len = (u32)n;
	return 0;
}

static int serve(struct fs_request *r, const struct row *row)
{
	struct fs *fs = r->fs;

	if (!__atomic_load_n(&fs->started, __ATOMIC_ACQUIRE) && !(row->flags & BEFORE_INIT))
		return -EIO;
	if ((row->flags & WRITES) && fs->o.readonly)
		return -EROFS;
	int ret = copy_arguments(r, row);

	if (ret || (row->flags & NO_NODE))
		return ret ? ret : row->op(r);
	r->node = node_get(fs, r->h.nodeid);
	if (!r->node)
		return -ESTALE;
	ret = row->op(r);
	node_put(fs, r->node);
	return ret;
}

u32 fs_handle(struct fs_thread *t, const struct virtq_chain *c)
{
	struct fs_request r = {.fs = t->fs, .t = t, .c = c};
	struct fuse_out_header out = {0};
	const struct row *row = NULL;
	bool answered = c->in_bytes >= sizeof(out);

	if (!chain_read(c, 0, &r.h, sizeof(r.h)))
		return 0;
	r.number = __atomic_add_fetch(&t->fs->requests, 1, __ATOMIC_RELAXED);
	row = find_row(r.h.opcode);
	if (row && (row->flags & NO_REPLY))
		answered = false;
	if (r.h.opcode == FUSE_INTERRUPT || (!answered && row && !(row->flags & NO_REPLY)))
		return 0; /* no room for an answer: nothing is done */
	r.room = answered ? (u32)MIN(c->in_bytes - sizeof(out), UINT32_MAX) : 0;
	int ret = c->unreachable ? -EFAULT : row ? serve(&r, row) : -ENOSYS;

	if (!answered)
		return 0;
	out.error = ret < 0 ? ret : 0;
	out.unique = r.h.unique;
	out.len = (u32)sizeof(out) + (ret < 0 ? 0 : r.reply);
	return chain_write(c, 0, &out, sizeof(out)) ? out.len : 0;
}
