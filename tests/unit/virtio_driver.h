/* The driver's side of virtio over PCI, for tests: what a guest would do, and what it should not. */
#ifndef TESTS_VIRTIO_DRIVER_H
#define TESTS_VIRTIO_DRIVER_H

#include <linux/virtio_pci.h>
#include <linux/virtio_ring.h>

#include "devices/virtio.h"
#include "fake_machine.h"

enum { DRV_QUEUES = 20 };
struct drv_queue {
	u16 size;
	u16 avail_idx, used_seen;
	u16 next_desc;
	gpa_t desc, avail, used;
};
struct drv {
	struct machine *m;
	unsigned slot;
	u64 bar, msix_bar;
	u32 common, isr, device, notify, multiplier;
	u64 features;
	struct drv_queue q[DRV_QUEUES];
	gpa_t next_page; /* guest memory for rings and buffers, from here on */
};
struct seg {
	gpa_t addr;
	u32 len;
	bool in;
};

void drv_find(struct drv *d, struct machine *m,
	      unsigned slot); /* reads BARs and capabilities, enables memory decoding */
void drv_start(struct drv *d, u64 features, unsigned n_queues, u16 size, bool msix);
void drv_begin(struct drv *d, u64 features); /* up to FEATURES_OK */
void drv_queue_setup(struct drv *d, unsigned q, u16 size, bool msix);
void drv_msix_on(struct drv *d, unsigned vectors); /* data of vector v: 0x40 + v */
u8 drv_status(struct drv *d);
void drv_set_status(struct drv *d, u8 bits);
gpa_t drv_alloc(struct drv *d, u64 n);
void *drv_ptr(struct drv *d, gpa_t a);
struct vring_desc *drv_desc(struct drv *d, unsigned q, unsigned i);
u16 drv_add(struct drv *d, unsigned q, const struct seg *s,
	    unsigned n); /* one chain, made available; returns the head */
void drv_publish(struct drv *d, unsigned q, u16 head);
void drv_kick(struct drv *d, unsigned q);
/* the next used element; false: none */
bool drv_used(struct drv *d, unsigned q, struct vring_used_elem *e);
u64 drv_config(struct drv *d, unsigned off, unsigned size);

#endif
