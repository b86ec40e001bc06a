/*
 * What the layer has that the machine below has not. Overlayfs (Documentation/filesystems/overlayfs.rst) writes it down as: a
 * character device 0/0 for what is deleted, the attribute trusted.overlay.opaque on a directory that hides the one below, and copies
 * of whatever was opened for writing or changed in its attributes.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "guest/change.h"
#include "guest/operations.h"

enum { DEPTH_MAX = 512, NAMES_MAX = 65536 };

/* The first name of a file that has several. */
struct first {
	ino_t ino;
	bool emitted;
	char *path;
};

struct walk {
	const struct agent *a;
	struct stream *s;
	char *const *wanted; /* paths; NULL: all */
	bool content;
	char path[CHANGE_PATH_MAX]; /* "/a/b" */
	size_t n;
	unsigned depth;
	uint8_t xattrs[CHANGE_XATTRS_MAX];
	struct first *first;
	size_t n_first;
	int error;
};

/* ---- what is asked for ---- */
static bool under(const char *path, const char *dir)
{
	size_t n = strlen(dir);

	while (n > 1 && dir[n - 1] == '/')
		n--;
	if (n == 1)
		return true;
	return !strncmp(path, dir, n) && (path[n] == '/' || !path[n]);
}

/* A directory above something wanted is needed, too. */
static bool wanted(const struct walk *w, bool *above)
{
	*above = false;
	for (char *const *p = w->wanted; p && *p; p++) {
		if (under(w->path, *p))
			return true;
		*above |= under(*p, w->path);
	}
	return !w->wanted || !*w->wanted || *above;
}

/* Where we made directories ourselves to mount a share on. */
static bool is_mount_point(const struct walk *w)
{
	for (unsigned i = 0; i < w->a->shares.n_paths; i++)
		if (under(w->a->shares.path[i], w->path))
			return true;
	return false;
}

/* ---- records ---- */
static size_t read_xattrs(struct walk *w, int dir, const char *name)
{
	char full[64 + 256], names[16384];
	size_t n = 0;
	ssize_t len;

	snprintf(full, sizeof(full), "/proc/self/fd/%d/%s", dir, name);
	len = llistxattr(full, names, sizeof(names));
	for (char *p = names; len > 0 && p < names + len; p += strlen(p) + 1) {
		size_t nn = strlen(p), room = sizeof(w->xattrs) - n;
		ssize_t v;

		if (!strncmp(p, "trusted.overlay.", 16) || room < 8 + nn)
			continue;
		v = lgetxattr(full, p, w->xattrs + n + 8 + nn, room - 8 - nn);
		if (v < 0)
			continue;
		put_u32(w->xattrs + n, (uint32_t)nn);
		put_u32(w->xattrs + n + 4, (uint32_t)v);
		memcpy(w->xattrs + n + 8, p, nn);
		n += 8 + nn + (size_t)v;
	}
	return n;
}

static void send_content(struct walk *w, int dir, const char *name, uint64_t size)
{
	static uint8_t buf[FRAME_DATA];
	int fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);

	while (size && !w->error) {
		ssize_t n = fd < 0 ? -1 : read(fd, buf, size < sizeof(buf) ? size : sizeof(buf));

		if (n < 0)
			w->error = -errno;
		if (n == 0) { /* it became shorter meanwhile: as long as was said */
			n = size < sizeof(buf) ? (ssize_t)size : (ssize_t)sizeof(buf);
			memset(buf, 0, (size_t)n);
		}
		if (n > 0 && stream_write_all(w->s, buf, (size_t)n) < 0)
			w->error = -EPIPE;
		size -= n > 0 ? (uint64_t)n : 0;
	}
	if (fd >= 0)
		close(fd);
}

/* The other name that was seen before; NULL: this is the first, or the only one. The layer is one file system. */
static struct first *first_name(struct walk *w, const struct stat *st, bool emitted)
{
	struct first *bigger;

	if (!S_ISREG(st->st_mode) || st->st_nlink < 2)
		return NULL;
	for (size_t i = 0; i < w->n_first; i++)
		if (w->first[i].ino == st->st_ino)
			return &w->first[i];
	bigger = w->n_first < NAMES_MAX ? realloc(w->first, (w->n_first + 1) * sizeof(*bigger)) : NULL;
	if (!bigger)
		return NULL; /* they come back as separate files */
	w->first = bigger;
	bigger[w->n_first] = (struct first){.ino = st->st_ino, .emitted = emitted, .path = strdup(w->path)};
	if (bigger[w->n_first].path)
		w->n_first++;
	return NULL;
}

