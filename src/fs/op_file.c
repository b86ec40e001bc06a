/* Open files: opening, data, and what else works on a descriptor. */
#include <fcntl.h>
#include <unistd.h>

#include "fs/fs_int.h"

/* Of what the guest's process said to open(2), what means something here. O_DIRECT is between it and its own
 * kernel. */
#define OPEN_FLAGS (O_ACCMODE | O_APPEND | O_TRUNC | O_SYNC | O_DSYNC)

int node_reopen(struct fs *fs, struct fs_node *n, int flags)
{
	char proc[16];
	int fd = -1, path = S_ISREG(n->key.type) || S_ISDIR(n->key.type) ? node_pin(fs, n) : -ENXIO;

	if (path < 0)
		return path;
	proc_name(path, proc);
	/* a share that is only read keeps its access times, where we may say so */
	if (fs->o.readonly)
		fd = open(proc, flags | O_CLOEXEC | O_NONBLOCK | O_NOATIME);
	if (fd < 0)
		fd = open(proc, flags | O_CLOEXEC | O_NONBLOCK);
	int ret = fd < 0 ? -errno : fd;

	node_unpin(fs, n);
	return ret;
}

static bool wants_write(u32 flags)
{
	return (flags & O_ACCMODE) != O_RDONLY || (flags & O_TRUNC);
}

int op_opened(struct fs_request *r, int fd, bool write, struct fuse_open_out *out)
{
	int ret = handle_new(r->fs, r->node, fd, write, &out->fh);

	if (ret) {
		close(fd);
		return ret;
	}
	ret = req_reply(r, out, sizeof(*out));
	if (ret)
		handle_close(r->fs, out->fh, NULL);
	return ret;
}

int op_open(struct fs_request *r)
{
	const struct fuse_open_in *in = req_take(r, sizeof(*in));
	struct fuse_open_out out = {.open_flags = open_flags(r->fs)};
	bool write = wants_write(in->flags), kill = in->open_flags & FUSE_OPEN_KILL_SUIDGID;

	if (!S_ISREG(r->node->key.type))
		return S_ISDIR(r->node->key.type) ? -EISDIR : -ENXIO;
	if (write && r->fs->o.readonly)
		return -EROFS;
	if (kill)
		cred_drop_fsetid(r->fs);
	int fd = node_reopen(r->fs, r->node, (int)in->flags & OPEN_FLAGS);

	if (kill)
		cred_raise_fsetid(r->fs);
	if (fd < 0)
		return fd;
	return op_opened(r, fd, write, &out);
}

int op_release(struct fs_request *r)
{
	const struct fuse_release_in *in = req_take(r, sizeof(*in));

	handle_close(r->fs, in->fh, r->node);
	return 0;
}

/* The guest asks once: it need not say when a process closes a file, only when the last has. */
int op_flush(struct fs_request *r)
{
	return -ENOSYS;
}

/* A regular file that is open; the caller puts it back. */
static int get_file(struct fs_request *r, u64 fh, struct fs_handle **h)
{
	*h = handle_get(r->fs, fh, r->node);
	if (!*h)
		return -EBADF;
	if (!(*h)->dir)
		return 0;
	handle_put(r->fs, *h);
	*h = NULL;
	return -EISDIR;
}

int op_read(struct fs_request *r)
{
	const struct fuse_read_in *in = req_take(r, sizeof(*in));
	struct fs_handle *h = NULL;
	u32 size = MIN(in->size, r->room);
	int ret = in->offset > INT64_MAX ? -EINVAL : get_file(r, in->fh, &h);

	if (ret)
		return ret;
	unsigned n = size ? chain_slice(r->c, true, sizeof(struct fuse_out_header), size, r->t->iov) : 0;

	if (n) {
		ssize_t got = fill_read(r->t->ram, &r->t->pipe, h->fd, r->t->iov, n, (off_t)in->offset);

		if (got < 0)
			ret = -errno;
		else
			r->reply = (u32)got;
	}
	handle_put(r->fs, h);
	return ret;
}

