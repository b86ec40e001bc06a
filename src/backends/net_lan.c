/*
 * --net lan=NAME: a port of the virtual switch of that name. The switch is a doppel-net process that the first VM starts and that
 * ends with the last: .lan/NAME.sock in the runtime directory is its socket. Whoever starts a switch, and a switch that ends, holds
 * .lan/NAME.lock; one that has been unlinked meanwhile does not count.
 */
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "backends/net_process.h"
#include "backends/net_proto.h"
#include "base/paths.h"

enum { TRIES = 50, BACKLOG = 64 };

#define LAN_FEATURES                                                                                                   \
	(BIT64(VIRTIO_NET_F_CSUM) | BIT64(VIRTIO_NET_F_HOST_TSO4) | BIT64(VIRTIO_NET_F_HOST_TSO6) |                    \
	 BIT64(VIRTIO_NET_F_HOST_ECN) | BIT64(VIRTIO_NET_F_GUEST_CSUM) | BIT64(VIRTIO_NET_F_GUEST_TSO4) |              \
	 BIT64(VIRTIO_NET_F_GUEST_TSO6) | BIT64(VIRTIO_NET_F_GUEST_ECN))

struct lan {
	char dir[PATHS_MAX + 8], lock[PATH_MAX];
	struct sockaddr_un socket;
};

static int set_paths(struct lan *lan, const char *name, struct err *e)
{
	char base[PATHS_MAX];
	int ret = path_runtime(base, sizeof(base), true, e);

	if (ret)
		return ret;
	lan->socket.sun_family = AF_UNIX;
	snprintf(lan->dir, sizeof(lan->dir), "%s/.lan", base);
	snprintf(lan->lock, sizeof(lan->lock), "%s/%s.lock", lan->dir, name);
	if (snprintf(lan->socket.sun_path, sizeof(lan->socket.sun_path), "%s/%s.sock", lan->dir, name) >=
	    (int)sizeof(lan->socket.sun_path))
		return err_set(e, ENAMETOOLONG, "--net lan=%s: too long for a socket address (a shorter name, or XDG_RUNTIME_DIR)",
			       name);
	return 0;
}

static int dial(const struct lan *lan)
{
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0), err = 0;

	if (fd >= 0 && connect(fd, (const struct sockaddr *)&lan->socket, sizeof(lan->socket)) == 0)
		return fd;
	err = errno;
	if (fd >= 0)
		close(fd);
	return -err;
}

/* A connection to a switch that has greeted; -EPIPE when it was about to end. */
static int join(const struct lan *lan, struct err *e)
{
	int fd = dial(lan), ret = 0;

	if (fd < 0)
		return fd;
	ret = net_process_ready(fd, e);
	if (!ret)
		return fd;
	close(fd);
	return ret;
}

static int take_lock(const struct lan *lan)
{
	struct stat a, b;
	int fd = -1;

	if (mkdir(lan->dir, 0700) < 0 && errno != EEXIST)
		return -errno;
	fd = open(lan->lock, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return errno == ENOENT ? -EAGAIN : -errno;
	if (flock(fd, LOCK_EX) == 0 && fstat(fd, &a) == 0 && stat(lan->lock, &b) == 0 && a.st_ino == b.st_ino)
		return fd;
	close(fd);
	return -EAGAIN;
}

/* The lock is held. */
static int start_switch(const struct lan *lan, struct err *e)
{
	char *argv[] = {NULL, "switch", (char *)lan->socket.sun_path, (char *)lan->lock, (char *)lan->dir, NULL};
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), ret = 0;

	unlink(lan->socket.sun_path); /* of a switch that was killed */
	if (fd < 0 || bind(fd, (const struct sockaddr *)&lan->socket, sizeof(lan->socket)) < 0 || listen(fd, BACKLOG) < 0)
		ret = err_set(e, errno, "%s: %s", lan->socket.sun_path, strerror(errno));
	else
		ret = net_process_start(argv, fd, e);
	if (fd >= 0)
		close(fd);
	return ret < 0 ? ret : 0;
}

static int join_or_start(const struct lan *lan, struct err *e)
{
	int lock = take_lock(lan), fd = -1, ret = 0;

	if (lock < 0)
		return lock;
	fd = join(lan, e);
	if (fd == -ENOENT || fd == -ECONNREFUSED) {
		ret = start_switch(lan, e);
		fd = ret ? ret : join(lan, e);
	}
	close(lock);
	return fd;
}

int net_open_lan(struct loop *l, const struct net_options *o, struct net **out, struct err *e)
{
	struct lan lan = {0};
	int fd = -EPIPE, ret = set_paths(&lan, o->text, e);

	if (ret)
		return ret;
	for (int i = 0; i < TRIES && (fd == -EPIPE || fd == -EAGAIN); i++) {
		fd = join(&lan, e);
		if (fd == -ENOENT || fd == -ECONNREFUSED)
			fd = join_or_start(&lan, e);
		if (fd == -EPIPE || fd == -EAGAIN)
			usleep(10000); /* the old switch is leaving */
	}
	ret = fd < 0 ? fd : net_link_new(l, fd, 0, LAN_FEATURES, o->mtu, out);
	if (ret && fd >= 0)
		close(fd);
	return ret ? err_set(e, -ret, "--net lan=%s: %s", o->text, strerror(-ret)) : 0;
}
