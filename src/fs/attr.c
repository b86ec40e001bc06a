/* What files are: attributes, entries, and how long the guest may believe them. */
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "fs/fs_int.h"

/* Seconds the guest may go without asking, by policy: for names and attributes; for names that are not there.
 */
static const struct {
	u64 valid, negative;
} policy[] = {[FS_CACHE_AUTO] = {1, 1}, [FS_CACHE_ALWAYS] = {86400, 86400}, [FS_CACHE_NEVER] = {0, 0}};

void attr_timeout(const struct fs *fs, u64 *s, u32 *ns)
{
	*s = policy[fs->o.cache].valid;
	*ns = 0;
}

/* Linux's own 32-bit device numbers (new_encode_dev) */
static u32 encode_dev(u32 major, u32 minor)
{
	return (minor & 0xff) | major << 8 | (minor & ~0xffu) << 12;
}

/*
 * Several file systems of ours are one for the guest: inode numbers of those that are not the root's get
 * their device into the top bits, so that two files are not taken for one. Stable over time, unique but for
 * bad luck.
 */
u64 guest_ino(const struct fs *fs, dev_t dev, u64 ino)
{
	if (dev == fs->root_dev)
		return ino;
	return ino ^ ((dev * 0x9e3779b97f4a7c15ull >> 49) << 48 | 1ull << 63);
}

void attr_fill(const struct fs *fs, const struct statx *st, struct fuse_attr *a)
{
	*a = (struct fuse_attr){.ino =
				    guest_ino(fs, makedev(st->stx_dev_major, st->stx_dev_minor), st->stx_ino),
				.size = st->stx_size,
				.blocks = st->stx_blocks,
				.atime = (u64)st->stx_atime.tv_sec,
				.atimensec = st->stx_atime.tv_nsec,
				.mtime = (u64)st->stx_mtime.tv_sec,
				.mtimensec = st->stx_mtime.tv_nsec,
				.ctime = (u64)st->stx_ctime.tv_sec,
				.ctimensec = st->stx_ctime.tv_nsec,
				.mode = st->stx_mode,
				.nlink = st->stx_nlink,
				.uid = st->stx_uid,
				.gid = st->stx_gid,
				.rdev = encode_dev(st->stx_rdev_major, st->stx_rdev_minor),
				.blksize = st->stx_blksize};
}

void proc_name(int fd, char buf[16])
{
	snprintf(buf, 16, "%d", fd);
}

u32 open_flags(const struct fs *fs)
{
	/* otherwise FUSE_AUTO_INVAL_DATA drops what has changed */
	return fs->o.cache == FS_CACHE_NEVER ? FOPEN_DIRECT_IO : FOPEN_KEEP_CACHE;
}

int node_statx(struct fs *fs, struct fs_node *n, struct statx *st)
{
	int fd = node_pin_closed(fs, n);

	if (fd < 0)
		return fd;
	int ret = statx(fd, "", AT_EMPTY_PATH, FS_STATX_MASK, st) < 0 ? -errno : 0;

	node_unpin(fs, n);
	return ret;
}

static int reply_attr(struct fs_request *r, const struct statx *st)
{
	struct fuse_attr_out out = {0};

	attr_timeout(r->fs, &out.attr_valid, &out.attr_valid_nsec);
	attr_fill(r->fs, st, &out.attr);
	out.attr.flags = dax_attr(r->fs, r->node, st);
	return req_reply(r, &out, sizeof(out));
}

int op_getattr(struct fs_request *r)
{
	const struct fuse_getattr_in *in = req_take(r, sizeof(*in));
	bool by_handle = (in->getattr_flags & FUSE_GETATTR_FH) && !r->node->closed;
	struct fs_handle *h = by_handle ? handle_get(r->fs, in->fh, r->node) : NULL;
	struct statx st;
	int ret = 0;

	if (h)
		ret = statx(h->fd, "", AT_EMPTY_PATH, FS_STATX_MASK, &st) < 0 ? -errno : 0;
	else
		ret = node_statx(r->fs, r->node, &st);
	handle_put(r->fs, h);

	return ret ? ret : reply_attr(r, &st);
}

