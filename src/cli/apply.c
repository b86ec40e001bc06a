/*
 * Each path goes back atomically: a new file is made beside it with content, owner, mode, attributes and time, and then takes its
 * name. Paths come from the guest: they are followed without symbolic links and never out of the root, so a name can reach nothing
 * but what it says. What this machine changed since the duplicate was made is not overwritten.
 */
#include <dirent.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>
#include "base/base.h"
#include "cli/apply.h"

enum { DEPTH_MAX = 256 };

static void say(struct apply *a, const char *path, const char *why)
{
	char clean[512];
	size_t n = 0;

	for (; path[n] && n < sizeof(clean) - 1; n++)
		clean[n] = path[n] < ' ' || path[n] == 0x7f ? '?' : path[n];
	clean[n] = 0;
	log_msg(LOG_ERROR, "%s: %s", clean, why);
}

static int failed(struct apply *a, int error)
{
	a->failed++;
	say(a, a->path, strerror(error));
	return 0; /* the others are not to blame */
}

/* ---- names ---- */
static int open_dir(const struct apply *a, const char *path)
{
	const struct open_how how = {.flags = O_PATH | O_DIRECTORY | O_CLOEXEC,
				     .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS};
	long fd = syscall(SYS_openat2, a->root, *path ? path : ".", &how, sizeof(how));

	return fd < 0 ? -errno : (int)fd;
}

/* Parent directory and last component of a->path. */
static int open_parent(struct apply *a)
{
	char *slash = strrchr(a->path, '/');
	int fd = 0;

	*slash = 0;
	fd = open_dir(a, slash == a->path ? "" : a->path + 1);
	*slash = '/';
	a->name = slash + 1;
	return fd;
}

static void copy_record(struct apply *a, const struct change *c)
{
	a->c = *c;
	memcpy(a->path, c->path, c->n_path);
	a->path[c->n_path] = 0;
	memcpy(a->link, c->link, c->n_link);
	a->link[c->n_link] = 0;
	a->c.path = a->path;
	a->c.link = a->link;
	free(a->xattrs);
	a->xattrs = c->n_xattrs ? malloc(c->n_xattrs) : NULL;
	if (a->xattrs)
		memcpy(a->xattrs, c->xattrs, c->n_xattrs);
	else
		a->c.n_xattrs = 0;
	a->c.xattrs = a->xattrs;
}

/* ---- conflicts ---- */
static u64 changed_ns(const struct stat *st)
{
	return (u64)st->st_ctim.tv_sec * 1000000000ull + (u64)st->st_ctim.tv_nsec;
}

