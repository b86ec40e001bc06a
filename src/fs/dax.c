/*
 * Files in the guest's memory (Virtio 1.2, 5.11.6.4): the guest asks for 2 MiB of a file to be in its device's window and then reads them there,
 * without a request and without a copy of its own. The engine does the mapping (base/window.h).
 *
 * Only large files of shares that nobody writes to from the guest. Not programs and libraries: Linux maps those pages one by one, and
 * from its page cache sixteen at a time.
 */
#include <elf.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/window.h"
#include "fs/fs_int.h"

enum { LARGE = 4 << 20 };

bool dax_offered(const struct fs *fs)
{
	return fs->window && fs->o.readonly && fs->o.cache != FS_CACHE_NEVER;
}

/* Not all file systems can map their files; and who has no right to read one is told so when he opens it. */
static bool fits(struct fs *fs, struct fs_node *n)
{
	char magic[SELFMAG] = {0};
	int fd = node_reopen(fs, n, O_RDONLY);
	void *p = fd < 0 ? MAP_FAILED : mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
	bool yes = p != MAP_FAILED && pread(fd, magic, sizeof(magic), 0) == sizeof(magic) && memcmp(magic, ELFMAG, SELFMAG) != 0;

	if (p != MAP_FAILED)
		munmap(p, 4096);
	if (fd >= 0)
		close(fd);
	return yes;
}

/* Once for a file: a guest that has it in its window would be confused by another answer. */
u32 dax_attr(struct fs *fs, struct fs_node *n, const struct statx *st)
{
	u8 is = __atomic_load_n(&n->dax, __ATOMIC_RELAXED);

	if (is == DAX_UNKNOWN && dax_offered(fs) && S_ISREG(st->stx_mode) && st->stx_size >= LARGE) {
		is = !(st->stx_mode & 0111) && !n->closed && fits(fs, n) ? DAX_YES : DAX_NO;
		__atomic_store_n(&n->dax, is, __ATOMIC_RELAXED);
	}
	return is == DAX_YES ? FUSE_ATTR_DAX : 0;
}

/* fd -1: nothing is there from now on. 0 or -errno */
static int ask_engine_locked(struct fs *fs, const struct window_request *w, int fd)
{
	struct iovec iov = {(void *)w, sizeof(*w)};
	char cbuf[CMSG_SPACE(sizeof(int))] __attribute__((aligned(8))) = {0};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
	s32 answer = -EIO;
	ssize_t n = 0;

	if (fd >= 0) {
		m.msg_control = cbuf;
		m.msg_controllen = sizeof(cbuf);
		*CMSG_FIRSTHDR(&m) = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(int))};
		memcpy(CMSG_DATA(CMSG_FIRSTHDR(&m)), &fd, sizeof(fd));
	}
	do
		n = sendmsg(fs->window_sock, &m, MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	if (n == sizeof(*w))
		do
			n = read(fs->window_sock, &answer, sizeof(answer));
		while (n < 0 && errno == EINTR);
	return n == sizeof(answer) && answer <= 0 ? answer : -EIO;
}

/* ---- pieces that were given back: most of them are used again at once, and what is there then takes the place of what was ---- */
static bool is_piece(u64 offset, u64 size)
{
	return size == FS_GRANULE && !(offset % FS_GRANULE) && offset / FS_GRANULE < FS_GRANULES;
}

static bool bit(const u64 *map, u64 offset)
{
	return map[offset / FS_GRANULE / 64] >> offset / FS_GRANULE % 64 & 1;
}

static void set_bit(u64 *map, u64 offset, bool on)
{
	u64 *word = &map[offset / FS_GRANULE / 64], mask = BIT64(offset / FS_GRANULE % 64);

	*word = on ? *word | mask : *word & ~mask;
}

