/* The session: what both sides can do (FUSE_INIT), the file system as a whole, locks. */
#include <fcntl.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "fs/fs_int.h"

enum { MAX_WRITE = 1 << 20, MAX_PAGES = MAX_WRITE / 4096, BACKGROUND = 64 };
enum { INIT_IN_COMPAT = 16 /* without flags2 */ };

static u32 wanted_flags(const struct fs *fs)
{
	u32 flags = FUSE_ASYNC_READ | FUSE_ATOMIC_O_TRUNC | FUSE_BIG_WRITES | FUSE_ASYNC_DIO |
		    FUSE_PARALLEL_DIROPS | FUSE_HANDLE_KILLPRIV_V2 | FUSE_MAX_PAGES;

	/* Without READDIRPLUS_AUTO: Linux would look up only the first page of a directory that way, and ls
	 * -l or find, which read all of it before they ask for attributes, would need a request for each
	 * file: ten times slower. */
	if (fs->o.cache != FS_CACHE_NEVER)
		flags |= FUSE_CACHE_SYMLINKS | FUSE_DO_READDIRPLUS;
	if (fs->o.cache == FS_CACHE_AUTO)
		flags |= FUSE_AUTO_INVAL_DATA;
	return flags;
}

/* Per file: FUSE_ATTR_DAX. */
static void offer_dax(const struct fs *fs, const struct fuse_init_in *in, struct fuse_init_out *out)
{
	const u32 need = FUSE_MAP_ALIGNMENT | FUSE_INIT_EXT, dax = (u32)(FUSE_HAS_INODE_DAX >> 32);

	if (!dax_offered(fs) || (in->flags & need) != need || !(in->flags2 & dax))
		return;
	out->flags |= need;
	out->flags2 |= dax;
	out->map_alignment = PAGE_SHIFT;
}

int op_init(struct fs_request *r)
{
	struct fuse_init_in in = {0};
	struct fuse_init_out out = {.major = FUSE_KERNEL_VERSION, .minor = FUSE_KERNEL_MINOR_VERSION};

	memcpy(&in, r->arg, MIN(r->arg_len, sizeof(in)));
	if (in.major < FUSE_KERNEL_VERSION || (in.major == FUSE_KERNEL_VERSION && in.minor < 31))
		return -EPROTO;             /* virtio-fs began with 7.31 */
	if (in.major > FUSE_KERNEL_VERSION) /* it asks again, with ours */
		return req_reply(r, &out, sizeof(out));
	fs_forget_all(r->fs);
	out.max_readahead = in.max_readahead;
	out.flags = wanted_flags(r->fs) & in.flags;
	out.max_background = BACKGROUND;
	out.congestion_threshold = BACKGROUND * 3 / 4;
	out.max_write = MAX_WRITE;
	out.max_pages = MAX_PAGES;
	out.time_gran = 1;
	offer_dax(r->fs, &in, &out);
	int ret = req_reply(r, &out, sizeof(out));

	if (!ret)
		__atomic_store_n(&r->fs->started, true, __ATOMIC_RELEASE);
	return ret;
}

int op_destroy(struct fs_request *r)
{
	fs_forget_all(r->fs);
	return 0;
}

int op_statfs(struct fs_request *r)
{
	struct statvfs v;
	int fd = node_pin(r->fs, r->node);

	if (fd < 0)
		return fd;
	int ret = fstatvfs(fd, &v) < 0 ? -errno : 0;

	node_unpin(r->fs, r->node);
	if (ret)
		return ret;
	struct fuse_statfs_out out = {.st = {.blocks = v.f_blocks,
					     .bfree = v.f_bfree,
					     .bavail = v.f_bavail,
					     .files = v.f_files,
					     .ffree = v.f_ffree,
					     .bsize = (u32)v.f_bsize,
					     .namelen = FS_NAME_MAX,
					     .frsize = (u32)v.f_frsize}};

	return req_reply(r, &out, sizeof(out));
}

int op_syncfs(struct fs_request *r)
{
	int fd = node_reopen(r->fs, r->fs->root, O_RDONLY | O_DIRECTORY);

	if (fd < 0)
		return fd;
	int ret = syncfs(fd) < 0 ? -errno : 0;

	close(fd);
	return ret;
}

int op_ioctl(struct fs_request *r)
{
	return -ENOTTY;
}

/* Locks are kept in the guest, between its own processes: INIT did not offer to keep them here. */
int op_getlk(struct fs_request *r)
{
	return -ENOSYS;
}

int op_setlk(struct fs_request *r)
{
	return -ENOSYS;
}

int op_setlkw(struct fs_request *r)
{
	return -ENOSYS;
}
