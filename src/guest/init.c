/*
 * /init of the guest that `doppel run` starts when no initrd is given: makes the usual mounts, then either gives a shell on the
 * console or shows the machine and powers off. Kernel arguments: doppel.show (no shell), doppel.engine=TEXT (for the show).
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/genetlink.h>
#include <linux/netlink.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BUSYBOX "/bin/busybox"
#define MODULES "/lib/modules"

static const struct {
	const char *type, *dir, *options;
} mounts[] = {
	{"proc", "/proc", NULL},
	{"sysfs", "/sys", NULL},
	{"devtmpfs", "/dev", NULL},
	{"devpts", "/dev/pts", "mode=620,ptmxmode=666"},
	{"tmpfs", "/run", "mode=755"},
	{"tmpfs", "/tmp", "mode=1777"},
};

static char cmdline[4096];

static const char *argument(const char *name)
{
	size_t n = strlen(name);

	for (const char *p = cmdline; (p = strstr(p, name)); p += n)
		if ((p == cmdline || p[-1] == ' ') && (p[n] == '=' || p[n] == ' ' || p[n] == '\n' || !p[n]))
			return p[n] == '=' ? p + n + 1 : p + n;
	return NULL;
}

static void prepare(void)
{
	int fd;
	ssize_t n = 0;

	for (unsigned i = 0; i < sizeof(mounts) / sizeof(mounts[0]); i++) {
		mkdir(mounts[i].dir, 0755);
		if (mount(mounts[i].type, mounts[i].dir, mounts[i].type, 0, mounts[i].options) < 0 && errno != EBUSY)
			printf("init: %s: %s\n", mounts[i].dir, strerror(errno));
	}
	fd = open("/proc/cmdline", O_RDONLY | O_CLOEXEC);
	if (fd >= 0) {
		n = read(fd, cmdline, sizeof(cmdline) - 1);
		close(fd);
	}
	cmdline[n > 0 ? n : 0] = 0;
	if (sethostname("doppel", 6) < 0)
		perror("init: hostname");
	setenv("PATH", "/bin:/sbin:/usr/bin:/usr/sbin", 1);
	setenv("HOME", "/root", 1);
	mkdir("/root", 0700);
}

/* The drivers that came with the kernel, in the order of their names (the host numbered them). */
static void load_modules(void)
{
	struct dirent **names = NULL;
	int n = scandir(MODULES, &names, NULL, alphasort);

	for (int i = 0; i < n; i++) {
		char path[sizeof(MODULES) + 256];
		int fd = -1;

		snprintf(path, sizeof(path), MODULES "/%s", names[i]->d_name);
		if (names[i]->d_name[0] != '.')
			fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd >= 0 && syscall(SYS_finit_module, fd, "", 0) < 0)
			printf("init: %s: %s\n", names[i]->d_name, strerror(errno));
		if (fd >= 0)
			close(fd);
		free(names[i]);
	}
	free(names);
}

/* The value of "key : value" in a /proc file's first match. */
static void proc_value(const char *file, const char *key, char *out, size_t size)
{
	char line[512];
	FILE *f = fopen(file, "re");

	snprintf(out, size, "unknown");
	while (f && fgets(line, sizeof(line), f)) {
		char *colon = strchr(line, ':');

		if (strncmp(line, key, strlen(key)) || !colon)
			continue;
		colon += 1 + strspn(colon + 1, " \t");
		colon[strcspn(colon, "\n")] = 0;
		snprintf(out, size, "%s", colon);
		break;
	}
	if (f)
		fclose(f);
}

