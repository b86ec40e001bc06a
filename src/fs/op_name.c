/* Names: made, moved, removed. What a name stood for stays usable by its node. */
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "fs/fs_int.h"

/* The directory's descriptor; node_unpin when done. */
static int pin_dir(struct fs *fs, struct fs_node *n)
{
	return S_ISDIR(n->key.type) ? node_pin(fs, n) : -ENOTDIR;
}

/* ---- making ---- */
struct making {
	mode_t mode;
	dev_t rdev;
	const char *target;
};
typedef int make_fn(int dir, const char *name, const struct making *m);

static int make_dir(int dir, const char *name, const struct making *m)
{
	return mkdirat(dir, name, m->mode);
}

static int make_node(int dir, const char *name, const struct making *m)
{
	return mknodat(dir, name, m->mode, m->rdev);
}

static int make_symlink(int dir, const char *name, const struct making *m)
{
	return symlinkat(m->target, dir, name);
}

static int make(struct fs_request *r, make_fn *fn, const char *name, const struct making *m)
{
	struct fs_cred cred;
	int dir = pin_dir(r->fs, r->node);

	if (dir < 0)
		return dir;
	int ret = cred_enter(r, &cred);

	if (!ret) {
		ret = fn(dir, name, m) < 0 ? -errno : 0;
		cred_leave(&cred);
	}
	if (!ret)
		ret = reply_entry(r, dir, name);
	node_unpin(r->fs, r->node);
	return ret;
}

int op_mkdir(struct fs_request *r)
{
	const struct fuse_mkdir_in *in = req_take(r, sizeof(*in));
	struct making m = {.mode = in->mode & 07777};
	const char *name = NULL;
	int ret = req_name(r, &name);

	return ret ? ret : make(r, make_dir, name, &m);
}

/* A device of the guest's must not become one of the host's. A whiteout (overlayfs) is none. */
int op_mknod(struct fs_request *r)
{
	const struct fuse_mknod_in *in = req_take(r, sizeof(*in));
	struct making m = {.mode = in->mode & (S_IFMT | 07777)};
	const char *name = NULL;
	int ret = req_name(r, &name);

	if (!ret && (S_ISBLK(m.mode) || (S_ISCHR(m.mode) && in->rdev)))
		ret = -EPERM;
	return ret ? ret : make(r, make_node, name, &m);
}

int op_symlink(struct fs_request *r)
{
	struct making m = {0};
	const char *name = NULL;
	int ret = req_name(r, &name);

	m.target = req_string(r);
	if (!ret && (!m.target || !*m.target))
		ret = -EINVAL;
	if (!ret && strlen(m.target) >= PATH_MAX)
		ret = -ENAMETOOLONG;
	return ret ? ret : make(r, make_symlink, name, &m);
}

int op_link(struct fs_request *r)
{
	const struct fuse_link_in *in = req_take(r, sizeof(*in));
	struct fs_node *old = NULL;
	const char *name = NULL;
	char proc[16];
	int fd = -1, dir = -1, ret = req_name(r, &name);

	if (ret)
		return ret;
	dir = pin_dir(r->fs, r->node);
	if (dir < 0)
		return dir;
	old = node_get(r->fs, in->oldnodeid);
	fd = old ? node_pin(r->fs, old) : -ESTALE;
	if (fd >= 0) {
		proc_name(fd, proc);
		ret = linkat(AT_FDCWD, proc, dir, name, AT_SYMLINK_FOLLOW) < 0 ? -errno : 0;
		node_unpin(r->fs, old);
		if (!ret)
			ret = reply_entry(r, dir, name);
	} else {
		ret = fd;
	}
	node_put(r->fs, old);
	node_unpin(r->fs, r->node);
	return ret;
}

