/* The files the guest knows: found by number and by key, counted, and their descriptors opened and closed. */
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "fs/fs_int.h"

#define CONFIGFS_MAGIC 0x62656570 /* in no header */
enum {
	HANDLES_MAX = 32768,
	HASH_FIRST = 1024,
	DEPTH_MAX = 2048 /* PATH_MAX / 2: a deeper path has no name */
};

struct fs_key key_of(const struct fs *fs, const struct statx *st)
{
	return (struct fs_key){
	    .dev = (u64)st->stx_dev_major << 32 | st->stx_dev_minor,
	    .ino = st->stx_ino,
	    .type = st->stx_mode & S_IFMT,
	    .mnt = st->stx_mask & STATX_MNT_ID ? st->stx_mnt_id : 0,
	    .born = fs->births && (st->stx_mask & STATX_BTIME)
			? (u64)st->stx_btime.tv_sec * 1000000000u + st->stx_btime.tv_nsec
			: 0,
	};
}

static bool same_key(const struct fs_key *a, const struct fs_key *b)
{
	return a->dev == b->dev && a->ino == b->ino && a->mnt == b->mnt && a->born == b->born &&
	       a->type == b->type;
}

static u32 hash_of(const struct fs *fs, const struct fs_key *k)
{
	u64 h = (k->ino ^ k->dev << 40 ^ k->mnt << 20) * 0x9e3779b97f4a7c15ull;

	return (u32)(h >> 32) & (fs->hash_size - 1);
}

/* ---- under fs->lock ---- */
static void lru_remove(struct fs *fs, struct fs_node *n)
{
	if (!n->older && fs->oldest != n)
		return;
	*(n->older ? &n->older->newer : &fs->oldest) = n->newer;
	*(n->newer ? &n->newer->older : &fs->newest) = n->older;
	n->older = n->newer = NULL;
}

static void lru_add(struct fs *fs, struct fs_node *n)
{
	n->older = fs->newest;
	n->newer = NULL;
	*(n->older ? &n->older->newer : &fs->oldest) = n;
	fs->newest = n;
}

static void close_fd_locked(struct fs *fs, struct fs_node *n)
{
	if (n->fd < 0)
		return;
	lru_remove(fs, n);
	close(n->fd);
	n->fd = -1;
	fs->n_fds--;
}

static void make_room_locked(struct fs *fs)
{
	struct fs_node *n = fs->oldest;

	while (n && fs->n_fds >= fs->max_fds) {
		struct fs_node *newer = n->newer;

		if (!n->pins)
			close_fd_locked(fs, n);
		n = newer;
	}
}

static struct fs_node *hash_find_locked(const struct fs *fs, const struct fs_key *k)
{
	for (struct fs_node *n = fs->hash[hash_of(fs, k)]; n; n = n->hash_next)
		if (same_key(&n->key, k))
			return n;
	return NULL;
}

static void hash_remove_locked(struct fs *fs, struct fs_node *n)
{
	struct fs_node **p = &fs->hash[hash_of(fs, &n->key)];

	while (*p && *p != n)
		p = &(*p)->hash_next;
	if (*p)
		*p = n->hash_next;
}

static void hash_resize_locked(struct fs *fs, u32 size)
{
	struct fs_node **old = fs->hash;
	u32 old_size = fs->hash_size;
	struct fs_node **hash = calloc(size, sizeof(*hash));

	if (!hash)
		return; /* longer chains, then */
	fs->hash = hash;
	fs->hash_size = size;
	for (u32 i = 0; i < old_size; i++)
		for (struct fs_node *n = old[i], *next = NULL; n; n = next) {
			next = n->hash_next;
			struct fs_node **p = &fs->hash[hash_of(fs, &n->key)];

			n->hash_next = *p;
			*p = n;
		}
	free(old);
}

