/*
 * The kernel's modules in a duplicate whose machine does not have them: its root lacks /lib/modules/RELEASE, and perhaps modprobe too.
 * The tree beside the kernel in doppel's cache is put there, writable and out of the way of what the command changed; and this program
 * is the kernel's modprobe (Documentation/admin-guide/sysctl/kernel.rst, "modprobe") where the root has none. It reads what depmod wrote
 * (modules.dep(5)); it knows no /etc/modprobe.d.
 */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "guest/init.h"

#define TREE "/run/doppel/modules"
#define SELF "/proc/1/exe"

enum { LINE_MAX_LEN = 4096, COMPRESSED_FILE = 4 /* MODULE_INIT_COMPRESSED_FILE */ };

/* ---- the tree ---- */
static bool is_link(const char *path)
{
	struct stat st;

	return lstat(path, &st) == 0 && S_ISLNK(st.st_mode);
}

/* The directories that path, which is absolute, lies in. */
static void make_parents(char *path)
{
	for (char *s = strchr(path + 1, '/'); s; s = strchr(s + 1, '/')) {
		*s = 0;
		mkdir(path, 0755);
		*s = '/';
	}
}

static bool __attribute__((format(printf, 2, 3))) make_link(const char *target, const char *fmt, ...)
{
	char path[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(path, sizeof(path), fmt, ap);
	va_end(ap);
	make_parents(path);
	return symlink(target, path) == 0;
}

bool kmod_prepare(const char *lower, const char *tree, const char *extra)
{
	struct utsname u;
	char path[4200];

	snprintf(path, sizeof(path), "%s%s/kernel", lower, tree);
	if (uname(&u) < 0 || access(path, F_OK) < 0)
		return false;
	snprintf(path, sizeof(path), "%s/lib/modules/%s", lower, u.release);
	if (access(path, F_OK) == 0)
		return false;
	mkdir(extra, 0755);
	if (mount("modules", extra, "tmpfs", 0, "mode=755") < 0)
		return false;
	snprintf(path, sizeof(path), "%s/lib", lower);
	if (!make_link(TREE, "%s%s/lib/modules/%s", extra, is_link(path) ? "/usr" : "", u.release))
		return false;
	snprintf(path, sizeof(path), "%s/sbin", lower);
	make_link(SELF, "%s%s/sbin/modprobe", extra, is_link(path) ? "/usr" : ""); /* below: the root's own is seen instead */
	return true;
}

void kmod_mount(const char *lower, const char *tree, const char *layer)
{
	char upper[512], work[512], options[6000];
	struct utsname u;

	if (uname(&u) < 0)
		return;
	snprintf(upper, sizeof(upper), "%s/modules-%s", layer, u.release);
	snprintf(work, sizeof(work), "%s/work-%s", layer, u.release);
	snprintf(options, sizeof(options), "lowerdir=%s%s,upperdir=%s,workdir=%s", lower, tree, upper, work);
	mkdir(upper, 0755);
	mkdir(work, 0755);
	mkdir("run/doppel", 0755);
	mkdir(&TREE[1], 0755);
	if (mount("modules", &TREE[1], "overlay", 0, options) < 0)
		printf("init: %s: %s\n", TREE, strerror(errno));
}

/* ---- what depmod wrote ---- */
static FILE *open_list(const char *name)
{
	struct utsname u;
	char path[512];

	if (uname(&u) < 0)
		return NULL;
	snprintf(path, sizeof(path), "/lib/modules/%s/%s", u.release, name);
	return fopen(path, "re");
}

static int make_node(const char *name, char type, unsigned major_nr, unsigned minor_nr)
{
	/* as udev's rules (50-udev-default.rules) */
	bool open_to_all = !strcmp(name, "fuse") || !strcmp(name, "net/tun") || !strcmp(name, "kvm");
	char path[300];

	if (strstr(name, ".."))
		return -EINVAL;
	snprintf(path, sizeof(path), "/dev/%s", name);
	make_parents(path);
	if (mknod(path, (type == 'b' ? S_IFBLK : S_IFCHR) | 0600, makedev(major_nr, minor_nr)) < 0 && errno != EEXIST)
		return -errno;
	return open_to_all && chmod(path, 0666) < 0 ? -errno : 0;
}

/* Nodes whose opening loads their drivers: modules.devname, which udev's kmod-static-nodes reads elsewhere. */
static void static_nodes(void)
{
	FILE *f = open_list("modules.devname");
	char line[LINE_MAX_LEN], node[128], type;
	unsigned major_nr, minor_nr;

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "%*s %127s %c%u:%u", node, &type, &major_nr, &minor_nr) == 4)
			make_node(node, type, major_nr, minor_nr);
	if (f)
		fclose(f);
}

void kmod_ready(void)
{
	int fd = -1;

	static_nodes();
	if (access("/sbin/modprobe", X_OK) == 0 && !is_link("/sbin/modprobe"))
		return;
	fd = open("/proc/sys/kernel/modprobe", O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, SELF, strlen(SELF)) < 0)
		printf("init: /proc/sys/kernel/modprobe: %s\n", strerror(errno));
	if (fd >= 0)
		close(fd);
}