/* ---- files that are open from the start ---- */
static int reply_created(struct fs_request *r, struct fs_node *n, const struct statx *st, u64 fh)
{
	struct {
		struct fuse_entry_out entry;
		struct fuse_open_out open;
	} out = {.entry.nodeid = n->id, .open = {.fh = fh, .open_flags = open_flags(r->fs)}};

	attr_timeout(r->fs, &out.entry.entry_valid, &out.entry.entry_valid_nsec);
	attr_timeout(r->fs, &out.entry.attr_valid, &out.entry.attr_valid_nsec);
	attr_fill(r->fs, st, &out.entry.attr);
	return req_reply(r, &out, sizeof(out));
}

/* Answers with the file that fd is open on; owns fd. name NULL: it has none. */
static int finish_create(struct fs_request *r, int dir_fd, const char *name, int fd)
{
	struct statx st;
	struct fs_node *n = NULL;
	u64 fh = 0;
	int path = -1, ret = statx(fd, "", AT_EMPTY_PATH, FS_STATX_MASK, &st) < 0 ? -errno : 0;

	if (!ret && name) {
		n = node_seen(r->fs, r->node, dir_fd, name, &st);
	} else if (!ret) {
		char proc[16];

		proc_name(fd, proc);
		path = open(proc, O_PATH | O_CLOEXEC);
		n = path >= 0 ? node_adopt(r->fs, path, &st) : NULL;
		if (!n && path >= 0)
			close(path);
	}
	if (!ret && !n)
		ret = -ENOMEM;
	if (!ret)
		ret = handle_new(r->fs, n, fd, true, &fh);
	if (ret)
		close(fd);
	if (!ret) {
		ret = reply_created(r, n, &st, fh);
		if (ret)
			handle_close(r->fs, fh, NULL);
	}
	if (ret && n)
		node_forget(r->fs, n->id, 1);
	node_put(r->fs, n);
	return ret;
}

static int create_at(struct fs_request *r, const char *path, int dir, int flags, mode_t mode)
{
	struct fs_cred cred;
	int ret = cred_enter(r, &cred);

	if (ret)
		return ret;
	int fd = openat(dir, path, flags | O_CLOEXEC | O_NONBLOCK, mode);

	ret = fd < 0 ? -errno : fd;
	cred_leave(&cred);
	return ret;
}

/* It has come into being since the guest looked: opened as any file. */
static int open_existing(struct fs_request *r, int dir, const char *name, int flags)
{
	struct fuse_entry_out entry;
	int ret = entry_fill(r, r->node, dir, name, &entry);
	struct fs_node *n = ret ? NULL : node_get(r->fs, entry.nodeid);

	if (!ret)
		ret = n && S_ISREG(n->key.type) ? node_reopen(r->fs, n, flags) : -EEXIST;
	node_put(r->fs, n);
	node_forget(r->fs, entry.nodeid, 1);
	return ret;
}

int op_create(struct fs_request *r)
{
	const struct fuse_create_in *in = req_take(r, sizeof(*in));
	int flags = (int)in->flags & (O_ACCMODE | O_APPEND | O_TRUNC | O_SYNC | O_DSYNC);
	const char *name = NULL;
	int ret = req_name(r, &name);
	int dir = ret ? ret : pin_dir(r->fs, r->node);

	if (dir < 0)
		return dir;
	int fd = create_at(r, name, dir, flags | O_CREAT | O_EXCL | O_NOFOLLOW, in->mode & 07777);

	if (fd == -EEXIST && !(in->flags & O_EXCL))
		fd = open_existing(r, dir, name, flags);
	ret = fd < 0 ? fd : finish_create(r, dir, name, fd);
	node_unpin(r->fs, r->node);
	return ret;
}