/* Frees n if nobody needs it, then its directory likewise, and so on. */
static void drop_locked(struct fs *fs, struct fs_node *n)
{
	while (n && !n->refs && !n->lookups && n != fs->root) {
		struct fs_node *dir = n->dir;

		close_fd_locked(fs, n);
		hash_remove_locked(fs, n);
		table_del(&fs->nodes, n->id);
		free(n->name);
		free(n);
		if (dir)
			dir->refs--;
		n = dir;
	}
}

static void put_locked(struct fs *fs, struct fs_node *n)
{
	n->refs--;
	drop_locked(fs, n);
}

static void set_place_locked(struct fs *fs, struct fs_node *n, struct fs_node *dir, const char *name)
{
	struct fs_node *old = n->dir;

	if (n == fs->root || (old == dir && dir && !strcmp(n->name, name)))
		return;
	char *copy = dir ? strdup(name) : NULL;

	if (dir && !copy)
		return; /* the old place stays: at worst it is stale */
	if (dir)
		dir->refs++;
	free(n->name);
	n->name = copy;
	n->dir = dir;
	lru_remove(fs, n);
	if (dir && n->fd >= 0)
		lru_add(fs, n);
	if (old)
		put_locked(fs, old);
}

static int openat2_node(int dir_fd, const char *name)
{
	struct open_how how = {.flags = O_PATH | O_NOFOLLOW | O_CLOEXEC,
			       .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS};
	int fd = -1;

	do
		fd = (int)syscall(SYS_openat2, dir_fd, name, &how, sizeof(how));
	while (fd < 0 && errno == EAGAIN); /* a rename somewhere meanwhile */
	return fd < 0 ? -errno : fd;
}

/* n's directory is open. */
static int open_one_locked(struct fs *fs, struct fs_node *n)
{
	struct statx st;

	make_room_locked(fs);
	int fd = openat2_node(n->dir->fd, n->name);

	if (fd == -ENOENT || fd == -ENOTDIR)
		return -ESTALE;
	if (fd < 0)
		return fd;
	int ret = statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, FS_STATX_MASK, &st) < 0 ? -errno : 0;
	struct fs_key key = key_of(fs, &st);

	if (!ret && !same_key(&key, &n->key))
		ret = -ESTALE;
	if (ret) {
		close(fd);
		return ret;
	}
	n->fd = fd;
	fs->n_fds++;
	lru_add(fs, n);
	return 0;
}

/* Opens what is closed on the way from the nearest open directory down to n. */
static int open_locked(struct fs *fs, struct fs_node *n)
{
	while (n->fd < 0) {
		struct fs_node *top = n;
		u32 depth = 0;

		while (top->dir && top->dir->fd < 0 && depth++ < DEPTH_MAX)
			top = top->dir;
		if (!top->dir || depth >= DEPTH_MAX)
			return -ESTALE;
		top->dir->pins++;
		int ret = open_one_locked(fs, top);

		top->dir->pins--;
		if (ret)
			return ret;
	}
	return 0;
}

/* ---- for operations ---- */
struct fs_node *node_get(struct fs *fs, u64 id)
{
	pthread_mutex_lock(&fs->lock);
	struct fs_node *n = table_get(&fs->nodes, id);

	if (n)
		n->refs++;
	pthread_mutex_unlock(&fs->lock);
	return n;
}

void node_put(struct fs *fs, struct fs_node *n)
{
	if (!n)
		return;
	pthread_mutex_lock(&fs->lock);
	put_locked(fs, n);
	pthread_mutex_unlock(&fs->lock);
}

int node_pin(struct fs *fs, struct fs_node *n)
{
	return n->closed ? -EACCES : node_pin_closed(fs, n);
}

int node_pin_closed(struct fs *fs, struct fs_node *n)
{
	pthread_mutex_lock(&fs->lock);
	int ret = open_locked(fs, n);

	if (!ret) {
		n->pins++;
		if (n->dir) { /* most recently used */
			lru_remove(fs, n);
			lru_add(fs, n);
		}
		ret = n->fd;
	}
	pthread_mutex_unlock(&fs->lock);
	return ret;
}