static double uptime(void)
{
	struct timespec t = {0};

	clock_gettime(CLOCK_BOOTTIME, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void show(void)
{
	struct utsname u;
	struct sysinfo si;
	char cpu[256], engine[64] = "unknown";
	const char *e = argument("doppel.engine");

	uname(&u);
	sysinfo(&si);
	proc_value("/proc/cpuinfo", "model name", cpu, sizeof(cpu));
	if (e)
		snprintf(engine, sizeof(engine), "%.*s", (int)strcspn(e, " \n"), e);
	printf("%s %s %s %s %s\n", u.sysname, u.nodename, u.release, u.version, u.machine);
	printf("CPU      %ld x %s\n", sysconf(_SC_NPROCESSORS_ONLN), cpu);
	printf("memory   %lu MiB\n", si.totalram * si.mem_unit >> 20);
	printf("engine   %s\n", engine);
	printf("booted   %.2f s after the kernel started\n", uptime());
	fflush(stdout);
}

/* What poweroff, halt and reboot send to process 1 (busybox's convention). */
static void on_end_signal(int sig)
{
	sync();
	reboot(sig == SIGTERM ? RB_AUTOBOOT : sig == SIGUSR1 ? RB_HALT_SYSTEM : RB_POWER_OFF);
}

/* ---- power button: the kernel's ACPI core tells it to a generic netlink group (drivers/acpi/event.c) ---- */
struct genl_message {
	struct nlmsghdr h;
	struct genlmsghdr g;
	char attrs[4096];
};
struct acpi_event { /* drivers/acpi/event.c: struct acpi_genl_event */
	char device_class[20], bus_id[15];
	unsigned type, data;
};

/* The attribute of that type among those at p, or NULL. */
static const struct nlattr *attribute(const void *p, size_t n, unsigned type)
{
	const struct nlattr *a = p;

	while (n >= sizeof(*a) && a->nla_len >= sizeof(*a) && a->nla_len <= n) {
		size_t step = NLA_ALIGN(a->nla_len);

		if ((a->nla_type & NLA_TYPE_MASK) == type)
			return a;
		if (step >= n)
			break;
		n -= step;
		a = (const void *)((const char *)a + step);
	}
	return NULL;
}

/* Asks the kernel for the number of the ACPI event group; -1: none. */
static int acpi_group(int fd)
{
	static const char family[] = "acpi_event";
	struct genl_message m = {.h = {.nlmsg_type = GENL_ID_CTRL, .nlmsg_flags = NLM_F_REQUEST},
				 .g = {.cmd = CTRL_CMD_GETFAMILY, .version = 1}};
	struct nlattr *name = (void *)m.attrs;
	const struct nlattr *a;
	ssize_t n;

	*name = (struct nlattr){.nla_len = NLA_HDRLEN + sizeof(family), .nla_type = CTRL_ATTR_FAMILY_NAME};
	memcpy(m.attrs + NLA_HDRLEN, family, sizeof(family));
	m.h.nlmsg_len = offsetof(struct genl_message, attrs) + NLA_ALIGN(name->nla_len);
	if (send(fd, &m, m.h.nlmsg_len, 0) < 0)
		return -1;
	n = recv(fd, &m, sizeof(m), 0);
	if (n < (ssize_t)offsetof(struct genl_message, attrs) || m.h.nlmsg_type != GENL_ID_CTRL)
		return -1;
	a = attribute(m.attrs, (size_t)n - offsetof(struct genl_message, attrs), CTRL_ATTR_MCAST_GROUPS);
	if (a) /* its first and only group */
		a = attribute(a + 1, a->nla_len - NLA_HDRLEN, 1);
	if (a)
		a = attribute(a + 1, a->nla_len - NLA_HDRLEN, CTRL_ATTR_MCAST_GRP_ID);
	return a && a->nla_len >= NLA_HDRLEN + sizeof(int) ? *(const int *)(a + 1) : -1;
}

static bool is_power_button(const struct genl_message *m, ssize_t n)
{
	const struct nlattr *a = NULL;
	const struct acpi_event *e;

	if (n > (ssize_t)offsetof(struct genl_message, attrs))
		a = attribute(m->attrs, (size_t)n - offsetof(struct genl_message, attrs), 1 /* ACPI_GENL_ATTR_EVENT */);
	if (!a || a->nla_len < NLA_HDRLEN + sizeof(*e))
		return false;
	e = (const void *)(a + 1);
	return !strncmp(e->device_class, "button/power", sizeof(e->device_class));
}

/* A process of its own, so that it works whatever the shell is doing. */
static void watch_power_button(void)
{
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_GENERIC);
	int group = fd >= 0 ? acpi_group(fd) : -1;
	struct genl_message m;

	if (group < 0 || setsockopt(fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group, sizeof(group)) < 0 || fork() != 0) {
		if (group < 0)
			printf("init: no power button: the kernel has no ACPI events\n");
		if (fd >= 0)
			close(fd);
		return;
	}
	setsid();
	for (;;) {
		ssize_t n = recv(fd, &m, sizeof(m), 0);

		if (n < 0 && errno != EINTR && errno != ENOBUFS)
			_exit(1);
		if (is_power_button(&m, n))
			break;
	}
	kill(-1, SIGTERM);
	usleep(100 * 1000);
	sync();
	reboot(RB_POWER_OFF);
	_exit(1);
}

static void shell(void)
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		int fd;

		signal(SIGTERM, SIG_DFL);
		setsid();
		fd = open("/dev/console", O_RDWR);
		if (fd >= 0) {
			ioctl(fd, TIOCSCTTY, 1);
			for (int i = 0; i < 3; i++)
				dup2(fd, i);
		}
		setenv("PS1", "\\h:\\w# ", 1);
		execl(BUSYBOX, "sh", "-l", NULL);
		printf("init: no shell: %s: %s\n", BUSYBOX, strerror(errno));
		_exit(127);
	}
	while (pid > 0 && waitpid(-1, &status, 0) != pid)
		;
}

int main(void)
{
	int fd;

	/* without /dev in the initramfs there is no console yet */
	mkdir("/dev", 0755);
	mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
	fd = open("/dev/console", O_RDWR);
	for (int i = 0; fd >= 0 && i < 3; i++)
		dup2(fd, i);
	prepare();
	load_modules();
	if (fd < 0) { /* its driver was a module */
		fd = open("/dev/console", O_RDWR);
		for (int i = 0; fd >= 0 && i < 3; i++)
			dup2(fd, i);
	}
	if (access(BUSYBOX, X_OK) == 0) {
		pid_t pid = fork();

		if (pid == 0) {
			execl(BUSYBOX, "busybox", "--install", "-s", "/bin", NULL);
			_exit(127);
		}
		waitpid(pid, NULL, 0);
	}
	watch_power_button();
	signal(SIGUSR1, on_end_signal);
	signal(SIGUSR2, on_end_signal);
	signal(SIGTERM, on_end_signal);
	show();
	if (!argument("doppel.show"))
		shell();
	sync();
	reboot(RB_POWER_OFF);
	return 0;
}
