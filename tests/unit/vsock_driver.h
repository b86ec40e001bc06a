/* A guest's vsock driver for tests: posts receive buffers, sends packets, takes packets. */
#ifndef TESTS_VSOCK_DRIVER_H
#define TESTS_VSOCK_DRIVER_H

#include <linux/virtio_vsock.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "backends/dialer.h"
#include "devices/virtio_vsock.h"
#include "virtio_driver.h"

enum { HDR = sizeof(struct virtio_vsock_hdr), RX_SIZE = 4096, CID = 3, QUEUE = 64, RINGS = 3 };

struct vsock_test {
	struct machine *m;
	struct drv d;
	char dir[64], path[96];
	gpa_t rx[QUEUE]; /* by descriptor */
	gpa_t tx;
	struct virtio_vsock *dev;
};
struct packet {
	struct virtio_vsock_hdr h;
	u8 data[RX_SIZE];
};

static inline int unix_listen(const char *path)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	memcpy(a.sun_path, path, MIN(strlen(path), sizeof(a.sun_path) - 1));
	if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof(a)) || listen(fd, 100))
		abort();
	return fd;
}

static inline int unix_connect(const char *path)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	memcpy(a.sun_path, path, MIN(strlen(path), sizeof(a.sun_path) - 1));
	if (fd < 0)
		abort();
	if (connect(fd, (struct sockaddr *)&a, sizeof(a)) == 0)
		return fd;
	close(fd);
	return -1;
}

static inline void vt_new(struct vsock_test *t)
{
	struct pci_host *h;
	struct err e = {0};
	struct virtio_vsock_options o = {.cid = CID};
	*t = (struct vsock_test){.dir = "/tmp/doppel-vsock-XXXXXX"};
	if (!mkdtemp(t->dir))
		abort();
	snprintf(t->path, sizeof(t->path), "%s/v", t->dir);
	o.listen_fd = unix_listen(t->path);
	t->m = fake_machine_new();
	if (dialer_start(t->path, &o.dialer, &e) || pci_host_create(t->m, &fake_pci_config, &h) ||
	    virtio_vsock_create(t->m, h, &o, &t->dev))
		abort();
	drv_find(&t->d, t->m, 1);
}

static inline void vt_start(struct vsock_test *t)
{
	drv_start(&t->d, ~0ull, RINGS, QUEUE, false);
	t->tx = drv_alloc(&t->d, 4 * RX_SIZE);
	fake_run(t->m);
}

static inline void vt_free(struct vsock_test *t)
{
	char cmd[128];
	fake_machine_free(t->m);
	snprintf(cmd, sizeof(cmd), "rm -rf %s", t->dir);
	if (system(cmd))
		abort();
}

static inline void vt_post(struct vsock_test *t, unsigned n)
{
	while (n--) {
		gpa_t a = drv_alloc(&t->d, HDR + RX_SIZE);
		const struct seg s[2] = {{a, HDR, true}, {a + HDR, RX_SIZE, true}};
		t->rx[drv_add(&t->d, 0, s, 2)] = a;
	}
	drv_kick(&t->d, 0);
	fake_run(t->m);
}

/* The next packet for the guest, if there is one; its buffer is not given back. */
static inline bool vt_take(struct vsock_test *t, struct packet *p)
{
	struct vring_used_elem e;
	fake_run(t->m);
	if (!drv_used(&t->d, 0, &e))
		return false;
	memset(p, 0, sizeof(*p));
	memcpy(p, drv_ptr(&t->d, t->rx[e.id % QUEUE]), MIN(e.len, (u32)sizeof(*p)));
	return true;
}

static inline struct virtio_vsock_hdr vt_header(u16 op, u32 host_port, u32 guest_port)
{
	return (struct virtio_vsock_hdr){.src_cid = CID, .dst_cid = 2, .src_port = guest_port, .dst_port = host_port,
					 .type = VIRTIO_VSOCK_TYPE_STREAM, .op = op, .buf_alloc = 65536};
}

static inline void vt_send_raw(struct vsock_test *t, const void *p, u32 n)
{
	const struct seg s = {t->tx, n, false};
	struct vring_used_elem e;
	memcpy(drv_ptr(&t->d, t->tx), p, n);
	drv_add(&t->d, 1, &s, 1);
	drv_kick(&t->d, 1);
	fake_run(t->m);
	drv_used(&t->d, 1, &e);
}

static inline void vt_send(struct vsock_test *t, struct virtio_vsock_hdr h, const void *data, u32 n)
{
	u8 p[HDR + 4 * RX_SIZE - HDR];
	h.len = n;
	memcpy(p, &h, HDR);
	if (n)
		memcpy(p + HDR, data, n);
	vt_send_raw(t, p, HDR + n);
}

#endif
