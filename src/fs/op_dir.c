/* Reading directories, with or without a lookup of each entry on the way. */
#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "fs/fs_int.h"

struct linux_dirent64 { /* getdents64(2) */
	u64 ino;
	s64 off;
	u16 reclen;
	u8 type;
	char name[];
};

int op_opendir(struct fs_request *r)
{
	struct fuse_open_out out = {0};
	struct statx st;

	if (!S_ISDIR(r->node->key.type))
		return -ENOTDIR;
	/* nothing will be read of a closed one */
	int fd = r->node->closed ? dup(r->fs->root->fd) : node_reopen(r->fs, r->node, O_RDONLY | O_DIRECTORY);

	if (fd < 0)
		return fd;
	if (statx(fd, "", AT_EMPTY_PATH, STATX_CTIME, &st) == 0)
		out.open_flags = habit_opened_dir(r->fs, r->node, &st);
	int ret = op_opened(r, fd, false, &out);

	if (!ret)
		handle_ahead(r->t, handle_get(r->fs, out.fh, r->node), r->number);
	return ret;
}

int op_releasedir(struct fs_request *r)
{
	return op_release(r);
}

static bool has_buffer(struct fs_handle *h)
{
	if (!h->buf)
		h->buf = malloc(FS_DIRBUF);
	return h->buf;
}

/* Whether there are entries now; 0: the end; or -errno. h->lock held. */
static int read_entries(struct fs_handle *h)
{
	long n = syscall(SYS_getdents64, h->fd, h->buf, FS_DIRBUF);

	h->at = 0;
	h->end = n > 0 ? (u32)n : 0;
	return n < 0 ? -errno : n > 0;
}

/* The next entry at h->at, read anew if none is left; 0 at the end, < 0 an error. h->lock held. */
static int next_entry(struct fs_handle *h, struct linux_dirent64 **d)
{
	int got = h->at < h->end ? 1 : read_entries(h);

	*d = (void *)(h->buf + h->at);
	return got;
}

/*
 * Reads the next entries while the guest looks at those before. They are given to the very next request only: one in between could
 * change the directory, and whoever made it must see that if he then begins anew.
 */
void fs_work_ahead(struct fs_thread *t)
{
	struct fs_handle *h = t->ahead;

	dax_work_ahead(t);
	if (!h)
		return;
	pthread_mutex_lock(&h->lock);
	if (!h->node->closed && h->at >= h->end && has_buffer(h) && read_entries(h) > 0)
		h->ahead = t->ahead_of;
	pthread_mutex_unlock(&h->lock);
	handle_ahead(t, NULL, 0);
}

/* Where the guest wants to read on; usually where it stopped. */
static int seek_to(struct fs_handle *h, u64 offset, u64 request)
{
	bool fresh = !h->ahead || h->ahead + 1 == request;

	h->ahead = 0;
	if (!has_buffer(h))
		return -ENOMEM;
	if (offset == h->next && h->end && fresh)
		return 0;
	h->at = h->end = 0;
	if (lseek(h->fd, (off_t)offset, SEEK_SET) < 0)
		return -errno;
	h->next = offset;
	return 0;
}

struct listing {
	struct fs_request *r;
	int dir_fd;
	bool plus;
	u32 at, size;
};

static bool is_dots(const char *name)
{
	return name[0] == '.' && (!name[1] || (name[1] == '.' && !name[2]));
}

/* False when it does not fit. */
static bool add_entry(struct listing *l, const struct linux_dirent64 *d)
{
	struct fs_request *r = l->r;
	u32 len = (u32)strlen(d->name), head = l->plus ? FUSE_NAME_OFFSET_DIRENTPLUS : FUSE_NAME_OFFSET;
	u32 bytes = FUSE_REC_ALIGN(head + len);
	u8 *p = r->t->out + l->at;

	if (bytes > l->size - l->at)
		return false;
	memset(p, 0, bytes);
	/* one that vanished meanwhile has no entry: the guest will ask when it wants it */
	if (l->plus && !is_dots(d->name) && habit_wants_attributes(r->fs, r->node, d->type) &&
	    entry_fill(r, r->node, l->dir_fd, d->name, (struct fuse_entry_out *)p))
		memset(p, 0, bytes);
	struct fuse_dirent *out = l->plus ? &((struct fuse_direntplus *)p)->dirent : (struct fuse_dirent *)p;
	dev_t dev = makedev((unsigned)(r->node->key.dev >> 32), (unsigned)r->node->key.dev);

	out->ino = guest_ino(r->fs, dev, d->ino);
	out->off = (u64)d->off;
	out->namelen = len;
	out->type = d->type;
	memcpy(out->name, d->name, len);
	l->at += bytes;
	return true;
}

static int fill(struct listing *l, struct fs_handle *h, u64 offset)
{
	struct linux_dirent64 *d = NULL;
	int ret = seek_to(h, offset, l->r->number);

	while (!ret) {
		int got = next_entry(h, &d);

		if (got <= 0)
			return l->at ? 0 : got; /* an error is told when asked again */
		if (!add_entry(l, d))
			return l->at ? 0 : -EINVAL;
		h->at += d->reclen;
		h->next = (u64)d->off;
	}
	return ret;
}

static int read_dir(struct fs_request *r, bool plus)
{
	const struct fuse_read_in *in = req_take(r, sizeof(*in));
	struct listing l = {.r = r, .plus = plus, .size = MIN(MIN(in->size, r->room), FS_OUT_MAX)};
	struct fs_handle *h = handle_get(r->fs, in->fh, r->node);
	int ret = 0;

	if (!h || !h->dir) {
		handle_put(r->fs, h);
		return h ? -ENOTDIR : -EBADF;
	}
	l.dir_fd = h->fd;
	pthread_mutex_lock(&h->lock);
	ret = r->node->closed ? 0 : fill(&l, h, in->offset);
	bool used_up = !ret && l.at && h->at >= h->end;
	pthread_mutex_unlock(&h->lock);
	if (used_up)
		handle_ahead(r->t, h, r->number);
	else
		handle_put(r->fs, h);
	return ret ? ret : req_reply(r, r->t->out, l.at);
}

int op_readdir(struct fs_request *r)
{
	return read_dir(r, false);
}

int op_readdirplus(struct fs_request *r)
{
	return read_dir(r, true);
}
