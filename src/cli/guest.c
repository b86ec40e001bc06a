/* The default guest. The initramfs is packed at each start (two programs, a few directories), so it is never stale. */
#include <archive.h>
#include <archive_entry.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/paths.h"
#include "cli/guest.h"

#define PROGRAM_MAX (64ull << 20)

/* A part of doppel: where the environment says, beside this executable (build tree) or in ../libexec (installed). */
static int find_part(const char *part, const char *variable, char *buf, size_t n, struct err *e)
{
	static const char *const places[] = {"", "../libexec/"};
	const char *env = variable ? getenv(variable) : NULL;
	char self[PATH_MAX];
	ssize_t len = readlink("/proc/self/exe", self, sizeof(self) - 1);
	char *slash = NULL;

	if (env && *env) {
		snprintf(buf, n, "%s", env);
		return 0;
	}
	self[len > 0 ? len : 0] = 0;
	slash = strrchr(self, '/');
	for (u32 i = 0; slash && i < ARRAY_SIZE(places); i++) {
		int need = snprintf(buf, n, "%.*s/%s%s", (int)(slash - self), self, places[i], part);

		if (need < (int)n && access(buf, R_OK) == 0)
			return 0;
	}
	return err_set(e, ENOENT, "%s: not found beside doppel (build or install it, or give --kernel and --initrd)", part);
}

int builtin_guest(struct guest *g, struct err *e)
{
	return find_part("doppel-builtin.elf", NULL, g->kernel, sizeof(g->kernel), e);
}

static int find_kernel(char *buf, size_t n, struct err *e)
{
	char cache[PATH_MAX - 32];
	int ret = path_cache(cache, sizeof(cache), e);

	if (ret)
		return ret;
	snprintf(buf, n, "%s/kernel/vmlinuz", cache);
	if (access(buf, R_OK) < 0)
		return err_set(e, errno, "%s: no guest kernel yet (make run or tools/get-kernel fetches one; or give --kernel FILE "
			       "or --kernel builtin)", buf);
	return 0;
}

static int pack(struct archive *a, const char *name, mode_t mode, const void *data, u64 size)
{
	struct archive_entry *entry = archive_entry_new();
	int ret = -ENOMEM;

	if (!entry)
		return ret;
	archive_entry_set_pathname(entry, name);
	archive_entry_set_mode(entry, mode);
	archive_entry_set_size(entry, (la_int64_t)size);
	if (S_ISLNK(mode)) {
		archive_entry_set_size(entry, 0);
		archive_entry_set_symlink(entry, data);
	}
	if (S_ISCHR(mode))
		archive_entry_set_rdev(entry, *(const dev_t *)data);
	ret = archive_write_header(a, entry) == ARCHIVE_OK ? 0 : -EIO;
	if (!ret && S_ISREG(mode) && archive_write_data(a, data, size) != (la_ssize_t)size)
		ret = -EIO;
	archive_entry_free(entry);
	return ret;
}

static int pack_program(struct archive *a, const char *name, const char *path, struct err *e)
{
	void *data = NULL;
	u64 size = 0;
	int ret = read_file(path, PROGRAM_MAX, &data, &size);

	if (!ret)
		ret = pack(a, name, S_IFREG | 0755, data, size);
	free(data);
	return ret ? err_set(e, -ret, "%s: %s", path, strerror(-ret)) : 0;
}

/* A static busybox for the shell; without one the guest has only init. */
static const char *find_busybox(void)
{
	static const char *const places[] = {"/bin/busybox", "/usr/bin/busybox", "/usr/lib/busybox/busybox"};
	const char *env = getenv("DOPPEL_BUSYBOX");

	if (env && *env)
		return env;
	for (u32 i = 0; i < ARRAY_SIZE(places); i++)
		if (access(places[i], R_OK) == 0)
			return places[i];
	return NULL;
}

/* Drivers beside the kernel, for those that it does not have built in: modules/NN-NAME.ko, loaded by init in that order. */
static int pack_modules(struct archive *a, const char *kernel, struct err *e)
{
	char dir[PATH_MAX], path[PATH_MAX + 260], name[280];
	struct dirent **names = NULL;
	int n = 0, ret = 0;

	snprintf(dir, sizeof(dir), "%.*s/modules", (int)(strrchr(kernel, '/') - kernel), kernel);
	n = scandir(dir, &names, NULL, alphasort);
	for (int i = 0; i < n; i++) {
		const char *dot = strrchr(names[i]->d_name, '.');

		snprintf(path, sizeof(path), "%s/%s", dir, names[i]->d_name);
		snprintf(name, sizeof(name), "lib/modules/%s", names[i]->d_name);
		if (!ret && dot && !strcmp(dot, ".ko"))
			ret = pack_program(a, name, path, e);
		free(names[i]);
	}
	free(names);
	return ret;
}

static int pack_all(struct archive *a, const char *kernel, struct err *e)
{
	static const char *const dirs[] = {"bin", "dev", "etc", "lib", "lib/modules", "proc", "root", "run", "sbin", "sys", "tmp"};
	const dev_t console = 5 << 8 | 1;
	const char *busybox = find_busybox();
	char init[PATH_MAX];
	int ret = find_part("doppel-init", "DOPPEL_INIT", init, sizeof(init), e);

	for (u32 i = 0; i < ARRAY_SIZE(dirs) && !ret; i++)
		ret = pack(a, dirs[i], S_IFDIR | 0755, NULL, 0);
	if (!ret) /* the kernel opens it before init can mount devtmpfs */
		ret = pack(a, "dev/console", S_IFCHR | 0600, &console, 0);
	if (!ret)
		ret = pack_program(a, "init", init, e);
	if (!ret && busybox)
		ret = pack_program(a, "bin/busybox", busybox, e);
	if (!ret && busybox)
		ret = pack(a, "bin/sh", S_IFLNK | 0777, "busybox", 0);
	if (!ret)
		ret = pack_modules(a, kernel, e);
	if (!ret && archive_write_close(a) != ARCHIVE_OK)
		ret = -EIO;
	return ret;
}

static int make_initrd(const char *kernel, struct err *e)
{
	int fd = memfd_create("doppel-initrd", MFD_CLOEXEC), ret = 0;
	struct archive *a = archive_write_new();

	if (fd < 0 || !a)
		ret = -ENOMEM;
	else if (archive_write_set_format_cpio_newc(a) != ARCHIVE_OK || archive_write_open_fd(a, fd) != ARCHIVE_OK)
		ret = -EIO;
	else
		ret = pack_all(a, kernel, e);
	archive_write_free(a);
	if (!ret)
		return fd;
	if (fd >= 0)
		close(fd);
	return err_set(e, -ret, "initramfs: cannot be packed: %s", strerror(-ret));
}

int default_guest(struct guest *g, bool want_initrd, struct err *e)
{
	int ret = find_kernel(g->kernel, sizeof(g->kernel), e);

	g->initrd_fd = -1;
	if (ret || !want_initrd)
		return ret;
	ret = make_initrd(g->kernel, e);
	if (ret < 0)
		return ret;
	g->initrd_fd = ret;
	return 0;
}