/* A directory that is to go: anything new in it, too. */
static bool tree_changed(const struct apply *a, int parent, const char *name, unsigned depth)
{
	int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	const struct dirent *e = NULL;
	bool changed = !d || depth == DEPTH_MAX;

	while (!changed && (e = readdir(d))) {
		struct stat st;

		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
			continue;
		if (fstatat(fd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
			continue;
		changed = changed_ns(&st) > a->since_ns || (S_ISDIR(st.st_mode) && tree_changed(a, fd, e->d_name, depth + 1));
	}
	if (d)
		closedir(d);
	else if (fd >= 0)
		close(fd);
	return changed;
}

static bool same_attributes(const struct apply *a, const struct stat *st)
{
	return st->st_mode == a->c.mode && st->st_uid == a->c.uid && st->st_gid == a->c.gid &&
	       (u64)st->st_mtim.tv_sec == a->c.mtime_s && (u32)st->st_mtim.tv_nsec == a->c.mtime_ns;
}

/* It has been applied before: to the nanosecond the same, which this machine's own programs do not make. */
static bool applied_before(const struct apply *a, int parent, const struct stat *st)
{
	char link[CHANGE_PATH_MAX];

	if (!same_attributes(a, st))
		return false;
	if (S_ISLNK(st->st_mode))
		return readlinkat(parent, a->name, link, sizeof(link)) == (ssize_t)a->c.n_link && !memcmp(link, a->link, a->c.n_link);
	return S_ISREG(st->st_mode) && (u64)st->st_size == a->c.size;
}

/* NULL: none. A directory's own time says that something in it changed, which is no conflict with its attributes. */
static const char *conflict(const struct apply *a, int parent)
{
	struct stat st;
	bool is_dir = false;

	if (fstatat(parent, a->name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return a->c.kind == 'A' || errno != ENOENT ? NULL : a->c.kind == 'D' ? NULL : "deleted on this machine meanwhile";
	is_dir = S_ISDIR(st.st_mode);
	if ((is_dir && S_ISDIR(a->c.mode)) || applied_before(a, parent, &st))
		return NULL;
	if (changed_ns(&st) > a->since_ns)
		return a->c.kind == 'A' ? "made on this machine meanwhile" : "changed on this machine meanwhile";
	if (is_dir && tree_changed(a, parent, a->name, 0))
		return "something in it changed on this machine meanwhile";
	return NULL;
}

int apply_check(void *apply, const struct change *c)
{
	struct apply *a = apply;
	const char *why = NULL;
	int parent = 0;

	copy_record(a, c);
	parent = open_parent(a);
	if (parent < 0)
		return 0; /* it is still to be made, or apply_record() will say what is wrong */
	why = conflict(a, parent);
	close(parent);
	if (why) {
		a->conflicts++;
		say(a, a->path, why);
	}
	return 0;
}

/* ---- deleting ---- */
static int remove_tree(int parent, const char *name, unsigned depth)
{
	int fd = -1, ret = 0;
	DIR *d = NULL;
	const struct dirent *e = NULL;

	if (unlinkat(parent, name, 0) == 0 || errno == ENOENT)
		return 0;
	if (errno != EISDIR && errno != EPERM)
		return -errno;
	if (depth == DEPTH_MAX)
		return -ELOOP;
	fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	d = fd < 0 ? NULL : fdopendir(fd);
	if (!d)
		return -errno;
	while (!ret && (e = readdir(d)))
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
			ret = remove_tree(fd, e->d_name, depth + 1);
	closedir(d);
	if (!ret && unlinkat(parent, name, AT_REMOVEDIR) < 0)
		ret = -errno;
	return ret;
}

/* ---- making ---- */
static int set_xattrs(const struct apply *a, const char *path, bool no_follow)
{
	struct change_xattr x;
	char name[256];
	size_t at = 0;

	while (change_xattr(&a->c, &at, &x)) {
		snprintf(name, sizeof(name), "%.*s", (int)x.n_name, x.name);
		if ((no_follow ? lsetxattr : setxattr)(path, name, x.value, x.n_value, 0) < 0 && errno != EOPNOTSUPP)
			return -errno;
	}
	return 0;
}

/* Of the file that is open: nobody can put another one under its name. */
static int set_file_attributes(const struct apply *a, const struct timespec times[2])
{
	char path[64];
	int ret = 0;

	if (fchown(a->file, a->c.uid, a->c.gid) < 0 || fchmod(a->file, a->c.mode & 07777) < 0)
		return -errno;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", a->file);
	ret = set_xattrs(a, path, 0);
	return ret ? ret : futimens(a->file, times) < 0 ? -errno : 0;
}

/* Owner first: a change of owner clears set-id bits and capabilities. */
static int set_attributes(const struct apply *a, const char *name)
{
	const struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = (time_t)a->c.mtime_s, .tv_nsec = a->c.mtime_ns}};
	char path[64 + 256];
	int ret = 0;

	if (a->file >= 0)
		return set_file_attributes(a, times);
	if (fchownat(a->dir, name, a->c.uid, a->c.gid, AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	if (!S_ISLNK(a->c.mode) && fchmodat(a->dir, name, a->c.mode & 07777, 0) < 0)
		return -errno;
	snprintf(path, sizeof(path), "/proc/self/fd/%d/%s", a->dir, name);
	ret = set_xattrs(a, path, true);
	if (!ret && utimensat(a->dir, name, times, AT_SYMLINK_NOFOLLOW) < 0)
		ret = -errno;
	return ret;
}

static int name_temp(struct apply *a)
{
	u64 r = 0;

	if (getrandom(&r, sizeof(r), 0) < 0)
		return -errno;
	snprintf(a->temp, sizeof(a->temp), ".doppel-%016llx", (unsigned long long)r);
	return 0;
}

static int make_temp(struct apply *a)
{
	int ret = name_temp(a);

	if (ret)
		return ret;
	switch (a->c.mode & S_IFMT) {
	case S_IFREG:
		a->file = openat(a->dir, a->temp, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
		return a->file < 0 ? -errno : 0;
	case S_IFLNK:
		return symlinkat(a->link, a->dir, a->temp) < 0 ? -errno : 0;
	case S_IFIFO:
	case S_IFCHR:
	case S_IFBLK:
		return mknodat(a->dir, a->temp, (a->c.mode & S_IFMT) | 0600, a->c.rdev) < 0 ? -errno : 0;
	default:
		return -EOPNOTSUPP; /* nothing that Linux has */
	}
}

/*
 * Another name of a file that is here: applied just before, or never changed. It must be the file that the duplicate
 * means, as far as can be told.
 */
static int make_link(struct apply *a)
{
	char other[CHANGE_PATH_MAX], *slash = NULL;
	struct stat st;
	int dir = -1, ret = 0;

	memcpy(other, a->link, a->c.n_link + 1);
	slash = strrchr(other, '/');
	*slash = 0;
	dir = open_dir(a, slash == other ? "" : other + 1);
	if (dir < 0)
		return dir;
	if (fstatat(dir, slash + 1, &st, AT_SYMLINK_NOFOLLOW) < 0)
		ret = -errno;
	else if (!S_ISREG(st.st_mode) || !same_attributes(a, &st) || (u64)st.st_size != a->c.size)
		ret = -ESTALE;
	if (!ret && linkat(dir, slash + 1, a->dir, a->temp, 0) < 0)
		ret = -errno;
	close(dir);
	if (!ret && renameat(a->dir, a->temp, a->dir, a->name) < 0)
		ret = -errno;
	unlinkat(a->dir, a->temp, 0); /* left of a rename to another name of the same file, too */
	return ret;
}

/* The point of no return is the rename; a directory in the way goes first. */
static int into_place(struct apply *a)
{
	struct stat st;
	int ret = set_attributes(a, a->temp);

	if (!ret && fstatat(a->dir, a->name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode))
		ret = remove_tree(a->dir, a->name, 0);
	if (!ret && renameat(a->dir, a->temp, a->dir, a->name) < 0)
		ret = -errno;
	if (ret)
		unlinkat(a->dir, a->temp, 0);
	return ret;
}

static int make_directory(struct apply *a)
{
	struct stat st;
	bool there = fstatat(a->dir, a->name, &st, AT_SYMLINK_NOFOLLOW) == 0;

	if (there && !S_ISDIR(st.st_mode) && unlinkat(a->dir, a->name, 0) < 0)
		return -errno;
	if (!(there && S_ISDIR(st.st_mode)) && mkdirat(a->dir, a->name, 0700) < 0)
		return -errno;
	return set_attributes(a, a->name);
}

static int done(struct apply *a, int ret)
{
	if (a->file >= 0)
		close(a->file);
	if (a->dir >= 0)
		close(a->dir);
	a->file = a->dir = -1;
	if (ret)
		return failed(a, -ret);
	a->done++;
	return 0;
}

/* Regular files end in apply_content(). */
int apply_record(void *apply, const struct change *c)
{
	struct apply *a = apply;
	const char *why = NULL;
	int ret = 0;

	copy_record(a, c);
	a->dir = open_parent(a);
	if (a->dir < 0)
		return done(a, a->dir);
	why = a->force ? NULL : conflict(a, a->dir);
	if (why) {
		a->conflicts++;
		say(a, a->path, why);
		close(a->dir);
		a->dir = -1;
		return 0;
	}
	if (c->kind == 'D')
		return done(a, remove_tree(a->dir, a->name, 0));
	if (S_ISDIR(c->mode))
		return done(a, make_directory(a));
	if (S_ISREG(c->mode) && c->n_link) {
		ret = name_temp(a);
		return done(a, ret ? ret : make_link(a));
	}
	if (S_ISSOCK(c->mode)) {
		say(a, a->path, "a socket: left out (its program makes it)");
		close(a->dir);
		a->dir = -1;
		return 0;
	}
	ret = make_temp(a);
	if (!ret && S_ISREG(c->mode))
		return 0;
	return done(a, ret ? ret : into_place(a));
}

int apply_content(void *apply, const u8 *p, size_t n, bool last)
{
	struct apply *a = apply;
	int ret = 0;

	if (a->file < 0)
		return 0; /* refused or failed: its content passes by */
	ret = n ? write_all(a->file, p, n) : 0;
	if (ret) {
		unlinkat(a->dir, a->temp, 0);
		return done(a, ret);
	}
	return last ? done(a, into_place(a)) : 0;
}

void apply_free(struct apply *a)
{
	if (a->file >= 0)
		unlinkat(a->dir, a->temp, 0);
	if (a->file >= 0)
		close(a->file);
	if (a->dir >= 0)
		close(a->dir);
	free(a->xattrs);
}