/* Neighbours go together. */
static void empty_locked(struct fs *fs)
{
	for (u64 first = 0, n = 0; first < FS_GRANULES; first = MAX(n, first + 1)) {
		struct window_request w = {.offset = first * FS_GRANULE};

		for (n = first; n < FS_GRANULES && bit(fs->window_stale, n * FS_GRANULE); n++)
			w.size += FS_GRANULE;
		if (w.size)
			ask_engine_locked(fs, &w, -1);
	}
	memset(fs->window_stale, 0, sizeof(fs->window_stale));
	fs->mapped_ahead.node = 0;
}

/* The guest begins anew. Its device may have been reset, and the window have no place now: that is as good. */
void dax_forget(struct fs *fs)
{
	const struct window_request all = {.size = fs->window};

	pthread_mutex_lock(&fs->window_lock);
	if (all.size)
		ask_engine_locked(fs, &all, -1);
	memset(fs->window_used, 0, sizeof(fs->window_used));
	memset(fs->window_stale, 0, sizeof(fs->window_stale));
	fs->mapped_ahead.node = 0;
	pthread_mutex_unlock(&fs->window_lock);
}

bool fs_untidy(struct fs *fs)
{
	u64 any = 0;

	for (unsigned i = 0; fs->window && i < ARRAY_SIZE(fs->window_stale); i++)
		any |= __atomic_load_n(&fs->window_stale[i], __ATOMIC_RELAXED);
	return any;
}

void fs_tidy(struct fs *fs)
{
	pthread_mutex_lock(&fs->window_lock);
	if (fs->window)
		empty_locked(fs);
	pthread_mutex_unlock(&fs->window_lock);
}

static int give_back(struct fs *fs, u64 offset, u64 size)
{
	const struct window_request w = {.offset = offset, .size = size};
	int ret = 0;

	pthread_mutex_lock(&fs->window_lock);
	if (is_piece(offset, size)) {
		set_bit(fs->window_used, offset, false);
		set_bit(fs->window_stale, offset, true);
	} else {
		ret = ask_engine_locked(fs, &w, -1);
	}
	pthread_mutex_unlock(&fs->window_lock);
	return ret;
}

static int take(struct fs *fs, const struct window_request *w, int fd)
{
	int ret = 0;

	pthread_mutex_lock(&fs->window_lock);
	if (!is_piece(w->offset, w->size))
		empty_locked(fs);
	ret = ask_engine_locked(fs, w, fd);
	if (fs->mapped_ahead.offset == w->offset)
		fs->mapped_ahead.node = 0;
	if (is_piece(w->offset, w->size)) {
		set_bit(fs->window_stale, w->offset, ret != 0);
		set_bit(fs->window_used, w->offset, !ret);
	} else { /* Linux does not do that; where it was is not known to be free again */
		for (u64 at = w->offset & -(u64)FS_GRANULE; at < MIN(w->offset + w->size, (u64)FS_GRANULE * FS_GRANULES); at += FS_GRANULE)
			set_bit(fs->window_used, at, true);
	}
	pthread_mutex_unlock(&fs->window_lock);
	return ret;
}

/* ---- mapping ahead, while the guest reads what it has asked for ---- */
static bool take_ahead(struct fs *fs, const struct fs_mapping *m)
{
	bool is = false;

	pthread_mutex_lock(&fs->window_lock);
	is = m->node && fs->mapped_ahead.node == m->node && fs->mapped_ahead.file_offset == m->file_offset && fs->mapped_ahead.offset == m->offset;
	if (is) {
		fs->mapped_ahead.node = 0;
		set_bit(fs->window_stale, m->offset, false);
		set_bit(fs->window_used, m->offset, true);
	}
	pthread_mutex_unlock(&fs->window_lock);
	return is;
}

