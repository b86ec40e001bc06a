/*
 * /init of the guest that `doppel run` starts when no initrd is given: makes the usual mounts, then either gives a shell on the
 * console or shows the machine and powers off. Kernel arguments: doppel.show (no shell), doppel.engine=TEXT (for the show).
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "guest/init.h"

#define BUSYBOX "/bin/busybox"

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

/* A process of its own, so that it works whatever the shell is doing. */
static void watch_power_button(void)
{
	int fd = power_button_open(), pressed = 0;

	if (fd < 0 || fork() != 0) {
		if (fd < 0)
			printf("init: no power button: the kernel has no ACPI events\n");
		else
			close(fd);
		return;
	}
	setsid();
	while (!pressed)
		pressed = power_button_read(fd);
	if (pressed < 0)
		_exit(1);
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

/* Without /dev in the initramfs there is no console yet; its driver may be a module. */
static bool open_console(void)
{
	int fd = open("/dev/console", O_RDWR);

	for (int i = 0; fd >= 0 && i < 3; i++)
		dup2(fd, i);
	if (fd > 2)
		close(fd);
	return fd >= 0;
}

static void bare(void)
{
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
}

int main(int argc, char **argv)
{
	bool console;

	if (getpid() != 1)
		return modprobe_main(argc, argv);

	mkdir("/dev", 0755);
	mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
	console = open_console();
	if (access(DUPLICATE_CONFIG, R_OK) == 0)
		duplicate();
	prepare();
	load_modules(MODULES, NULL);
	modules_wait();
	if (!console)
		open_console();
	bare();
	return 0;
}