/* ---- modprobe ---- */
static char plain(char c)
{
	return c == '-' ? '_' : c;
}

static void plain_name(const char *name, char *out, size_t n)
{
	size_t i = 0;

	for (; name[i] && i < n - 1; i++)
		out[i] = plain(name[i]);
	out[i] = 0;
}

/* Is it the name of the module in that file? kernel/drivers/block/loop.ko */
static bool names_file(const char *file, size_t n, const char *name)
{
	const char *from = memrchr(file, '/', n);
	size_t i = 0;

	from = from ? from + 1 : file;
	n -= (size_t)(from - file);
	for (; name[i] && i < n; i++)
		if (plain(from[i]) != plain(name[i]))
			return false;
	return !name[i] && n - i >= 3 && !strncmp(from + i, ".ko", 3);
}

/* The line of a list whose file (up to `end`) is the module's; a copy to be freed, or NULL. */
static char *find_line(const char *list, const char *name, char end)
{
	FILE *f = open_list(list);
	char *line = NULL;
	size_t cap = 0;
	bool found = false;

	while (f && !found && getline(&line, &cap, f) > 0) {
		line[strcspn(line, "\n")] = 0;
		found = names_file(line, strchrnul(line, end) - line, name);
	}
	if (f)
		fclose(f);
	if (!found) {
		free(line);
		line = NULL;
	}
	return line;
}

static int insert(const char *file, const char *parameters)
{
	struct utsname u;
	char path[1024];
	size_t n = strlen(file);
	int fd = -1, ret = 0;

	uname(&u);
	if (file[0] == '/')
		snprintf(path, sizeof(path), "%s", file);
	else
		snprintf(path, sizeof(path), "/lib/modules/%s/%s", u.release, file);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (syscall(SYS_finit_module, fd, parameters, n > 3 && !strcmp(file + n - 3, ".ko") ? 0 : COMPRESSED_FILE) < 0 && errno != EEXIST)
		ret = -errno;
	close(fd);
	return ret;
}

/* "FILE: DEPENDENCY ...": the last dependency comes first. */
static int insert_with_dependencies(char *line, const char *parameters)
{
	char *colon = strchr(line, ':'), *space = NULL;
	int ret = 0;

	if (!colon)
		return -EINVAL;
	*colon = 0;
	while (!ret && (space = strrchr(colon + 1, ' '))) {
		if (space[1])
			ret = insert(space + 1, "");
		*space = 0;
	}
	return ret ? ret : insert(line, parameters);
}

static int load_named(const char *name, const char *parameters)
{
	char *line = find_line("modules.dep", name, ':');
	int ret = -ENOENT;

	if (line)
		ret = insert_with_dependencies(line, parameters);
	else if ((line = find_line("modules.builtin", name, 0)))
		ret = 0;
	free(line);
	return ret;
}

static int load_by_alias(const char *name)
{
	FILE *f = open_list("modules.alias");
	char line[LINE_MAX_LEN], pattern[LINE_MAX_LEN], module[256], other[256];
	int ret = -ENOENT;

	plain_name(name, other, sizeof(other));
	while (f && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "alias %4095s %255s", pattern, module) != 2 ||
		    (fnmatch(pattern, name, 0) && fnmatch(pattern, other, 0)))
			continue;
		int e = load_named(module, "");

		ret = ret ? e : 0; /* one that serves is enough */
	}
	if (f)
		fclose(f);
	return ret;
}

static int remove_module(const char *name)
{
	char module[256];

	plain_name(name, module, sizeof(module));
	return syscall(SYS_delete_module, module, O_NONBLOCK) < 0 ? -errno : 0;
}

static int complain(bool quiet, const char *name, int error)
{
	struct utsname u;

	if (!error)
		return 0;
	uname(&u);
	if (error == -ENOENT && !quiet)
		fprintf(stderr, "modprobe: FATAL: Module %s not found in directory /lib/modules/%s\n", name, u.release);
	else if (error != -ENOENT)
		fprintf(stderr, "modprobe: ERROR: could not do that with '%s': %s\n", name, strerror(-error));
	return 1;
}

/* PARAMETER=VALUE ... as the kernel wants them; to be freed */
static char *join(char **words)
{
	char *text = NULL;
	size_t n = 0;
	FILE *f = open_memstream(&text, &n);

	for (; f && *words; words++)
		fprintf(f, "%s%s", n ? " " : "", *words);
	if (f)
		fclose(f);
	return text;
}

int modprobe_main(int argc, char **argv)
{
	bool all = false, quiet = false, removing = false;
	int c, status = 0, e;

	while ((c = getopt(argc, argv, "+aqrbvs")) != -1) {
		if (c == '?')
			return 1;
		all |= c == 'a';
		quiet |= c == 'q';
		removing |= c == 'r';
	}
	for (int i = optind; i < argc; i++) {
		char *parameters = all || removing ? NULL : join(argv + i + 1);

		e = removing ? remove_module(argv[i]) : load_named(argv[i], parameters ? parameters : "");
		free(parameters);
		if (e == -ENOENT && !removing)
			e = load_by_alias(argv[i]);
		status |= complain(quiet, argv[i], e);
		if (!all && !removing)
			break;
	}
	return status;
}
