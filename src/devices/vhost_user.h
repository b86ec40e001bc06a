/*
 * The front-end of vhost-user: a virtio device whose queues another process serves. For any device type: the
 * device file brings its features and configuration, and calls these from its struct virtio_ops.
 *
 * A server of others does not see the guest's rings. It has rings of its own in memory that the guest cannot touch,
 * and each chain goes from the one to the other on the main loop's thread: checked by the one place that
 * reads descriptors, so that the server gets clean chains; and back after every page it wrote has been
 * reported (guest_written), so that no vCPU runs code that was decoded from what was there before. In a plain
 * connection the guest would see the used entry first. The data themselves are not copied:
 * the server has the guest's memory. A kick is an eventfd and stops no vCPU.
 *
 * A server of ours, which knows VU_PROTOCOL_DIRECT (base/vhost_user.h), has the guest's rings: kicks go from the KVM to it
 * and interrupts from it to the KVM; it checks chains by the same code, and reports what it writes itself.
 *
 * A server that dies, answers wrongly or not in time makes the device dead: said once; chains in flight and
 * all later ones go to the device's fail().
 */
#ifndef DEVICES_VHOST_USER_H
#define DEVICES_VHOST_USER_H

#include "base/base.h"
#include "devices/virtio.h"

struct vhost_user;
struct vhost_user_options {
	const char *name; /* what messages call the server */
	int sock;         /* connected; owned from here on, also on failure */
	unsigned n_queues;
	u16 queue_size;
	/* Answers a chain without the server: the bytes written. v->lock held. */
	u32 (*fail)(struct virtio *v, unsigned queue, const struct virtq_chain *c);
	/* The same for what needs no server, while it is there: 0: ask it. NULL: always. */
	u32 (*answer)(struct virtio *v, unsigned queue, const struct virtq_chain *c);
	bool may_direct; /* a server of ours gets the guest's rings; answer() is not called then */
};

/* ---- main thread, before the vCPUs run ---- */
/* Says hello: features, protocol, the guest's memory. */
int vhost_user_create(struct machine *m, const struct vhost_user_options *o, struct vhost_user **out,
		      struct err *e);
void vhost_user_attach(struct vhost_user *u, struct virtio *v); /* after virtio_init */
/* After virtio_pci_create, for may_direct: gives the server what it needs for that, if it can. The descriptors stay the caller's. */
struct vhost_user_direct {
	int attr_fd; /* the guest's pages' attributes; -1: there are none */
	u64 attr_pages;
	u8 attr_code;
	u64 window; /* bytes of a window that the server may fill (base/window.h), by this socket; 0: none */
	int window_sock;
};
int vhost_user_go_direct(struct vhost_user *u, struct virtio_pci *pci, const struct vhost_user_direct *d);
bool vhost_user_is_direct(const struct vhost_user *u);
u64 vhost_user_features(const struct vhost_user *u);            /* what the server can do, device bits too */
int vhost_user_get_config(struct vhost_user *u, void *buf, unsigned size); /* -ENOTSUP: it does not say */
void vhost_user_destroy(struct vhost_user *u); /* before the transport goes; NULL is fine */

/* ---- v->lock held; the counterparts of struct virtio_ops ---- */
void vhost_user_activate(struct vhost_user *u);
bool vhost_user_reset(struct vhost_user *u); /* true: memory is quiet */
void vhost_user_notify(struct vhost_user *u, unsigned queue);
int vhost_user_set_config(struct vhost_user *u, unsigned off, const void *buf, unsigned size);

#endif
