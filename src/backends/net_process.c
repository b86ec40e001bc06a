/* Starting doppel-net: the process that has the sockets, so that the VMM, which reads what a guest writes, has none. */
#include "backends/net_process.h"

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "backends/net_proto.h"
#include "base/paths.h"

enum { READY_MS = 20000 };

extern char **environ;

int net_process_start(char **argv, int fd, struct err *e)
{
	char path[PATH_MAX];
	posix_spawn_file_actions_t fa;
	posix_spawnattr_t attr;
	pid_t pid = 0;
	int ret = path_part("doppel-net", "DOPPEL_NET", X_OK, path, sizeof(path), e);

	if (ret)
		return ret;
	argv[0] = "doppel-net";
	posix_spawn_file_actions_init(&fa);
	posix_spawnattr_init(&attr);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSID); /* Ctrl-C on a terminal is the VM's, not the network's */
	posix_spawn_file_actions_addopen(&fa, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_addopen(&fa, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
	posix_spawn_file_actions_adddup2(&fa, fd, 3); /* of 3 to itself: clears close-on-exec (POSIX 2018, glibc 2.29) */
	ret = posix_spawn(&pid, path, &fa, &attr, argv, environ);
	posix_spawn_file_actions_destroy(&fa);
	posix_spawnattr_destroy(&attr);
	return ret ? err_set(e, ret, "%s: cannot be started: %s", path, strerror(ret)) : pid;
}

int net_process_ready(int fd, struct err *e)
{
	struct {
		struct virtio_net_hdr_v1 hdr;
		char text[300];
	} m = {0};
	struct pollfd p = {.fd = fd, .events = POLLIN};
	ssize_t n = 0;

	if (poll(&p, 1, READY_MS) <= 0)
		return err_set(e, ETIMEDOUT, "--net: doppel-net does not answer");
	n = recv(fd, &m, sizeof(m) - 1, MSG_DONTWAIT);
	if (n < NET_HDR)
		return -EPIPE;
	if (m.hdr.num_buffers == LINK_READY)
		return 0;
	return err_set(e, EADDRINUSE, "%s", m.text);
}