/* FUSE_STATX (7.39), of which older headers know nothing. */
struct fs_statx_out {
	u64 attr_valid;
	u32 attr_valid_nsec, flags;
	u64 spare[2];
	struct {
		u32 mask, blksize;
		u64 attributes;
		u32 nlink, uid, gid;
		u16 mode, spare0;
		u64 ino, size, blocks, attributes_mask;
		struct {
			s64 sec;
			u32 nsec, spare;
		} atime, btime, ctime, mtime;
		u32 rdev_major, rdev_minor, dev_major, dev_minor;
		u64 spare2[14];
	} stat;
};
_Static_assert(sizeof(struct fs_statx_out) == 288, "struct fuse_statx_out");

int op_statx(struct fs_request *r)
{
	struct statx st;
	struct fs_statx_out out = {0};
	int ret = node_statx(r->fs, r->node, &st);

	if (ret)
		return ret;
	attr_timeout(r->fs, &out.attr_valid, &out.attr_valid_nsec);
	out.stat.mask = st.stx_mask & (STATX_BASIC_STATS | STATX_BTIME);
	out.stat.blksize = st.stx_blksize;
	out.stat.nlink = st.stx_nlink;
	out.stat.uid = st.stx_uid;
	out.stat.gid = st.stx_gid;
	out.stat.mode = st.stx_mode;
	out.stat.ino = guest_ino(r->fs, makedev(st.stx_dev_major, st.stx_dev_minor), st.stx_ino);
	out.stat.size = st.stx_size;
	out.stat.blocks = st.stx_blocks;
	out.stat.atime.sec = st.stx_atime.tv_sec, out.stat.atime.nsec = st.stx_atime.tv_nsec;
	out.stat.btime.sec = st.stx_btime.tv_sec, out.stat.btime.nsec = st.stx_btime.tv_nsec;
	out.stat.ctime.sec = st.stx_ctime.tv_sec, out.stat.ctime.nsec = st.stx_ctime.tv_nsec;
	out.stat.mtime.sec = st.stx_mtime.tv_sec, out.stat.mtime.nsec = st.stx_mtime.tv_nsec;
	out.stat.rdev_major = st.stx_rdev_major;
	out.stat.rdev_minor = st.stx_rdev_minor;
	return req_reply(r, &out, sizeof(out));
}

/* ---- changing them ---- */
static int set_size(struct fs_request *r, const struct fuse_setattr_in *in, const char *proc)
{
	struct fs_handle *h = in->valid & FATTR_FH ? handle_get(r->fs, in->fh, r->node) : NULL;
	int ret = 0;

	if (in->size > INT64_MAX)
		ret = -EFBIG;
	else if (!S_ISREG(r->node->key.type))
		ret = S_ISDIR(r->node->key.type) ? -EISDIR : -EINVAL;
	else if (h && h->writable)
		ret = ftruncate(h->fd, (off_t)in->size) < 0 ? -errno : 0;
	else
		ret = truncate(proc, (off_t)in->size) < 0 ? -errno : 0;
	handle_put(r->fs, h);
	return ret;
}

static struct timespec time_for(u32 valid, u32 set, u32 now, u64 s, u32 ns)
{
	if (!(valid & set))
		return (struct timespec){.tv_nsec = UTIME_OMIT};
	if (valid & now)
		return (struct timespec){.tv_nsec = UTIME_NOW};
	return (struct timespec){.tv_sec = (time_t)s, .tv_nsec = (long)MIN(ns, 999999999u)};
}

static int apply(struct fs_request *r, const struct fuse_setattr_in *in, int fd)
{
	char proc[16];
	int ret = 0;

	proc_name(fd, proc);
	if (in->valid & (FATTR_UID | FATTR_GID))
		ret = fchownat(fd, "", in->valid & FATTR_UID ? in->uid : (uid_t)-1,
			       in->valid & FATTR_GID ? in->gid : (gid_t)-1,
			       AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) < 0
			  ? -errno
			  : 0;
	if (!ret && (in->valid & FATTR_MODE)) /* after chown, which clears bits */
		ret = S_ISLNK(r->node->key.type)                          ? -EOPNOTSUPP
		      : fchmodat(AT_FDCWD, proc, in->mode & 07777, 0) < 0 ? -errno
									  : 0;
	if (!ret && (in->valid & FATTR_SIZE))
		ret = set_size(r, in, proc);
	if (!ret && (in->valid & (FATTR_ATIME | FATTR_MTIME))) {
		struct timespec t[2] = {
		    time_for(in->valid, FATTR_ATIME, FATTR_ATIME_NOW, in->atime, in->atimensec),
		    time_for(in->valid, FATTR_MTIME, FATTR_MTIME_NOW, in->mtime, in->mtimensec)};

		ret = utimensat(AT_FDCWD, proc, t, 0) < 0 ? -errno : 0;
	}
	return ret;
}

