/*
 * The lock file is locked (flock) by the VM's process for as long as it lives: the kernel drops the lock when the process dies, so
 * a directory whose lock can be taken is a leftover. Remover and claimer both hold the lock when they delete; a claimer that got
 * the lock on a file that has been unlinked meanwhile starts over.
 */
#include <cjson/cJSON.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include "vmm/instance.h"

enum { INFO_MAX = 4096, TRIES = 20, WAITS = 1000, LOOKS = 20, LOOK_US = 5000 };

bool instance_name_ok(const char *name)
{
	size_t n = strlen(name);

	if (!n || n > INSTANCE_NAME_MAX || name[0] == '.' || name[0] == '-')
		return false;
	return strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") == n;
}

static int set_dir(struct instance *in, const char *name, bool create, struct err *e)
{
	char base[PATHS_MAX];
	int ret = 0;

	*in = (struct instance){.lock_fd = -1};
	if (!instance_name_ok(name))
		return err_set(e, EINVAL, "%s: not a VM name (letters, digits, '-', '_', '.', at most %d)", name,
			       INSTANCE_NAME_MAX);
	ret = path_runtime(base, sizeof(base), create, e);
	if (ret)
		return ret;
	snprintf(in->name, sizeof(in->name), "%s", name);
	snprintf(in->dir, sizeof(in->dir), "%s/%s", base, name);
	return 0;
}

static void file_in(const struct instance *in, const char *file, char *buf, size_t n)
{
	snprintf(buf, n, "%s/%s", in->dir, file);
}

static void remove_files(const struct instance *in)
{
	static const char *const files[] = {"qmp.sock", "console.sock", "vsock.sock", "gdb.sock", "info.json", "info.json.new", "log", "output", "lock"};
	char path[PATH_MAX];

	for (u32 i = 0; i < ARRAY_SIZE(files); i++) {
		file_in(in, files[i], path, sizeof(path));
		unlink(path);
	}
	rmdir(in->dir);
}

/*
 * The lock, and that the file locked is still the one with that name. LOCK_EX is a VM's, for its life, and that of who removes what a
 * dead one left; LOCK_SH that of who asks. -EWOULDBLOCK: somebody has it; -ESTALE: start over.
 */
static int try_lock(const struct instance *in, bool create, int kind)
{
	char path[PATH_MAX];
	struct stat a, b;
	int fd = -1;

	file_in(in, "lock", path, sizeof(path));
	fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | (create ? O_CREAT : 0), 0600);
	if (fd < 0)
		return errno == ENOENT && create ? -ESTALE : -errno;
	if (flock(fd, kind | LOCK_NB) < 0) {
		int err = errno;

		close(fd);
		return -err;
	}
	if (fstat(fd, &a) < 0 || stat(path, &b) < 0 || a.st_ino != b.st_ino) {
		close(fd);
		return -ESTALE;
	}
	return fd;
}

static void nothing(void *arg, const struct instance_info *info) {}

/* Nobody but a VM stands in the way for long: not those who ask, nor those who remove. */
static int lock_name(const struct instance *in)
{
	int ret = try_lock(in, true, LOCK_EX);

	for (int waited = 0, vm = 0; ret == -EWOULDBLOCK && waited < WAITS && vm < LOOKS; waited++) {
		int asked = try_lock(in, false, LOCK_SH);

		vm += asked == -EWOULDBLOCK;
		if (asked >= 0)
			close(asked);
		usleep(LOOK_US);
		ret = try_lock(in, true, LOCK_EX);
	}
	return ret;
}

int instance_claim(struct instance *in, const char *name, struct err *e)
{
	int ret = set_dir(in, name, true, e);

	if (ret)
		return ret;
	instance_each(nothing, NULL, NULL); /* clears away what killed ones left: they could not themselves */
	for (int i = 0; i < TRIES; i++) {
		if (mkdir(in->dir, 0700) < 0 && errno != EEXIST)
			return err_set(e, errno, "%s: %s", in->dir, strerror(errno));
		ret = lock_name(in);
		if (ret == -EWOULDBLOCK)
			return err_set(e, EEXIST, "--name %s: a VM of that name is running (doppel stop %s, or another name)",
				       name, name);
		if (ret == -ESTALE)
			continue;
		if (ret < 0)
			return err_set(e, -ret, "%s: %s", in->dir, strerror(-ret));
		in->lock_fd = ret;
		return 0;
	}
	return err_set(e, EBUSY, "--name %s: others are claiming it (try again)", name);
}

void instance_release(struct instance *in)
{
	if (in->lock_fd < 0)
		return;
	remove_files(in);
	close(in->lock_fd);
	in->lock_fd = -1;
}

