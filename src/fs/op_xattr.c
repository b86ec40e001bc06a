/* Extended attributes, by /proc/self/fd: the calls that take descriptors want them open for more than the
 * path. */
#include <linux/limits.h>
#include <string.h>
#include <sys/xattr.h>

#include "fs/fs_int.h"

static int pin_proc(struct fs_request *r, char proc[16])
{
	int fd = r->fs->o.xattr ? node_pin(r->fs, r->node) : -ENOSYS;

	if (fd >= 0)
		proc_name(fd, proc);
	return fd < 0 ? fd : 0;
}

static int xattr_name(struct fs_request *r, const char **name)
{
	const char *s = req_string(r);

	if (!s || !*s || strlen(s) > XATTR_NAME_MAX)
		return s && *s ? -ERANGE : -EINVAL;
	*name = s;
	return 0;
}

/* size 0 asks how many bytes there are. */
static int reply_sized(struct fs_request *r, u32 size, ssize_t n)
{
	struct fuse_getxattr_out out = {.size = (u32)n};

	return size ? req_reply(r, r->t->out, (u32)n) : req_reply(r, &out, sizeof(out));
}

int op_getxattr(struct fs_request *r)
{
	const struct fuse_getxattr_in *in = req_take(r, sizeof(*in));
	u32 size = MIN(in->size, XATTR_SIZE_MAX);
	const char *name = NULL;
	char proc[16];
	int ret = xattr_name(r, &name);

	/* We have no right to these. overlayfs asks for one of every file it looks up: quickly, then. */
	if (!ret && r->fs->o.xattr && !strncmp(name, "trusted.", 8))
		return -ENODATA;
	if (!ret)
		ret = pin_proc(r, proc);
	if (ret)
		return ret;
	ssize_t n = getxattr(proc, name, r->t->out, size);

	ret = n < 0 ? -errno : reply_sized(r, size, n);
	node_unpin(r->fs, r->node);
	return ret;
}

int op_listxattr(struct fs_request *r)
{
	const struct fuse_getxattr_in *in = req_take(r, sizeof(*in));
	u32 size = MIN(in->size, XATTR_LIST_MAX);
	char proc[16];
	int ret = pin_proc(r, proc);

	if (ret)
		return ret;
	ssize_t n = listxattr(proc, (char *)r->t->out, size);

	ret = n < 0 ? -errno : reply_sized(r, size, n);
	node_unpin(r->fs, r->node);
	return ret;
}

/* FUSE_SETXATTR_EXT is not negotiated: the short struct. */
int op_setxattr(struct fs_request *r)
{
	struct fuse_setxattr_in in = {0};
	const char *name = NULL;
	char proc[16];

	memcpy(&in, req_take(r, FUSE_COMPAT_SETXATTR_IN_SIZE), FUSE_COMPAT_SETXATTR_IN_SIZE);
	int ret = xattr_name(r, &name);
	const void *value = ret ? NULL : req_take(r, in.size);

	if (!ret && (!value || in.size > XATTR_SIZE_MAX))
		ret = -EINVAL;
	if (!ret)
		ret = pin_proc(r, proc);
	if (ret)
		return ret;
	ret = setxattr(proc, name, value, in.size, (int)in.flags) < 0 ? -errno : 0;
	node_unpin(r->fs, r->node);
	return ret;
}

int op_removexattr(struct fs_request *r)
{
	const char *name = NULL;
	char proc[16];
	int ret = xattr_name(r, &name);

	if (!ret)
		ret = pin_proc(r, proc);
	if (ret)
		return ret;
	ret = removexattr(proc, name) < 0 ? -errno : 0;
	node_unpin(r->fs, r->node);
	return ret;
}
