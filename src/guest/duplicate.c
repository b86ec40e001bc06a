/*
 * The duplicate: this machine's root read-only over virtio-fs, a writable layer of the host's disk over it, fresh kernel file
 * systems, the shares; then the agent. Configuration (DUPLICATE_CONFIG), records NAME=VALUE ended by NUL:
 *   root=virtiofs:TAG | root=disk:DEVICE   what lies below (a disk: for tests without virtio-fs)
 *   layer=DEVICE                           ext4; none: what is written stays in memory
 *   temporary=1                            the layer need not be written out at the end
 *   hostname=NAME
 *   share=TAG:rw:PATH | share=TAG:ro:PATH
 *   modules=DIRECTORY                      of the kernel, below the root; used if the root has none for it
 *   net=user                               the card is to be set up for doppel-net
 *   run-user=UID:GID                       /run/user/UID is to be there
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <termios.h>
#include <unistd.h>

#include "guest/agent.h"
#include "guest/init.h"

#define LOWER "/lower"
#define LAYER "/layer"
#define ROOT  "/root"
#define EXTRA "/extra" /* what lies below the machine's root */

enum { CONFIG_MAX = 64 << 10 };

struct config {
	char *text;
	size_t n;
};

static void __attribute__((noreturn, format(printf, 1, 2))) give_up(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	printf("doppel-init: ");
	vprintf(fmt, ap);
	printf("\n");
	va_end(ap);
	fflush(stdout);
	tcdrain(STDOUT_FILENO);
	reboot(RB_POWER_OFF);
	_exit(1);
}

/* ---- configuration ---- */
static void read_config(struct config *c)
{
	int fd = open(DUPLICATE_CONFIG, O_RDONLY | O_CLOEXEC);
	ssize_t n = 0;

	c->text = calloc(1, CONFIG_MAX + 1);
	while (fd >= 0 && c->text && (n = read(fd, c->text + c->n, CONFIG_MAX - c->n)) > 0)
		c->n += (size_t)n;
	if (fd < 0 || !c->text || n < 0)
		give_up("no configuration: %s", strerror(errno));
	close(fd);
}

/* The next value of that name after `last` (NULL: the first). */
static const char *next_value(const struct config *c, const char *name, const char *last)
{
	size_t len = strlen(name);

	for (const char *p = c->text; p < c->text + c->n; p += strlen(p) + 1)
		if (p > last && !strncmp(p, name, len) && p[len] == '=' && p + len + 1 != last)
			return p + len + 1;
	return NULL;
}

static const char *value(const struct config *c, const char *name)
{
	return next_value(c, name, NULL);
}

/* ---- mounts ---- */
static int mount_at(const char *source, const char *dir, const char *type, unsigned long flags, const char *options)
{
	if (mkdir(dir, 0755) < 0 && errno != EEXIST)
		return -errno;
	return mount(source, dir, type, flags, options) < 0 ? -errno : 0;
}

#define UPPER ",upperdir=" LAYER "/upper,workdir=" LAYER "/work"

/* Whether the kernel's modules come from beside it. */
static bool mount_root(const struct config *c)
{
	const char *root = value(c, "root"), *layer = value(c, "layer"), *modules = value(c, "modules");
	bool extra = false;
	int e = 0;

	/* its inode tables are zero as they are: a new file of the host */
	e = layer ? mount_at(layer, LAYER, "ext4", MS_NOATIME, "noinit_itable") : mount_at("layer", LAYER, "tmpfs", 0, NULL);
	if (e)
		give_up("layer %s: %s", layer ? layer : "in memory", strerror(-e));
	modules_wait();
	e = -EINVAL;
	if (root && !strncmp(root, "virtiofs:", 9))
		e = mount_at(root + 9, LOWER, "virtiofs", MS_RDONLY, NULL);
	else if (root && !strncmp(root, "disk:", 5))
		e = mount_at(root + 5, LOWER, "ext4", MS_RDONLY, NULL);
	if (e)
		give_up("root %s: %s", root ? root : "", strerror(-e));
	if ((mkdir(LAYER "/upper", 0755) < 0 || mkdir(LAYER "/work", 0755) < 0) && errno != EEXIST)
		give_up("layer: %s", strerror(errno));
	extra = modules && kmod_prepare(LOWER, modules, EXTRA);
	e = mount_at("duplicate", ROOT, "overlay", 0, extra ? "lowerdir=" LOWER ":" EXTRA UPPER : "lowerdir=" LOWER UPPER);
	if (e)
		give_up("overlay: %s", strerror(-e));
	return extra;
}

static const struct {
	const char *type, *dir, *options;
	unsigned long flags;
} mounts[] = {
	{"proc", "proc", NULL, MS_NOSUID | MS_NODEV | MS_NOEXEC},
	{"sysfs", "sys", NULL, MS_NOSUID | MS_NODEV | MS_NOEXEC},
	{"cgroup2", "sys/fs/cgroup", NULL, MS_NOSUID | MS_NODEV | MS_NOEXEC},
	{"devtmpfs", "dev", "mode=755", MS_NOSUID},
	{"devpts", "dev/pts", "mode=620,ptmxmode=666,gid=5", MS_NOSUID | MS_NOEXEC},
	{"tmpfs", "dev/shm", "mode=1777", MS_NOSUID | MS_NODEV},
	{"tmpfs", "run", "mode=755", MS_NOSUID | MS_NODEV},
	{"tmpfs", "run/lock", "mode=1777,size=5m", MS_NOSUID | MS_NODEV | MS_NOEXEC},
};
static const struct {
	const char *target, *link;
} links[] = {
	{"/proc/self/fd", "dev/fd"},
	{"/proc/self/fd/0", "dev/stdin"},
	{"/proc/self/fd/1", "dev/stdout"},
	{"/proc/self/fd/2", "dev/stderr"},
};

