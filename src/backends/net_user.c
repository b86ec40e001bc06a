/* --net user: a doppel-net process of this VM's own, at the other end of a socket pair. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "backends/net_process.h"
#include "backends/net_proto.h"

/*
 * What costs is frames, not bytes; what leaves the machine is cut by its kernel. But libslirp knows no window scaling, and holds
 * back what is less than a segment and less than half of the largest window: with segments near 64 KiB, it and a receiver that
 * opens its window step by step wait for each other until a timer of seconds ends. A quarter of the window is safe.
 */
enum { USER_MTU = 16384, FORWARD_TEXT = 40 };

/* Checksums and segmentation of what the guest sends are done by doppel-net or not needed; what it receives has been checked. */
#define USER_FEATURES                                                                                                  \
	(BIT64(VIRTIO_NET_F_CSUM) | BIT64(VIRTIO_NET_F_HOST_TSO4) | BIT64(VIRTIO_NET_F_HOST_TSO6) |                    \
	 BIT64(VIRTIO_NET_F_HOST_ECN) | BIT64(VIRTIO_NET_F_GUEST_CSUM))

static u16 mtu_of(const struct net_options *o)
{
	return o->mtu ? o->mtu : USER_MTU;
}

static int start(const struct net_options *o, int fd, struct err *e)
{
	char forward[NET_FORWARDS_MAX][FORWARD_TEXT], mtu[12];
	char *argv[NET_FORWARDS_MAX + 6] = {NULL, "user", mtu, o->host_loopback ? "loopback" : "no-loopback"};
	unsigned n = 4;

	snprintf(mtu, sizeof(mtu), "%u", mtu_of(o));
	for (unsigned i = 0; i < o->n_forwards; i++) {
		const struct net_forward *f = &o->forward[i];

		snprintf(forward[i], sizeof(forward[i]), "%s:%s:%u:%u", f->udp ? "udp" : "tcp", f->address, f->host_port,
			 f->guest_port);
		argv[n++] = forward[i];
	}
	return net_process_start(argv, fd, e);
}

int net_open_user(struct loop *l, const struct net_options *o, struct net **out, struct err *e)
{
	int pair[2], pid = 0, ret = 0;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return err_set(e, errno, "--net user: %s", strerror(errno));
	ret = pid = start(o, pair[1], e);
	close(pair[1]);
	if (pid > 0)
		ret = o->by_default ? 0 : net_process_ready(pair[0], e);
	if (!ret)
		ret = net_link_new(l, pair[0], pid, USER_FEATURES, mtu_of(o), out);
	if (!ret)
		return 0;
	close(pair[0]);
	if (pid > 0)
		waitpid(pid, NULL, 0);
	return err_set(e, -ret, "--net user: doppel-net cannot be used: %s", strerror(-ret));
}
