/*
 * ext4 is made by mke2fs (e2fsprogs, which Debian always has). The size is that of the host's file system, since the file is sparse:
 * writing into the layer fails when the host's disk is full, not before.
 */
#include <cjson/cJSON.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "base/paths.h"
#include "cli/layer.h"
#include "vmm/instance.h"

#define LAYER_MIN (1ull << 30)
#define LAYER_MAX (1ull << 40)
enum { JSON_MAX = 65536 };

extern char **environ;

static int make_dirs(char *path, struct err *e)
{
	for (char *p = strchr(path + 1, '/'); p; p = strchr(p + 1, '/')) {
		*p = 0;
		mkdir(path, 0700);
		*p = '/';
	}
	return mkdir(path, 0700) < 0 && errno != EEXIST ? err_set(e, errno, "%s: %s (set XDG_STATE_HOME)", path, strerror(errno)) : 0;
}

static int state_dir(char *buf, size_t n, struct err *e)
{
	int ret = path_state(buf, n, e);

	return ret ? ret : make_dirs(buf, e);
}

/* ---- the file system ---- */
static u64 image_size(int fd)
{
	struct statvfs v;
	u64 size = fstatvfs(fd, &v) < 0 ? LAYER_MIN : (u64)v.f_frsize * v.f_blocks;

	return MIN(MAX(size, LAYER_MIN), LAYER_MAX) & ~((1ull << 20) - 1);
}

static const char *find_mke2fs(void)
{
	static const char *const places[] = {"/sbin/mke2fs", "/usr/sbin/mke2fs", "/usr/local/sbin/mke2fs"};

	for (u32 i = 0; i < ARRAY_SIZE(places); i++)
		if (access(places[i], X_OK) == 0)
			return places[i];
	return NULL;
}

static int spawn_quietly(const char *program, char *const argv[])
{
	posix_spawn_file_actions_t a;
	pid_t pid = 0;
	int status = 0, ret = posix_spawn_file_actions_init(&a);

	if (ret)
		return -ret;
	for (int fd = 0; fd < 3 && !ret; fd++)
		ret = posix_spawn_file_actions_addopen(&a, fd, "/dev/null", O_RDWR, 0);
	if (!ret)
		ret = posix_spawn(&pid, program, &a, NULL, argv, environ);
	posix_spawn_file_actions_destroy(&a);
	if (ret)
		return -ret;
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	return WIFEXITED(status) && !WEXITSTATUS(status) ? 0 : -EIO;
}

/* A temporary one needs no journal: nobody reads it after a crash. */
static int format(int fd, bool journal, struct err *e)
{
	const char *program = find_mke2fs();
	char path[64], *argv[] = {"mke2fs", "-q", "-F", "-t", "ext4", "-m", "0", "-I", "256", "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard",
				  journal ? "-J" : "-O", journal ? "size=32" : "^has_journal", path, NULL};
	int ret = ftruncate(fd, (off_t)image_size(fd)) < 0 ? -errno : 0;

	if (ret)
		return err_set(e, -ret, "layer: %s", strerror(-ret));
	if (!program)
		return err_set(e, ENOENT, "mke2fs: not found (install e2fsprogs: it makes the file system for what a duplicate writes)");
	snprintf(path, sizeof(path), "/proc/%d/fd/%d", getpid(), fd);
	ret = spawn_quietly(program, argv);
	return ret ? err_set(e, -ret, "mke2fs: cannot make the layer's file system (is the disk full?)") : 0;
}

/* ---- temporary ---- */
/* Where O_TMPFILE does not exist, a name that goes at once. */
static int open_unnamed(const char *dir)
{
	char path[PATH_MAX + 16];
	int fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

	if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL))
		return fd;
	snprintf(path, sizeof(path), "%s/.layer-XXXXXX", dir);
	fd = mkostemp(path, O_CLOEXEC);
	if (fd >= 0)
		unlink(path);
	return fd;
}

static u64 realtime_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (u64)ts.tv_sec * 1000000000ull + (u64)ts.tv_nsec;
}

int layer_temporary(struct layer *l, struct err *e)
{
	char dir[PATH_MAX];
	int ret = state_dir(dir, sizeof(dir), e);

	*l = (struct layer){.fd = -1, .created_ns = realtime_ns(), .fresh = true};
	if (ret)
		return ret;
	l->fd = open_unnamed(dir);
	if (l->fd < 0)
		return err_set(e, errno, "%s: %s (set XDG_STATE_HOME)", dir, strerror(errno));
	snprintf(l->path, sizeof(l->path), "/proc/self/fd/%d", l->fd);
	ret = format(l->fd, false, e);
	if (ret)
		layer_close(l);
	return ret;
}