int op_tmpfile(struct fs_request *r)
{
	const struct fuse_create_in *in = req_take(r, sizeof(*in));
	int flags = (int)in->flags & (O_ACCMODE | O_SYNC | O_DSYNC | O_EXCL);
	char proc[16];
	int dir = pin_dir(r->fs, r->node);

	if (dir < 0)
		return dir;
	proc_name(dir, proc);
	int fd = create_at(r, proc, AT_FDCWD, flags | O_TMPFILE, in->mode & 07777);

	node_unpin(r->fs, r->node);
	return fd < 0 ? fd : finish_create(r, -1, NULL, fd);
}

/* ---- removing and moving ---- */
/* The node behind a name that is about to go, with its descriptor open; NULL when the guest does not know it.
 */
static struct fs_node *hold(struct fs *fs, int dir, const char *name)
{
	struct fs_node *n = node_find(fs, dir, name);

	if (n && node_pin(fs, n) < 0) {
		node_put(fs, n);
		n = NULL;
	}
	return n;
}

static void let_go(struct fs *fs, struct fs_node *n)
{
	if (!n)
		return;
	node_unpin(fs, n);
	node_put(fs, n);
}

static int remove_name(struct fs_request *r, int flags)
{
	const char *name = NULL;
	int ret = req_name(r, &name);
	int dir = ret ? ret : pin_dir(r->fs, r->node);

	if (dir < 0)
		return dir;
	struct fs_node *n = hold(r->fs, dir, name);

	ret = unlinkat(dir, name, flags) < 0 ? -errno : 0;
	if (!ret && n)
		node_unlinked(r->fs, n, r->node, name);
	let_go(r->fs, n);
	node_unpin(r->fs, r->node);
	return ret;
}

int op_unlink(struct fs_request *r)
{
	return remove_name(r, 0);
}

int op_rmdir(struct fs_request *r)
{
	return remove_name(r, AT_REMOVEDIR);
}

static int rename_pinned(struct fs_request *r, int from_fd, const char *from, struct fs_node *to_dir,
			 int to_fd, const char *to, u32 flags)
{
	struct fs_node *moved = hold(r->fs, from_fd, from), *gone = hold(r->fs, to_fd, to);
	int ret = renameat2(from_fd, from, to_fd, to, flags) < 0 ? -errno : 0;

	if (!ret && gone && gone != moved) {
		if (flags & RENAME_EXCHANGE)
			node_moved(r->fs, gone, r->node, from);
		else
			node_unlinked(r->fs, gone, to_dir, to);
	}
	if (!ret && moved && gone != moved) /* two names of one file: nothing happens (rename(2)) */
		node_moved(r->fs, moved, to_dir, to);
	let_go(r->fs, moved);
	let_go(r->fs, gone);
	return ret;
}

static int rename_to(struct fs_request *r, u64 dir_id, u32 flags)
{
	const char *from = NULL, *to = NULL;
	struct fs_node *to_dir = NULL;
	int ret = req_name(r, &from);

	if (!ret)
		ret = req_name(r, &to);
	if (!ret && (flags & ~(u32)(RENAME_NOREPLACE | RENAME_EXCHANGE | RENAME_WHITEOUT)))
		ret = -EINVAL;
	int from_fd = ret ? ret : pin_dir(r->fs, r->node);

	if (from_fd < 0)
		return from_fd;
	to_dir = node_get(r->fs, dir_id);
	int to_fd = to_dir ? pin_dir(r->fs, to_dir) : -ESTALE;

	ret = to_fd;
	if (to_fd >= 0) {
		ret = rename_pinned(r, from_fd, from, to_dir, to_fd, to, flags);
		node_unpin(r->fs, to_dir);
	}
	node_put(r->fs, to_dir);
	node_unpin(r->fs, r->node);
	return ret;
}

int op_rename(struct fs_request *r)
{
	const struct fuse_rename_in *in = req_take(r, sizeof(*in));

	return rename_to(r, in->newdir, 0);
}

int op_rename2(struct fs_request *r)
{
	const struct fuse_rename2_in *in = req_take(r, sizeof(*in));

	return rename_to(r, in->newdir, in->flags);
}