void node_unpin(struct fs *fs, struct fs_node *n)
{
	pthread_mutex_lock(&fs->lock);
	n->pins--;
	pthread_mutex_unlock(&fs->lock);
}

static struct fs_node *node_new_locked(struct fs *fs, const struct fs_key *key)
{
	struct fs_node *n = calloc(1, sizeof(*n));

	if (!n)
		return NULL;
	*n = (struct fs_node){.key = *key, .fd = -1};
	if (table_add(&fs->nodes, n, &n->id)) {
		free(n);
		return NULL;
	}
	if (fs->nodes.used > fs->hash_size)
		hash_resize_locked(fs, fs->hash_size * 2);
	struct fs_node **p = &fs->hash[hash_of(fs, key)];

	n->hash_next = *p;
	*p = n;
	return n;
}

static bool is_kernels_own(int dir_fd, const char *name)
{
	static const u32 magic[] = {
	    PROC_SUPER_MAGIC,   SYSFS_MAGIC,       CGROUP_SUPER_MAGIC,   CGROUP2_SUPER_MAGIC, DEBUGFS_MAGIC,
	    TRACEFS_MAGIC,      SECURITYFS_MAGIC,  BPF_FS_MAGIC,         PSTOREFS_MAGIC,      EFIVARFS_MAGIC,
	    DEVPTS_SUPER_MAGIC, SELINUX_MAGIC,     SMACK_MAGIC,          NSFS_MAGIC,          BINFMTFS_MAGIC,
	    HUGETLBFS_MAGIC,    XENFS_SUPER_MAGIC, RDTGROUP_SUPER_MAGIC, CONFIGFS_MAGIC};
	int fd = openat2_node(dir_fd, name);
	struct statfs sf = {0};
	bool found = fd >= 0 && fstatfs(fd, &sf) < 0;

	for (u32 i = 0; i < ARRAY_SIZE(magic); i++)
		found |= (u32)sf.f_type == magic[i];
	if (fd >= 0)
		close(fd);
	return found;
}

struct fs_node *node_seen(struct fs *fs, struct fs_node *dir, int dir_fd, const char *name,
			  const struct statx *st)
{
	struct fs_key key = key_of(fs, st);
	bool closed = (st->stx_attributes & STATX_ATTR_MOUNT_ROOT) && is_kernels_own(dir_fd, name);

	pthread_mutex_lock(&fs->lock);
	struct fs_node *n = hash_find_locked(fs, &key);
	bool fresh = !n;

	if (fresh)
		n = node_new_locked(fs, &key);
	if (n) {
		n->lookups++;
		n->closed = closed;
		set_place_locked(fs, n, dir, name);
		if (fresh && !n->dir) { /* no memory for its name: it could never be opened */
			n->lookups = 0;
			drop_locked(fs, n);
			n = NULL;
		}
	}
	if (n)
		n->refs++;
	pthread_mutex_unlock(&fs->lock);
	return n;
}

struct fs_node *node_adopt(struct fs *fs, int fd, const struct statx *st)
{
	struct fs_key key = key_of(fs, st);

	pthread_mutex_lock(&fs->lock);
	struct fs_node *n = node_new_locked(fs, &key);

	if (n) {
		n->lookups = n->refs = 1;
		n->fd = fd;
		fs->n_fds++;
	}
	pthread_mutex_unlock(&fs->lock);
	return n;
}

struct fs_node *node_find(struct fs *fs, int dir_fd, const char *name)
{
	struct statx st;

	if (statx(dir_fd, name, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, FS_STATX_MASK, &st) < 0)
		return NULL;
	struct fs_key key = key_of(fs, &st);

	pthread_mutex_lock(&fs->lock);
	struct fs_node *n = hash_find_locked(fs, &key);