/* ---- kept ---- */
static int write_json(const struct layer *l, struct err *e)
{
	char path[PATH_MAX + 16], text[32];
	cJSON *j = cJSON_CreateObject();
	char *all = NULL;
	int fd = -1, ret = 0;

	snprintf(text, sizeof(text), "%llu", (unsigned long long)l->created_ns);
	cJSON_AddStringToObject(j, "created-ns", text); /* more digits than a double has */
	all = cJSON_Print(j);
	cJSON_Delete(j);
	snprintf(path, sizeof(path), "%s/layer.json", l->dir);
	fd = all ? open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600) : -1;
	ret = !all ? -ENOMEM : fd < 0 ? -errno : write_all(fd, all, strlen(all));
	if (fd >= 0)
		close(fd);
	free(all);
	return ret ? err_set(e, -ret, "%s: %s", path, strerror(-ret)) : 0;
}

static int read_json(struct layer *l, struct err *e)
{
	char path[PATH_MAX + 16];
	const char *text = NULL;
	void *all = NULL;
	cJSON *j = NULL;
	u64 n = 0;
	int ret = 0;

	snprintf(path, sizeof(path), "%s/layer.json", l->dir);
	ret = read_file(path, JSON_MAX, &all, &n);
	if (!ret) {
		j = cJSON_ParseWithLength(all, n);
		text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(j, "created-ns"));
		l->created_ns = text ? strtoull(text, NULL, 10) : 0;
		ret = l->created_ns ? 0 : -EINVAL;
		cJSON_Delete(j);
	}
	free(all);
	return ret ? err_set(e, -ret, "%s: %s (doppel discard removes a damaged one)", path, strerror(-ret)) : 0;
}

static int kept_dir(struct layer *l, const char *name, struct err *e)
{
	char base[PATH_MAX - 64];
	int ret = 0;

	*l = (struct layer){.fd = -1};
	if (!instance_name_ok(name))
		return err_set(e, EINVAL, "%s: not a name (letters, digits, '-', '_', '.', at most %d)", name, INSTANCE_NAME_MAX);
	ret = state_dir(base, sizeof(base), e);
	snprintf(l->dir, sizeof(l->dir), "%s/%s", base, name);
	return ret;
}

static int open_kept(struct layer *l, const char *name, bool make, struct err *e)
{
	if (make && mkdir(l->dir, 0700) < 0 && errno != EEXIST)
		return err_set(e, errno, "%s: %s", l->dir, strerror(errno));
	snprintf(l->path, sizeof(l->path), "%.*s/layer.img", PATH_MAX - 16, l->dir);
	l->fd = open(l->path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | (make ? O_CREAT : 0), 0600);
	if (l->fd < 0)
		return errno == ENOENT ? err_set(e, ENOENT, "%s: no duplicate of that name is kept (doppel run --keep %s makes one)", name, name)
				       : err_set(e, errno, "%s: %s", l->path, strerror(errno));
	if (flock(l->fd, LOCK_EX | LOCK_NB) < 0)
		return err_set(e, EBUSY, "%s: in use by a running VM (doppel stop %s)", name, name);
	return 0;
}

int layer_kept(struct layer *l, const char *name, bool make, struct err *e)
{
	char json[PATH_MAX + 16];
	int ret = kept_dir(l, name, e);

	if (!ret)
		ret = open_kept(l, name, make, e);
	if (!ret) {
		snprintf(json, sizeof(json), "%s/layer.json", l->dir);
		l->fresh = access(json, F_OK) < 0; /* it is written last */
		if (l->fresh && !make)
			ret = err_set(e, ENOENT, "%s: no duplicate of that name is kept", name);
	}
	if (!ret && l->fresh) {
		l->created_ns = realtime_ns();
		ret = format(l->fd, true, e);
		if (!ret)
			ret = write_json(l, e);
	} else if (!ret) {
		ret = read_json(l, e);
	}
	if (ret)
		layer_close(l);
	return ret;
}

int layer_age(const char *name, u64 *created_ns)
{
	struct err e = {0};
	struct layer l;
	int ret = kept_dir(&l, name, &e);

	if (!ret)
		ret = read_json(&l, &e);
	*created_ns = l.created_ns;
	return ret;
}

void layer_close(struct layer *l)
{
	if (l->fd >= 0)
		close(l->fd);
	l->fd = -1;
}

int layer_discard(const char *name, struct err *e)
{
	static const char *const files[] = {"layer.json", "applied.json", "layer.img"};
	char path[PATH_MAX + 16];
	struct layer l;
	int ret = kept_dir(&l, name, e);

	if (!ret)
		ret = open_kept(&l, name, false, e);
	for (u32 i = 0; i < ARRAY_SIZE(files) && !ret; i++) {
		snprintf(path, sizeof(path), "%s/%s", l.dir, files[i]);
		if (unlink(path) < 0 && errno != ENOENT)
			ret = err_set(e, errno, "%s: %s", path, strerror(errno));
	}
	if (!ret && rmdir(l.dir) < 0)
		ret = err_set(e, errno, "%s: %s", l.dir, strerror(errno));
	layer_close(&l);
	return ret;
}
