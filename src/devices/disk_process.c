/* Starting doppel-disk: the process that has a disk's files, so that the VMM has none. */
#include "devices/disk_proto.h"

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/paths.h"

enum { READY_MS = 60000 }; /* a large image that was not closed cleanly is mended first */

extern char **environ;

static int spawn(const char *image, int fd, int *pid, struct err *e)
{
	char path[PATH_MAX];
	char *argv[] = {"doppel-disk", (char *)image, NULL};
	posix_spawn_file_actions_t fa;
	posix_spawnattr_t attr;
	int ret = path_part("doppel-disk", "DOPPEL_DISK", X_OK, path, sizeof(path), e);

	if (ret)
		return ret;
	posix_spawn_file_actions_init(&fa);
	posix_spawnattr_init(&attr);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSID); /* Ctrl-C on a terminal is the VM's, not the disk's */
	posix_spawn_file_actions_addopen(&fa, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_addopen(&fa, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
	posix_spawn_file_actions_adddup2(&fa, fd, DISK_SOCKET); /* of 3 to itself: clears close-on-exec (glibc 2.29) */
	ret = posix_spawn(pid, path, &fa, &attr, argv, environ);
	posix_spawn_file_actions_destroy(&fa);
	posix_spawnattr_destroy(&attr);
	return ret ? err_set(e, ret, "%s: cannot be started: %s", path, strerror(ret)) : 0;
}

static int send_open(int sock, struct disk_msg *m, const int *fds, unsigned n)
{
	union {
		struct cmsghdr h;
		char room[CMSG_SPACE(DISK_FDS_MAX * sizeof(int))];
	} c;
	struct iovec iov = {m, disk_msg_size(DISK_OPEN)};
	struct msghdr h = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &c, .msg_controllen = CMSG_SPACE(n * sizeof(int))};

	memset(&c, 0, sizeof(c));
	m->type = DISK_OPEN;
	c.h = (struct cmsghdr){.cmsg_len = CMSG_LEN(n * sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
	memcpy(CMSG_DATA(&c.h), fds, n * sizeof(int));
	return sendmsg(sock, &h, MSG_NOSIGNAL) < 0 ? -errno : 0;
}

static int await_ready(int sock, const char *image, struct blk_shape *shape, struct err *e)
{
	struct pollfd p = {.fd = sock, .events = POLLIN};
	struct disk_msg m;
	ssize_t n = 0;

	while ((n = poll(&p, 1, READY_MS)) < 0 && errno == EINTR)
		;
	if (n == 0)
		return err_set(e, ETIMEDOUT, "%s: its process does not answer", image);
	n = recv(sock, &m, sizeof(m), MSG_DONTWAIT);
	if (n == disk_msg_size(DISK_READY) && m.type == DISK_READY) {
		*shape = m.ready;
		return 0;
	}
	if (n == disk_msg_size(DISK_REFUSED) && m.type == DISK_REFUSED) {
		m.refused[sizeof(m.refused) - 1] = 0;
		return err_set(e, EINVAL, "%s", m.refused);
	}
	return err_set(e, EPIPE, "%s: its process (doppel-disk) has ended", image);
}

static bool sane(const struct blk_shape *s)
{
	return s->size >= 512 && s->block_size >= 512 && s->block_size <= 65536 && !(s->block_size & (s->block_size - 1));
}

int disk_process_start(struct disk_msg *m, const int *fds, unsigned n_fds, struct blk_shape *shape, int *sock, int *pid,
		       struct err *e)
{
	const char *image = m->open.path;
	int pair[2], ret = 0;

	*sock = *pid = -1;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return err_set(e, errno, "%s: no socket: %s", image, strerror(errno));
	ret = spawn(image, pair[1], pid, e);
	close(pair[1]);
	if (!ret) {
		ret = send_open(pair[0], m, fds, n_fds);
		if (ret && ret != -EPIPE)
			err_set(e, -ret, "%s: its process cannot be told: %s", image, strerror(-ret));
		else
			ret = await_ready(pair[0], image, shape, e);
	}
	if (!ret && !sane(shape))
		ret = err_set(e, EPROTO, "%s: its process talks nonsense", image);
	if (!ret) {
		*sock = pair[0];
		return 0;
	}
	close(pair[0]);
	if (*pid > 0) { /* it leaves when its socket closes; one that hangs does not hold us up */
		if (ret == -ETIMEDOUT)
			kill(*pid, SIGKILL);
		waitpid(*pid, NULL, 0);
	}
	return ret;
}