int op_write(struct fs_request *r)
{
	const struct fuse_write_in *in = req_take(r, sizeof(*in));
	struct fuse_write_out out = {0};
	struct fs_handle *h = NULL;
	bool kill = in->write_flags & FUSE_WRITE_KILL_SUIDGID;
	int ret = in->offset > INT64_MAX ? -EINVAL : get_file(r, in->fh, &h);

	if (ret)
		return ret;
	unsigned n = chain_slice(r->c, false, sizeof(r->h) + sizeof(*in), in->size, r->t->iov);

	if (in->size && !n) {
		handle_put(r->fs, h);
		return -EINVAL;
	}
	if (kill)
		cred_drop_fsetid(r->fs);
	ssize_t got = n ? pwritev(h->fd, r->t->iov, (int)n, (off_t)in->offset) : 0;

	ret = got < 0 ? -errno : 0;
	if (kill)
		cred_raise_fsetid(r->fs);
	handle_put(r->fs, h);
	out.size = got < 0 ? 0 : (u32)got;
	return ret ? ret : req_reply(r, &out, sizeof(out));
}

static int sync_handle(struct fs_request *r)
{
	const struct fuse_fsync_in *in = req_take(r, sizeof(*in));
	struct fs_handle *h = handle_get(r->fs, in->fh, r->node);
	int ret = -EBADF;

	if (h)
		ret = (in->fsync_flags & FUSE_FSYNC_FDATASYNC ? fdatasync(h->fd) : fsync(h->fd)) < 0 ? -errno
												     : 0;
	handle_put(r->fs, h);
	return ret;
}

int op_fsync(struct fs_request *r)
{
	return sync_handle(r);
}

int op_fsyncdir(struct fs_request *r)
{
	return sync_handle(r);
}

int op_fallocate(struct fs_request *r)
{
	const struct fuse_fallocate_in *in = req_take(r, sizeof(*in));
	struct fs_handle *h = NULL;
	int ret = in->offset > INT64_MAX || in->length > INT64_MAX ? -EINVAL : get_file(r, in->fh, &h);

	if (ret)
		return ret;
	ret = fallocate(h->fd, (int)in->mode, (off_t)in->offset, (off_t)in->length) < 0 ? -errno : 0;
	handle_put(r->fs, h);
	return ret;
}

/* Holes only; the guest knows its own file positions. */
int op_lseek(struct fs_request *r)
{
	const struct fuse_lseek_in *in = req_take(r, sizeof(*in));
	struct fuse_lseek_out out = {0};
	struct fs_handle *h = NULL;
	int ret = 0;

	if (in->whence != SEEK_DATA && in->whence != SEEK_HOLE)
		return -EINVAL;
	ret = in->offset > INT64_MAX ? -ENXIO : get_file(r, in->fh, &h);
	if (ret)
		return ret;
	off_t at = lseek(h->fd, (off_t)in->offset, (int)in->whence);

	ret = at < 0 ? -errno : 0;
	handle_put(r->fs, h);
	out.offset = (u64)at;
	return ret ? ret : req_reply(r, &out, sizeof(out));
}

int op_copy_file_range(struct fs_request *r)
{
	const struct fuse_copy_file_range_in *in = req_take(r, sizeof(*in));
	struct fuse_write_out out = {0};
	struct fs_handle *from = NULL, *to = NULL;
	struct fs_node *node = node_get(r->fs, in->nodeid_out);
	int ret = in->off_in > INT64_MAX || in->off_out > INT64_MAX || in->flags
		      ? -EINVAL
		      : get_file(r, in->fh_in, &from);

	to = node ? handle_get(r->fs, in->fh_out, node) : NULL;
	if (!ret && (!to || to->dir))
		ret = -EBADF;
	if (!ret) {
		off_t off_in = (off_t)in->off_in, off_out = (off_t)in->off_out;
		ssize_t n = copy_file_range(from->fd, &off_in, to->fd, &off_out, MIN(in->len, 1u << 30), 0);

		ret = n < 0 ? -errno : 0;
		out.size = n < 0 ? 0 : (u32)n;
	}
	handle_put(r->fs, from);
	handle_put(r->fs, to);
	node_put(r->fs, node);
	return ret ? ret : req_reply(r, &out, sizeof(out));
}