/* In the new root, which is the working directory. */
static void mount_kernel_files(void)
{
	for (unsigned i = 0; i < sizeof(mounts) / sizeof(mounts[0]); i++) {
		int e = mount_at(mounts[i].type, mounts[i].dir, mounts[i].type, mounts[i].flags, mounts[i].options);

		if (e)
			printf("init: /%s: %s\n", mounts[i].dir, strerror(-e));
	}
	for (unsigned i = 0; i < sizeof(links) / sizeof(links[0]); i++)
		if (symlink(links[i].target, links[i].link) < 0 && errno != EEXIST)
			printf("init: /%s: %s\n", links[i].link, strerror(errno));
}

static int make_path(const char *path)
{
	char *p = strdup(path);

	for (char *s = p ? strchr(p + 1, '/') : NULL; s; s = strchr(s + 1, '/')) {
		*s = 0;
		mkdir(p, 0755);
		*s = '/';
	}
	free(p);
	return mkdir(path, 0755) < 0 && errno != EEXIST ? -errno : 0;
}

/* A request to the host costs much more than a page: ask for a MiB at once, not 128 KiB, where a file is read in order.
 * The most that one request has is 252 pages (the ring's 256 descriptors less those of the messages). */
static void read_far_ahead(int fd)
{
	static const char kib[] = "1008";
	char name[64];
	struct stat st;
	int bdi = -1;

	if (fstat(fd, &st) < 0)
		return;
	snprintf(name, sizeof(name), "/sys/class/bdi/%u:%u/read_ahead_kb", major(st.st_dev), minor(st.st_dev));
	bdi = open(name, O_WRONLY | O_CLOEXEC);
	if (bdi < 0 || write(bdi, kib, sizeof(kib) - 1) < 0)
		printf("init: %s: %s\n", name, strerror(errno));
	if (bdi >= 0)
		close(bdi);
}

/* TAG:rw:PATH, in the new root */
static void mount_share(const char *text, struct shares *out)
{
	char tag[40];
	bool writable;
	const char *path;
	int e;

	if (sscanf(text, "%39[^:]", tag) != 1 || strlen(text) < strlen(tag) + 5)
		give_up("share %s: not TAG:MODE:PATH", text);
	writable = !strncmp(text + strlen(tag), ":rw:", 4);
	path = text + strlen(tag) + 4;
	e = make_path(path);
	if (!e && mount(tag, path, "virtiofs", writable ? 0 : MS_RDONLY, NULL) < 0)
		e = -errno;
	if (e)
		give_up("share at %s: %s", path, strerror(-e));
	if (out->n_paths < SHARES_MAX)
		out->path[out->n_paths++] = path;
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return;
	read_far_ahead(fd);
	if (writable && out->n < SHARES_MAX)
		out->fd[out->n++] = fd;
	else
		close(fd);
}

/* What lies below stays reachable by these descriptors only. */
static void enter_root(struct agent *a)
{
	a->layer.lower = open(LOWER, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	a->layer.upper = open(LAYER "/upper", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (chdir(ROOT) < 0 || mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0 || chdir("/") < 0)
		give_up("root: cannot be entered: %s", strerror(errno));
	read_far_ahead(a->layer.lower);
}

/* ---- the rest ---- */
static void make_run_user(const char *ids)
{
	unsigned uid, gid;
	char dir[64];

	if (!ids || sscanf(ids, "%u:%u", &uid, &gid) != 2)
		return;
	snprintf(dir, sizeof(dir), "/run/user/%u", uid);
	mkdir("/run/user", 0755);
	if (mkdir(dir, 0700) < 0 || chown(dir, uid, gid) < 0)
		printf("init: %s: %s\n", dir, strerror(errno));
}

/* While it can still see the initramfs; it begins when the pipe is closed, and stands back for everything else. */
static void fork_late_loader(struct agent *a)
{
	int fds[2];
	char c;

	a->late = -1;
	if (pipe2(fds, O_CLOEXEC) < 0)
		return;
	if (fork() == 0) {
		close(fds[1]);
		if (sched_setscheduler(0, SCHED_IDLE, &(struct sched_param){0}) == 0 && read(fds[0], &c, 1) == 0)
			load_modules(LATE_MODULES, NULL);
		_exit(0);
	}
	close(fds[0]);
	a->late = fds[1];
}

void duplicate(void)
{
	struct config c = {0};
	struct agent a = {.layer = {.upper = -1, .lower = -1}};
	const char *name, *share = NULL;
	bool modules;

	setvbuf(stdout, NULL, _IOLBF, 0);
	read_config(&c);
	fork_late_loader(&a);
	load_modules(MODULES, AGENT_TRANSPORT);
	a.transport = open_module(MODULES, AGENT_TRANSPORT);
	modules = mount_root(&c);
	if (chdir(ROOT) < 0)
		give_up("root: %s", strerror(errno));
	umount2("/dev", MNT_DETACH);
	mount_kernel_files();
	if (modules)
		kmod_mount(LOWER, value(&c, "modules"), LAYER);
	enter_root(&a);
	kmod_ready();
	while ((share = next_value(&c, "share", share)))
		mount_share(share, &a.shares);
	name = value(&c, "hostname");
	if (name && sethostname(name, strlen(name)) < 0)
		printf("init: hostname: %s\n", strerror(errno));
	a.temporary = value(&c, "temporary") != NULL;
	make_run_user(value(&c, "run-user"));
	network_up(value(&c, "net") != NULL);
	agent_serve(&a);
	give_up("agent: %s", strerror(errno));
}