static void emit(struct walk *w, char kind, int dir, const char *name, const struct stat *st, const struct first *first)
{
	uint8_t h[CHANGE_HEADER];
	char link[CHANGE_PATH_MAX];
	struct change c = {.kind = (uint32_t)kind, .n_path = (uint32_t)w->n};

	if (st) {
		c.mode = st->st_mode;
		c.uid = st->st_uid;
		c.gid = st->st_gid;
		c.mtime_s = st->st_mtim.tv_sec > 0 ? (uint64_t)st->st_mtim.tv_sec : 0;
		c.mtime_ns = (uint32_t)st->st_mtim.tv_nsec;
		c.size = S_ISREG(st->st_mode) ? (uint64_t)st->st_size : 0;
		c.rdev = S_ISCHR(st->st_mode) || S_ISBLK(st->st_mode) ? st->st_rdev : 0;
		c.content = w->content && S_ISREG(st->st_mode) && !first;
		c.n_xattrs = (uint32_t)read_xattrs(w, dir, name);
	}
	if (first)
		c.n_link = (uint32_t)snprintf(link, sizeof(link), "%s", first->path);
	if (st && S_ISLNK(st->st_mode)) {
		ssize_t n = readlinkat(dir, name, link, sizeof(link) - 1);

		if (n <= 0)
			return;
		c.n_link = (uint32_t)n;
	}
	change_header(h, &c);
	if (stream_write_all(w->s, h, sizeof(h)) < 0 || stream_write_all(w->s, w->path, w->n) < 0 ||
	    stream_write_all(w->s, link, c.n_link) < 0 || stream_write_all(w->s, w->xattrs, c.n_xattrs) < 0)
		w->error = -EPIPE;
	else if (c.content)
		send_content(w, dir, name, c.size);
}

/* ---- the walk ---- */
static bool push(struct walk *w, const char *name, size_t *old)
{
	size_t len = strlen(name);

	*old = w->n;
	if (w->n + len + 2 > sizeof(w->path))
		return false;
	w->path[w->n] = '/';
	memcpy(w->path + w->n + 1, name, len + 1);
	w->n += len + 1;
	return true;
}

static void pop(struct walk *w, size_t old)
{
	w->n = old;
	w->path[old] = 0;
}

static bool below(const struct walk *w, struct stat *st)
{
	return fstatat(w->a->layer.lower, w->path + 1, st, AT_SYMLINK_NOFOLLOW) == 0;
}

static bool same(const struct stat *a, const struct stat *b)
{
	if (a->st_mode != b->st_mode || a->st_uid != b->st_uid || a->st_gid != b->st_gid)
		return false;
	return S_ISDIR(a->st_mode) || (a->st_size == b->st_size && a->st_mtim.tv_sec == b->st_mtim.tv_sec &&
				       a->st_mtim.tv_nsec == b->st_mtim.tv_nsec);
}

static int no_dots(const struct dirent *d)
{
	return strcmp(d->d_name, ".") != 0 && strcmp(d->d_name, "..") != 0;
}

/* Deleted: what the directory below has and an opaque one above has not. */
static void hidden_below(struct walk *w, int upper)
{
	struct dirent **names = NULL;
	int n = scandirat(w->a->layer.lower, w->path + 1, &names, no_dots, alphasort);

	for (int i = 0; i < n; i++) {
		struct stat st;
		size_t old;
		bool above;

		if (!w->error && fstatat(upper, names[i]->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 && push(w, names[i]->d_name, &old)) {
			if (wanted(w, &above) && !above)
				emit(w, 'D', -1, NULL, NULL, NULL);
			pop(w, old);
		}
		free(names[i]);
	}
	free(names);
}

static void walk(struct walk *w, int dir);

static void entry(struct walk *w, int dir, const char *name)
{
	struct stat st, old;
	char opaque = 0;
	const struct first *first = NULL;
	bool there, above, changed;
	int fd;

	if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !wanted(w, &above))
		return;
	there = below(w, &old);
	if (S_ISCHR(st.st_mode) && st.st_rdev == 0) {
		if (there && !above)
			emit(w, 'D', -1, NULL, NULL, NULL);
		return;
	}
	changed = !there ? !(S_ISDIR(st.st_mode) && is_mount_point(w)) : !above && !same(&st, &old);
	first = above ? NULL : first_name(w, &st, changed);
	/* a name that was there is one of a file that was not */
	changed |= first && first->emitted && there && !above && old.st_nlink < st.st_nlink;
	if (changed)
		emit(w, there ? 'C' : 'A', dir, name, &st, first);
	if (!S_ISDIR(st.st_mode) || w->depth == DEPTH_MAX)
		return;
	fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return;
	if (there && S_ISDIR(old.st_mode) && fgetxattr(fd, "trusted.overlay.opaque", &opaque, 1) == 1 && opaque == 'y')
		hidden_below(w, fd);
	walk(w, fd);
	close(fd);
}

static void walk(struct walk *w, int dir)
{
	struct dirent **names = NULL;
	int n = scandirat(dir, ".", &names, no_dots, alphasort);

	w->depth++;
	for (int i = 0; i < n; i++) {
		size_t old;

		if (!w->error && push(w, names[i]->d_name, &old)) {
			entry(w, dir, names[i]->d_name);
			pop(w, old);
		}
		free(names[i]);
	}
	w->depth--;
	free(names);
}

int layer_changes(const struct agent *a, char *const *paths, bool content, struct stream *s)
{
	const struct rlimit files = {.rlim_cur = 4096, .rlim_max = 4096};
	struct walk *w = calloc(1, sizeof(*w));
	int e;

	if (!w)
		return -ENOMEM;
	*w = (struct walk){.a = a, .s = s, .wanted = paths, .content = content};
	setrlimit(RLIMIT_NOFILE, &files);
	walk(w, a->layer.upper);
	e = w->error;
	for (size_t i = 0; i < w->n_first; i++)
		free(w->first[i].path);
	free(w->first);
	free(w);
	return e;
}