	if (n)
		n->refs++;
	pthread_mutex_unlock(&fs->lock);
	return n;
}

void node_forget(struct fs *fs, u64 id, u64 lookups)
{
	pthread_mutex_lock(&fs->lock);
	struct fs_node *n = table_get(&fs->nodes, id);

	if (n && n != fs->root) {
		n->lookups -= MIN(n->lookups, lookups);
		drop_locked(fs, n);
	}
	pthread_mutex_unlock(&fs->lock);
}

void node_moved(struct fs *fs, struct fs_node *n, struct fs_node *dir, const char *name)
{
	pthread_mutex_lock(&fs->lock);
	set_place_locked(fs, n, dir, name);
	pthread_mutex_unlock(&fs->lock);
}

void node_unlinked(struct fs *fs, struct fs_node *n, struct fs_node *dir, const char *name)
{
	pthread_mutex_lock(&fs->lock);
	if (n->dir == dir && n->name && !strcmp(n->name, name))
		set_place_locked(fs, n, NULL, NULL);
	pthread_mutex_unlock(&fs->lock);
}

/* ---- the whole ---- */
/* Of the descriptors we may have: an eighth for ourselves, the rest half and half for nodes and open files.
 */
static void set_limits(struct fs *fs)
{
	struct rlimit l = {.rlim_cur = 1024};

	getrlimit(RLIMIT_NOFILE, &l);
	u32 n = (u32)MIN(l.rlim_cur, 1u << 18);

	fs->max_fds = (n - n / 8) / 2;
	fs->max_handles = MIN(fs->max_fds, HANDLES_MAX);
}

int fs_open(struct fs *fs, const struct fs_options *o, int root_fd, struct err *e)
{
	struct statx st;
	struct statfs sf;

	*fs = (struct fs){.o = *o, .as_root = cred_may_act()};
	if (statx(root_fd, "", AT_EMPTY_PATH, FS_STATX_MASK, &st) < 0)
		return err_set(e, errno, "shared folder: %s", strerror(errno));
	pthread_mutex_init(&fs->lock, NULL);
	pthread_mutex_init(&fs->window_lock, NULL);
	set_limits(fs);
	fs->births = fstatfs(root_fd, &sf) < 0 || sf.f_type != OVERLAYFS_SUPER_MAGIC;
	hash_resize_locked(fs, HASH_FIRST);
	struct fs_key key = key_of(fs, &st);

	fs->root = fs->hash ? node_new_locked(fs, &key) : NULL;
	if (!fs->root)
		return err_set(e, ENOMEM, "shared folder: no memory");
	fs->root->fd = root_fd;
	fs->root_dev = makedev(st.stx_dev_major, st.stx_dev_minor);
	return 0;
}

void fs_forget_all(struct fs *fs)
{
	dax_forget(fs);
	for (u32 i = 0; i < fs->handles.n; i++) {
		struct fs_handle *h = fs->handles.slot[i].p;

		if (h)
			handle_close(fs, h->id, NULL);
	}
	pthread_mutex_lock(&fs->lock);
	for (u32 i = 0; i < fs->nodes.n; i++) {
		struct fs_node *n = fs->nodes.slot[i].p;

		if (!n || n == fs->root)
			continue;
		n->lookups = 0;
		set_place_locked(fs, n, NULL, NULL);
		n = fs->nodes.slot[i].p; /* its own place may have been its last reference */
		if (n)
			drop_locked(fs, n);
	}
	fs->started = false;
	pthread_mutex_unlock(&fs->lock);
}

void fs_close(struct fs *fs)
{
	fs_forget_all(fs);
	free(fs->root);
	free(fs->hash);
	table_free(&fs->nodes);
	table_free(&fs->handles);
	pthread_mutex_destroy(&fs->lock);
	pthread_mutex_destroy(&fs->window_lock);
}
