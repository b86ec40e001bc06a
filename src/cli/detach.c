#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "cli/cli.h"
#include "cli/detach.h"

int wait_for_vm(int fd, const char *name)
{
	char text[sizeof(((struct err *)0)->text) + 1] = "";
	size_t n = 0;
	ssize_t got = 0;

	while (n < sizeof(text) - 1 && (got = read(fd, text + n, sizeof(text) - 1 - n)) > 0)
		n += (size_t)got;
	if (n && text[0] == '+') {
		fputs(text + 1, stderr);
		printf("%s\n", name);
		return 0;
	}
	log_msg(LOG_ERROR, "%s", n ? text : "run: the VM's process died while it started");
	return EXIT_DOPPEL;
}

void leave_terminal(const struct instance *in)
{
	char path[PATHS_MAX + 64];
	int null = open("/dev/null", O_RDWR | O_CLOEXEC), log = -1;

	snprintf(path, sizeof(path), "%s/log", in->dir);
	log = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	setsid();
	dup2(null, STDIN_FILENO);
	dup2(null, STDOUT_FILENO);
	dup2(log >= 0 ? log : null, STDERR_FILENO);
	close(null);
	if (log >= 0)
		close(log);
}
