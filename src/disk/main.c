/* doppel-disk IMAGE: started by doppel; descriptor 3 is its socket. */
#include "disk/disk.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static int refuse(struct machine *m, const struct err *e)
{
	struct disk_msg msg = {.type = DISK_REFUSED};

	snprintf(msg.refused, sizeof(msg.refused), "%s", e->text);
	machine_send(m, &msg);
	return 1;
}

int main(int argc, char **argv)
{
	static struct machine machine;
	struct machine *m = &machine;
	struct err e = {{0}};
	int ret = 0;

	if (argc != 2 || fcntl(DISK_SOCKET, F_GETFD) < 0) {
		log_msg(LOG_ERROR, "doppel-disk: started by doppel, not by hand");
		return 2;
	}
	m->sock = DISK_SOCKET;
	fcntl(DISK_SOCKET, F_SETFD, FD_CLOEXEC);
	syscall(SYS_close_range, DISK_SOCKET + 1, ~0u, 0); /* whatever else was inherited */
	if (machine_open(m, &e))
		return refuse(m, &e);
	if (chdir("/") < 0)
		log_msg(LOG_DEBUG, "disk: chdir: %s", strerror(errno));
	ret = sandbox_enter();
	if (ret) {
		err_set(&e, -ret, "disk: the sandbox cannot be entered: %s (the kernel needs seccomp filters)", strerror(-ret));
		return refuse(m, &e);
	}
	return machine_serve(m);
}
