/*
 * --net vhost-user,path=P: a network card (Virtio 1.2, 5.1) whose receive and transmit queues are served by the process that
 * listens at P (vhost_user.h). There is no control queue, and MRG_RXBUF is not offered: chains come back from the server one by
 * one, but the buffers of a merged frame must be seen all at once.
 */
#include "devices/vhost_user_net.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "devices/vhost_user.h"

enum { CLASS_ETHERNET = 0x020000, RX = 0, QUEUES = 2, QUEUE_SIZE = VIRTQ_SIZE_MAX };

/* Of what the server offers: what needs no control queue and no merging. */
#define PASSED                                                                                                         \
	(BIT64(VIRTIO_NET_F_CSUM) | BIT64(VIRTIO_NET_F_HOST_TSO4) | BIT64(VIRTIO_NET_F_HOST_TSO6) |                    \
	 BIT64(VIRTIO_NET_F_HOST_ECN) | BIT64(VIRTIO_NET_F_GUEST_CSUM) | BIT64(VIRTIO_NET_F_GUEST_TSO4) |              \
	 BIT64(VIRTIO_NET_F_GUEST_TSO6) | BIT64(VIRTIO_NET_F_GUEST_ECN))

struct vhost_user_net {
	struct virtio v;
	struct virtio_pci *pci;
	struct vhost_user *server;
	struct virtio_net_config space;
};

static struct vhost_user_net *net_of(struct virtio *v)
{
	return container_of(v, struct vhost_user_net, v);
}

/* ---- without a server: what is sent vanishes, and the link is down ---- */
static u32 vun_fail(struct virtio *v, unsigned queue, const struct virtq_chain *c)
{
	struct vhost_user_net *n = net_of(v);

	if (n->space.status) {
		n->space.status = 0;
		virtio_config_changed_locked(v);
	}
	return 0;
}

static void vun_notify(struct virtio *v, unsigned queue)
{
	struct vhost_user_net *n = net_of(v);

	if (queue != RX || n->space.status) /* empty frames would make the driver give the buffers again, for ever */
		vhost_user_notify(n->server, queue);
}

static void vun_activate(struct virtio *v)
{
	vhost_user_activate(net_of(v)->server);
}

static bool vun_reset_queues(struct virtio *v)
{
	return vhost_user_reset(net_of(v)->server);
}

static const struct virtio_ops vun_ops = {.name = "virtio-net",
					  .id = VIRTIO_ID_NET,
					  .pci_class = CLASS_ETHERNET,
					  .notify = vun_notify,
					  .activate = vun_activate,
					  .reset = vun_reset_queues};

/* ---- lifecycle ---- */
static void vun_reset(struct device *d)
{
	virtio_pci_reset(virtio_pci_of_device(d));
}

static void vun_free(struct vhost_user_net *n)
{
	vhost_user_destroy(n->server);
	virtio_fini(&n->v);
	free(n);
}

static void vun_destroy(struct device *d)
{
	struct vhost_user_net *n = net_of(virtio_of_device(d));

	virtio_pci_destroy(n->pci);
	vun_free(n);
}

static const struct device_class vun_class = {.name = "virtio-net", .reset = vun_reset, .destroy = vun_destroy};

static int dial(const char *path, struct err *e)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd = -1, ret = 0;

	if (strlen(path) >= sizeof(a.sun_path))
		return err_set(e, ENAMETOOLONG, "--net vhost-user,path=%s: too long for a socket address", path);
	memcpy(a.sun_path, path, strlen(path));
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd >= 0 && connect(fd, (struct sockaddr *)&a, sizeof(a)) == 0)
		return fd;
	ret = err_set(e, errno, "--net vhost-user,path=%s: %s (its server must listen there)", path, strerror(errno));
	if (fd >= 0)
		close(fd);
	return ret;
}

int vhost_user_net_create(struct machine *m, struct pci_host *h, const struct net_options *o, const u8 *mac, struct err *e)
{
	struct vhost_user_options vo = {.name = "network", .n_queues = QUEUES, .queue_size = QUEUE_SIZE, .fail = vun_fail};
	struct vhost_user_net *n = NULL;
	int ret = vo.sock = dial(o->text, e);

	if (ret < 0)
		return ret;
	n = calloc(1, sizeof(*n));
	if (!n) {
		close(vo.sock);
		return err_set(e, ENOMEM, "--net: no memory");
	}
	memcpy(n->space.mac, mac, NET_MAC);
	n->space.status = VIRTIO_NET_S_LINK_UP;
	n->space.mtu = o->mtu;
	virtio_init(&n->v, m, &vun_ops, 0, QUEUES, QUEUE_SIZE);
	virtio_set_config(&n->v, &n->space, NULL, offsetof(struct virtio_net_config, speed));
	ret = vhost_user_create(m, &vo, &n->server, e);
	if (!ret) {
		n->v.device_features |= (vhost_user_features(n->server) & PASSED) | BIT64(VIRTIO_NET_F_MAC) |
					BIT64(VIRTIO_NET_F_STATUS) | (o->mtu ? BIT64(VIRTIO_NET_F_MTU) : 0);
		vhost_user_attach(n->server, &n->v);
		ret = virtio_pci_create(&n->v, h, -1, &vun_class, &n->pci);
	}
	if (ret) {
		vun_free(n);
		return err_set(e, -ret, "--net vhost-user,path=%s: %s", o->text, strerror(-ret));
	}
	return 0;
}