int instance_write_info(const struct instance *in, const struct instance_info *info)
{
	char path[PATH_MAX], new[PATH_MAX], *text = NULL;
	cJSON *j = cJSON_CreateObject();
	int fd = -1, ret = 0;

	cJSON_AddStringToObject(j, "name", info->name);
	cJSON_AddNumberToObject(j, "pid", info->pid);
	cJSON_AddNumberToObject(j, "memory", (double)info->memory);
	cJSON_AddNumberToObject(j, "started", (double)info->started);
	cJSON_AddNumberToObject(j, "cpus", info->cpus);
	cJSON_AddStringToObject(j, "engine", info->engine);
	cJSON_AddStringToObject(j, "kernel", info->kernel);
	cJSON_AddStringToObject(j, "ports", info->ports);
	text = cJSON_Print(j);
	cJSON_Delete(j);
	if (!text)
		return -ENOMEM;
	file_in(in, "info.json", path, sizeof(path));
	file_in(in, "info.json.new", new, sizeof(new));
	fd = open(new, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	ret = fd < 0 ? -errno : write_all(fd, text, strlen(text));
	if (fd >= 0)
		close(fd);
	if (!ret && rename(new, path) < 0)
		ret = -errno;
	free(text);
	return ret;
}

static int address_of(const struct instance *in, const char *file, struct sockaddr_un *a)
{
	*a = (struct sockaddr_un){.sun_family = AF_UNIX};
	return snprintf(a->sun_path, sizeof(a->sun_path), "%s/%s", in->dir, file) < (int)sizeof(a->sun_path) ? 0
													      : -ENAMETOOLONG;
}

int instance_socket(const struct instance *in, const char *file, struct err *e)
{
	struct sockaddr_un a;
	int ret = address_of(in, file, &a), fd = -1;

	if (ret)
		return err_set(e, -ret, "%s/%s: too long for a socket address (set a shorter XDG_RUNTIME_DIR)", in->dir, file);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	unlink(a.sun_path); /* of a crashed VM: the lock is ours */
	if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(fd, 8) < 0) {
		ret = err_set(e, errno, "%s: %s", a.sun_path, strerror(errno));
		if (fd >= 0)
			close(fd);
		return ret;
	}
	return fd;
}

/* ---- other processes ---- */
static bool alive(const struct instance *in)
{
	int fd = try_lock(in, false, LOCK_SH);

	if (fd == -EWOULDBLOCK)
		return true;
	if (fd >= 0) {
		close(fd);
		fd = try_lock(in, false, LOCK_EX);
		if (fd >= 0) {
			remove_files(in);
			close(fd);
		}
	} else if (fd == -ENOENT) {
		rmdir(in->dir); /* died between mkdir and lock */
	}
	return false;
}

static void get_text(const cJSON *j, const char *key, char *buf, size_t n)
{
	const char *s = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(j, key));

	snprintf(buf, n, "%s", s ? s : "");
}

static u64 get_number(const cJSON *j, const char *key)
{
	const cJSON *v = cJSON_GetObjectItemCaseSensitive(j, key);

	return cJSON_IsNumber(v) && v->valuedouble >= 0 && v->valuedouble < 9e15 ? (u64)v->valuedouble : 0;
}

static int read_info(const struct instance *in, struct instance_info *out)
{
	char path[PATH_MAX];
	void *text = NULL;
	u64 n = 0;
	cJSON *j = NULL;
	int ret = 0;

	file_in(in, "info.json", path, sizeof(path));
	ret = read_file(path, INFO_MAX, &text, &n);
	if (ret)
		return ret;
	j = cJSON_ParseWithLength(text, n);
	free(text);
	if (!j)
		return -EINVAL;
	*out = (struct instance_info){.pid = (int)get_number(j, "pid"), .memory = get_number(j, "memory"),
				      .started = get_number(j, "started"), .cpus = (u32)get_number(j, "cpus")};
	snprintf(out->name, sizeof(out->name), "%s", in->name);
	get_text(j, "engine", out->engine, sizeof(out->engine));
	get_text(j, "kernel", out->kernel, sizeof(out->kernel));
	get_text(j, "ports", out->ports, sizeof(out->ports));
	cJSON_Delete(j);
	return 0;
}

int instance_each(void (*fn)(void *arg, const struct instance_info *info), void *arg, struct err *e)
{
	char base[PATHS_MAX];
	struct dirent **names = NULL;
	int ret = path_runtime(base, sizeof(base), false, e), n = 0;

	if (ret == -ENOENT)
		return 0; /* no VM has ever run */
	if (ret)
		return ret;
	n = scandir(base, &names, NULL, alphasort);
	for (int i = 0; i < n; i++) {
		struct instance in;
		struct instance_info info;

		if (instance_name_ok(names[i]->d_name) && !set_dir(&in, names[i]->d_name, false, NULL) && alive(&in) &&
		    !read_info(&in, &info))
			fn(arg, &info);
		free(names[i]);
	}
	free(names);
	return 0;
}

static int find(const char *name, struct instance *in, struct err *e)
{
	int ret = set_dir(in, name, false, e);

	if (ret == -ENOENT || (!ret && !alive(in)))
		return err_set(e, ENOENT, "%s: no such VM is running (doppel ps lists them)", name);
	return ret;
}

int instance_connect(const char *name, const char *file, struct err *e)
{
	struct instance in;
	struct sockaddr_un a;
	int ret = find(name, &in, e), fd = -1;

	if (ret)
		return ret;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || address_of(&in, file, &a) || connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0) {
		ret = err_set(e, errno, "%s: cannot reach the VM: %s", name, strerror(errno));
		if (fd >= 0)
			close(fd);
		return ret;
	}
	return fd;
}

int instance_open(const char *name, const char *file, struct err *e)
{
	char path[PATH_MAX];
	struct instance in;
	int ret = find(name, &in, e), fd = -1;

	if (ret)
		return ret;
	file_in(&in, file, path, sizeof(path));
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	return fd < 0 ? err_set(e, errno, "%s: %s: %s", name, file, strerror(errno)) : fd;
}

int instance_read_info(const char *name, struct instance_info *out, struct err *e)
{
	struct instance in;
	int ret = find(name, &in, e);

	if (ret)
		return ret;
	ret = read_info(&in, out);
	return ret ? err_set(e, -ret, "%s: cannot read its description: %s", name, strerror(-ret)) : 0;
}
