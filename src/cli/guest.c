/* The default guest. The initramfs is packed at each start (two programs, a few directories), so it is never stale. */
#include <archive.h>
#include <archive_entry.h>
#include <dirent.h>
#include <fcntl.h>
#include <glob.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/paths.h"
#include "cli/guest.h"

extern char **environ;

#define PROGRAM_MAX (64ull << 20)

static int find_part(const char *part, const char *variable, char *buf, size_t n, struct err *e)
{
	if (path_part(part, variable, R_OK, buf, n, e) == 0)
		return 0;
	return err_set(e, ENOENT, "%s: not found beside doppel (build or install it, or give --kernel and --initrd)", part);
}

int builtin_guest(struct guest *g, struct err *e)
{
	return find_part("doppel-builtin.elf", NULL, g->kernel, sizeof(g->kernel), e);
}

/* tools/get-kernel downloads and unpacks a package; it says so itself. Its output, the kernel's path, is known. */
static void fetch_kernel(void)
{
	char *argv[] = {"get-kernel", NULL}, path[PATH_MAX];
	posix_spawn_file_actions_t a;
	struct err e = {0};
	pid_t pid = 0;

	if (find_part("doppel-get-kernel", "DOPPEL_GET_KERNEL", path, sizeof(path), &e) < 0 || posix_spawn_file_actions_init(&a))
		return;
	posix_spawn_file_actions_addopen(&a, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_addopen(&a, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
	if (!posix_spawn(&pid, path, &a, NULL, argv, environ))
		while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
			;
	posix_spawn_file_actions_destroy(&a);
}

/* modules: the drivers that must lie beside it, to tell a cache of an older version; NULL: any. */
static bool have_kernel(const char *kernel, const char *module)
{
	char pattern[PATH_MAX];
	glob_t g;
	bool found = false;

	if (access(kernel, R_OK) < 0)
		return false;
	if (!module)
		return true;
	snprintf(pattern, sizeof(pattern), "%.*s/modules/*-%s.ko", (int)(strrchr(kernel, '/') - kernel), kernel, module);
	found = glob(pattern, 0, NULL, &g) == 0;
	globfree(&g);
	return found;
}

static int find_kernel(char *buf, size_t n, const char *module, struct err *e)
{
	char cache[PATH_MAX - 32];
	int ret = path_cache(cache, sizeof(cache), e);

	if (ret)
		return ret;
	snprintf(buf, n, "%s/kernel/vmlinuz", cache);
	if (!have_kernel(buf, module))
		fetch_kernel();
	if (access(buf, R_OK) < 0)
		return err_set(e, errno, "%s: no guest kernel yet (make run or tools/get-kernel fetches one; or give --kernel FILE "
			       "or --kernel builtin)", buf);
	return 0;
}

struct config { /* of a duplicate */
	const char *text;
	size_t n;
	bool net;
};

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

static const char *const bare_modules[] = {
	"virtio_ring", "virtio", "virtio_pci_modern_dev", "virtio_pci_legacy_dev", "virtio_pci", "virtio_blk", "virtio_console",
	"rng-core", "virtio-rng", "button", "pvpanic", "pvpanic-mmio", NULL,
};
static const char *const duplicate_modules[] = {
	"virtio_ring", "virtio", "virtio_pci_modern_dev", "virtio_pci_legacy_dev", "virtio_pci", "virtio_blk", "fuse", "virtiofs",
	"overlay", "vsock", "vmw_vsock_virtio_transport_common", "vmw_vsock_virtio_transport", NULL,
};
/* Not needed to begin: loaded while the first session runs. */
static const char *const late_modules[] = {
	"rng-core", "virtio-rng", "button", "pvpanic", "pvpanic-mmio", NULL,
};
/* Only if the machine has such a device; then before the first session. */
static const char *const net_modules[] = {"failover", "net_failover", "virtio_net", NULL};

/* NN-NAME.ko */
static bool wanted(const char *file, const char *const *modules)
{
	const char *name = strchr(file, '-'), *dot = strrchr(file, '.');

	if (!name || !dot || strcmp(dot, ".ko") != 0)
		return false;
	for (name++; *modules; modules++)
		if (strlen(*modules) == (size_t)(dot - name) && !strncmp(*modules, name, (size_t)(dot - name)))
			return true;
	return false;
}

/* Drivers beside the kernel, for those that it does not have built in: modules/NN-NAME.ko, loaded by init in that order. */
static int pack_modules(struct archive *a, const char *kernel, const char *const *modules, const char *into, struct err *e)
{
	char dir[PATH_MAX], path[PATH_MAX + 260], name[280];
	struct dirent **names = NULL;
	int n = 0, ret = 0;

	snprintf(dir, sizeof(dir), "%.*s/modules", (int)(strrchr(kernel, '/') - kernel), kernel);
	n = scandir(dir, &names, NULL, alphasort);
	for (int i = 0; i < n; i++) {
		snprintf(path, sizeof(path), "%s/%s", dir, names[i]->d_name);
		snprintf(name, sizeof(name), "%s/%s", into, names[i]->d_name);
		if (!ret && wanted(names[i]->d_name, modules))
			ret = pack_program(a, name, path, e);
		free(names[i]);
	}
	free(names);
	return ret;
}

static int pack_bare(struct archive *a, const char *kernel, struct err *e)
{
	static const char *const dirs[] = {"bin", "etc", "lib", "lib/modules", "proc", "root", "run", "sbin", "sys", "tmp"};
	const char *busybox = find_busybox();
	int ret = 0;

	for (u32 i = 0; i < ARRAY_SIZE(dirs) && !ret; i++)
		ret = pack(a, dirs[i], S_IFDIR | 0755, NULL, 0);
	if (!ret && busybox)
		ret = pack_program(a, "bin/busybox", busybox, e);
	if (!ret && busybox)
		ret = pack(a, "bin/sh", S_IFLNK | 0777, "busybox", 0);
	return ret ? ret : pack_modules(a, kernel, bare_modules, "lib/modules", e);
}

static int pack_duplicate(struct archive *a, const char *kernel, bool net, struct err *e)
{
	int ret = pack_modules(a, kernel, duplicate_modules, "lib/modules", e);

	if (!ret && net)
		ret = pack_modules(a, kernel, net_modules, "lib/modules", e);
	return ret ? ret : pack_modules(a, kernel, late_modules, "lib/late", e);
}

static int pack_all(struct archive *a, const char *kernel, const struct config *c, struct err *e)
{
	static const char *const dirs[] = {"lib", "lib/modules", "lib/late"};
	const dev_t console = 5 << 8 | 1;
	char init[PATH_MAX];
	int ret = find_part("doppel-init", "DOPPEL_INIT", init, sizeof(init), e);

	if (!ret)
		ret = pack(a, "dev", S_IFDIR | 0755, NULL, 0);
	if (!ret) /* the kernel opens it before init can mount devtmpfs */
		ret = pack(a, "dev/console", S_IFCHR | 0600, &console, 0);
	if (!ret)
		ret = pack_program(a, "init", init, e);
	for (u32 i = 0; i < ARRAY_SIZE(dirs) && !ret && c; i++)
		ret = pack(a, dirs[i], S_IFDIR | 0755, NULL, 0);
	if (!ret && c)
		ret = pack(a, "config", S_IFREG | 0600, c->text, c->n);
	if (!ret)
		ret = c ? pack_duplicate(a, kernel, c->net, e) : pack_bare(a, kernel, e);
	if (!ret && archive_write_close(a) != ARCHIVE_OK)
		ret = -EIO;
	return ret;
}

static int make_initrd(const char *kernel, const struct config *c, struct err *e)
{
	int fd = memfd_create("doppel-initrd", MFD_CLOEXEC), ret = 0;
	struct archive *a = archive_write_new();

	if (fd < 0 || !a)
		ret = -ENOMEM;
	else if (archive_write_set_format_cpio_newc(a) != ARCHIVE_OK || archive_write_open_fd(a, fd) != ARCHIVE_OK)
		ret = -EIO;
	else
		ret = pack_all(a, kernel, c, e);
	archive_write_free(a);
	if (!ret)
		return fd;
	if (fd >= 0)
		close(fd);
	return err_set(e, -ret, "initramfs: cannot be packed: %s", strerror(-ret));
}

int default_guest(struct guest *g, bool want_initrd, struct err *e)
{
	int ret = find_kernel(g->kernel, sizeof(g->kernel), NULL, e);

	g->initrd_fd = -1;
	if (ret || !want_initrd)
		return ret;
	ret = make_initrd(g->kernel, NULL, e);
	if (ret < 0)
		return ret;
	g->initrd_fd = ret;
	return 0;
}

/* The tree of all modules beside the kernel, as a record for the duplicate's init, with its NUL; 0: there is none. */
static size_t modules_record(const char *kernel, char *buf, size_t n)
{
	char path[PATH_MAX], *real = NULL;
	int len = 0;

	snprintf(path, sizeof(path), "%.*s/tree", (int)(strrchr(kernel, '/') - kernel), kernel);
	real = realpath(path, NULL);
	if (real)
		len = snprintf(buf, n, "modules=%s", real);
	free(real);
	return len > 0 && (size_t)len < n ? (size_t)len + 1 : 0;
}

int duplicate_guest(struct guest *g, const char *config, size_t n, bool net, struct err *e)
{
	char *text = malloc(n + PATH_MAX + 16);
	struct config c = {.text = text, .n = n, .net = net};
	int ret = text ? find_kernel(g->kernel, sizeof(g->kernel), "vmw_vsock_virtio_transport", e) : err_set(e, ENOMEM, "run: no memory");

	g->initrd_fd = -1;
	if (!ret) {
		memcpy(text, config, n);
		c.n += modules_record(g->kernel, text + n, PATH_MAX + 16);
		ret = make_initrd(g->kernel, &c, e);
	}
	free(text);
	if (ret < 0)
		return ret;
	g->initrd_fd = ret;
	return 0;
}

int guest_open_image(const char *what, const char *path, struct err *e)
{
	struct stat st;
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO must not hold us */

	if (fd < 0)
		return err_set(e, errno, "--%s %s: %s", what, path, strerror(errno));
	if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
		return fd;
	close(fd);
	return err_set(e, EINVAL, "--%s %s: not a regular file", what, path);
}
