/* The default guest. The initramfs is packed at each start (two programs, a few directories), so it is never stale. */
#include <archive.h>
#include <archive_entry.h>
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

/* doppel-init beside this executable (build tree) or in ../libexec (installed). */
static int find_init(char *buf, size_t n, struct err *e)
{
	static const char *const places[] = {"doppel-init", "../libexec/doppel-init"};
	const char *env = getenv("DOPPEL_INIT");
	char self[PATH_MAX];
	ssize_t len = readlink("/proc/self/exe", self, sizeof(self) - 1);
	char *slash = NULL;

	if (env) {
		snprintf(buf, n, "%s", env);
		return 0;
	}
	self[len > 0 ? len : 0] = 0;
	slash = strrchr(self, '/');
	for (u32 i = 0; slash && i < ARRAY_SIZE(places); i++) {
		if (snprintf(buf, n, "%.*s/%s", (int)(slash - self), self, places[i]) < (int)n && access(buf, R_OK) == 0)
			return 0;
	}
	return err_set(e, ENOENT, "doppel-init: not found beside doppel (build or install it, or give --kernel and --initrd)");
}

static int find_kernel(char *buf, size_t n, struct err *e)
{
	char cache[PATH_MAX - 32];
	int ret = path_cache(cache, sizeof(cache), e);

	if (ret)
		return ret;
	snprintf(buf, n, "%s/kernel/vmlinuz", cache);
	if (access(buf, R_OK) < 0)
		return err_set(e, errno, "%s: no guest kernel yet (make run or tools/get-kernel fetches one; or give --kernel)",
			       buf);
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

	if (env)
		return env;
	for (u32 i = 0; i < ARRAY_SIZE(places); i++)
		if (access(places[i], R_OK) == 0)
			return places[i];
	return NULL;
}

static int pack_all(struct archive *a, struct err *e)
{
	static const char *const dirs[] = {"bin", "dev", "etc", "proc", "root", "run", "sbin", "sys", "tmp"};
	const dev_t console = 5 << 8 | 1;
	const char *busybox = find_busybox();
	char init[PATH_MAX];
	int ret = find_init(init, sizeof(init), e);

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
	if (!ret && archive_write_close(a) != ARCHIVE_OK)
		ret = -EIO;
	return ret;
}

static int make_initrd(struct err *e)
{
	int fd = memfd_create("doppel-initrd", MFD_CLOEXEC), ret = 0;
	struct archive *a = archive_write_new();

	if (fd < 0 || !a)
		ret = -ENOMEM;
	else if (archive_write_set_format_cpio_newc(a) != ARCHIVE_OK || archive_write_open_fd(a, fd) != ARCHIVE_OK)
		ret = -EIO;
	else
		ret = pack_all(a, e);
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
	ret = make_initrd(e);
	if (ret < 0)
		return ret;
	g->initrd_fd = ret;
	return 0;
}