/* ---- requests ---- */
/* Whether the host has all of it in memory; else it is asked to read it: a vCPU would wait for it page by page. */
static bool is_cached(int fd, u64 offset, u64 size)
{
	enum { SYS_CACHESTAT = 451 }; /* Linux 6.5 */
	struct {
		u64 off, len;
	} range = {offset, size};
	struct {
		u64 cached, dirty, writeback, evicted, recently_evicted;
	} is = {0};
	struct stat st;
	u64 there = fstat(fd, &st) == 0 && (u64)st.st_size > offset ? MIN(size, (u64)st.st_size - offset) : 0;

	if (syscall(SYS_CACHESTAT, fd, &range, &is, 0) == 0 && is.cached >= (there + PAGE_SIZE - 1) / PAGE_SIZE && there == size)
		return true;
	posix_fadvise(fd, (off_t)offset, (off_t)size, POSIX_FADV_WILLNEED);
	return false;
}

/* Only into a piece that the guest has not, and what the host need not read first. */
static void map_ahead(struct fs *fs, const struct fs_mapping *m)
{
	const struct window_request w = {.offset = m->offset, .size = FS_GRANULE, .file_offset = m->file_offset, .cached = 1};
	struct fs_node *n = node_get(fs, m->node);
	int fd = n && range_within(w.offset, w.size, fs->window) && is_piece(w.offset, w.size) ? node_reopen(fs, n, O_RDONLY) : -1;

	if (fd >= 0 && is_cached(fd, w.file_offset, w.size)) {
		pthread_mutex_lock(&fs->window_lock);
		if (!bit(fs->window_used, w.offset) && !ask_engine_locked(fs, &w, fd)) {
			set_bit(fs->window_stale, w.offset, true);
			fs->mapped_ahead = *m;
		}
		pthread_mutex_unlock(&fs->window_lock);
	}
	if (fd >= 0)
		close(fd);
	node_put(fs, n);
}

void dax_work_ahead(struct fs_thread *t)
{
	struct fs_mapping m = t->to_map;

	t->to_map.node = 0;
	if (m.node)
		map_ahead(t->fs, &m);
}

static bool in_window(const struct fs *fs, u64 offset, u64 size)
{
	return size && !((offset | size) & ~PAGE_MASK) && range_within(offset, size, fs->window);
}

int op_setupmapping(struct fs_request *r)
{
	const struct fuse_setupmapping_in *in = req_take(r, sizeof(*in));
	struct window_request w = {.offset = in->moffset, .size = in->len, .file_offset = in->foffset};

	if (!dax_offered(r->fs))
		return -ENOSYS;
	if (in->flags & FUSE_SETUPMAPPING_FLAG_WRITE)
		return -EROFS;
	if (__atomic_load_n(&r->node->dax, __ATOMIC_RELAXED) != DAX_YES)
		return -EOPNOTSUPP;
	if (!in_window(r->fs, w.offset, w.size) || w.file_offset & ~PAGE_MASK || w.file_offset > INT64_MAX - w.size)
		return -EINVAL;
	const struct fs_mapping m = {.node = r->node->id, .file_offset = w.file_offset, .offset = w.offset};

	r->t->to_map = (struct fs_mapping){.node = m.node, .file_offset = m.file_offset + w.size, .offset = m.offset + w.size};
	if (is_piece(w.offset, w.size) && take_ahead(r->fs, &m))
		return 0;
	int fd = node_reopen(r->fs, r->node, O_RDONLY);

	if (fd < 0)
		return fd;
	w.cached = is_cached(fd, w.file_offset, w.size);
	int ret = take(r->fs, &w, fd);

	close(fd);
	return ret;
}

int op_removemapping(struct fs_request *r)
{
	const struct fuse_removemapping_in *in = req_take(r, sizeof(*in));
	struct fuse_removemapping_one one;
	const void *p = NULL;
	u32 count = in->count;
	int ret = dax_offered(r->fs) ? 0 : -ENOSYS;

	while (!ret && count-- && (p = req_take(r, sizeof(one)))) {
		memcpy(&one, p, sizeof(one)); /* not aligned */
		ret = in_window(r->fs, one.moffset, one.len) ? give_back(r->fs, one.moffset, one.len) : -EINVAL;
	}
	return ret;
}
