/* Drivers: files of the initramfs, in the order of their names (the host numbered them). */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "guest/init.h"

int open_module(const char *dir, const char *part)
{
	DIR *d = opendir(dir);
	struct dirent *e;
	int fd = -1;

	while (d && fd < 0 && (e = readdir(d)))
		if (strstr(e->d_name, part))
			fd = openat(dirfd(d), e->d_name, O_RDONLY | O_CLOEXEC);
	if (d)
		closedir(d);
	return fd;
}

int load_module(int fd)
{
	return syscall(SYS_finit_module, fd, "", 0) < 0 && errno != EEXIST ? -errno : 0;
}

static void load_named(const char *dir, const char *name)
{
	int fd = open_module(dir, name), e = fd < 0 ? -errno : load_module(fd);

	if (e)
		printf("init: %s: %s\n", name, strerror(-e));
	if (fd >= 0)
		close(fd);
}

static pid_t aside;

/* It waits for a grace period of RCU, when a share has a window: others can be loaded meanwhile. */
static bool load_aside(const char *dir, const char *name)
{
	if (aside || !strstr(name, "virtiofs."))
		return false;
	aside = fork();
	if (!aside) {
		load_named(dir, name);
		_exit(0);
	}
	return aside > 0;
}

void modules_wait(void)
{
	if (aside > 0)
		waitpid(aside, NULL, 0);
	aside = 0;
}

void load_modules(const char *dir, const char *except)
{
	struct dirent **names = NULL;
	int n = scandir(dir, &names, NULL, alphasort);

	for (int i = 0; i < n; i++) {
		const char *name = names[i]->d_name;

		if (name[0] != '.' && !(except && strstr(name, except)) && !load_aside(dir, name))
			load_named(dir, name);
		free(names[i]);
	}
	free(names);
}