int op_setattr(struct fs_request *r)
{
	const struct fuse_setattr_in *in = req_take(r, sizeof(*in));
	bool kill = in->valid & FATTR_KILL_SUIDGID;
	struct statx st;
	int fd = node_pin(r->fs, r->node), ret = 0;

	if (fd < 0)
		return fd;
	if (kill)
		cred_drop_fsetid(r->fs);
	ret = apply(r, in, fd);
	if (kill)
		cred_raise_fsetid(r->fs);
	if (!ret && statx(fd, "", AT_EMPTY_PATH, FS_STATX_MASK, &st) < 0)
		ret = -errno;
	node_unpin(r->fs, r->node);
	return ret ? ret : reply_attr(r, &st);
}

/* ---- entries ---- */
int entry_fill(struct fs_request *r, struct fs_node *dir, int dir_fd, const char *name,
	       struct fuse_entry_out *out)
{
	struct statx st;

	memset(out, 0, sizeof(*out));
	if (statx(dir_fd, name, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, FS_STATX_MASK, &st) < 0)
		return -errno;
	struct fs_node *n = node_seen(r->fs, dir, dir_fd, name, &st);

	if (!n)
		return -ENOMEM;
	out->nodeid = n->id;
	attr_timeout(r->fs, &out->entry_valid, &out->entry_valid_nsec);
	attr_timeout(r->fs, &out->attr_valid, &out->attr_valid_nsec);
	attr_fill(r->fs, &st, &out->attr);
	out->attr.flags = dax_attr(r->fs, n, &st);
	node_put(r->fs, n);
	return 0;
}

int reply_entry(struct fs_request *r, int dir_fd, const char *name)
{
	struct fuse_entry_out out;
	int ret = entry_fill(r, r->node, dir_fd, name, &out);

	if (ret)
		return ret;
	ret = req_reply(r, &out, sizeof(out));
	if (ret)
		node_forget(r->fs, out.nodeid, 1);
	return ret;
}

int op_lookup(struct fs_request *r)
{
	const char *name = NULL;
	int ret = req_name(r, &name);
	int fd = ret ? ret : node_pin_closed(r->fs, r->node);

	if (fd < 0)
		return fd;
	if (!S_ISDIR(r->node->key.type))
		ret = -ENOTDIR;
	else
		ret = r->node->closed ? -ENOENT : reply_entry(r, fd, name);
	node_unpin(r->fs, r->node);
	if (!ret)
		habit_looked_up(r->fs, r->node);
	if (ret == -ENOENT && policy[r->fs->o.cache].negative) {
		struct fuse_entry_out out = {.entry_valid = policy[r->fs->o.cache].negative};

		ret = req_reply(r, &out, sizeof(out)) ? -ENOENT : 0;
	}
	return ret;
}

int op_forget(struct fs_request *r)
{
	const struct fuse_forget_in *in = req_take(r, sizeof(*in));

	node_forget(r->fs, r->h.nodeid, in->nlookup);
	return 0;
}

int op_batch_forget(struct fs_request *r)
{
	const struct fuse_batch_forget_in *in = req_take(r, sizeof(*in));
	const struct fuse_forget_one *one = NULL;

	for (u32 i = 0; i < in->count && (one = req_take(r, sizeof(*one))); i++)
		node_forget(r->fs, one->nodeid, one->nlookup);
	return 0;
}

int op_readlink(struct fs_request *r)
{
	int fd = S_ISLNK(r->node->key.type) ? node_pin(r->fs, r->node) : -EINVAL;

	if (fd < 0)
		return fd;
	ssize_t n = readlinkat(fd, "", (char *)r->t->out, PATH_MAX);
	int ret = n < 0 ? -errno : req_reply(r, r->t->out, (u32)n);

	node_unpin(r->fs, r->node);
	return ret;
}

int op_access(struct fs_request *r)
{
	const struct fuse_access_in *in = req_take(r, sizeof(*in));
	char proc[16];
	int fd = node_pin(r->fs, r->node);

	if (fd < 0)
		return fd;
	proc_name(fd, proc);
	int ret = faccessat(AT_FDCWD, proc, (int)in->mask & (R_OK | W_OK | X_OK), 0) < 0 ? -errno : 0;

	node_unpin(r->fs, r->node);
	return (in->mask & W_OK) && r->fs->o.readonly ? -EROFS : ret;
}
