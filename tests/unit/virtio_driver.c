#include "virtio_driver.h"

#include <stdlib.h>
#include <string.h>

static u32 common_r(struct drv *d, unsigned off, unsigned size)
{
	return mmio_read(d->m, d->bar + d->common + off, size);
}

static void common_w(struct drv *d, unsigned off, unsigned size, u32 v)
{
	mmio_write(d->m, d->bar + d->common + off, size, v);
}

void drv_find(struct drv *d, struct machine *m, unsigned slot)
{
	*d = (struct drv){.m = m, .slot = slot, .next_page = 0x100000};
	d->bar = cfg_read(m, slot, PCI_BASE_ADDRESS_0, 4) & ~15u;
	d->msix_bar = cfg_read(m, slot, PCI_BASE_ADDRESS_2, 4) & ~15u;
	cfg_write(m, slot, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	for (unsigned c = cfg_read(m, slot, PCI_CAPABILITY_LIST, 1); c; c = cfg_read(m, slot, c + 1, 1)) {
		if (cfg_read(m, slot, c, 1) != PCI_CAP_ID_VNDR)
			continue;
		u32 off = cfg_read(m, slot, c + 8, 4);
		switch (cfg_read(m, slot, c + 3, 1)) {
		case VIRTIO_PCI_CAP_COMMON_CFG:
			d->common = off;
			break;
		case VIRTIO_PCI_CAP_NOTIFY_CFG:
			d->notify = off;
			d->multiplier = cfg_read(m, slot, c + 16, 4);
			break;
		case VIRTIO_PCI_CAP_ISR_CFG:
			d->isr = off;
			break;
		case VIRTIO_PCI_CAP_DEVICE_CFG:
			d->device = off;
			break;
		}
	}
}

u8 drv_status(struct drv *d)
{
	return common_r(d, VIRTIO_PCI_COMMON_STATUS, 1);
}

void drv_set_status(struct drv *d, u8 bits)
{
	common_w(d, VIRTIO_PCI_COMMON_STATUS, 1, bits ? drv_status(d) | bits : 0);
}

void drv_begin(struct drv *d, u64 features)
{
	drv_set_status(d, 0);
	drv_set_status(d, VIRTIO_CONFIG_S_ACKNOWLEDGE);
	drv_set_status(d, VIRTIO_CONFIG_S_DRIVER);
	u64 offered = 0;
	for (unsigned i = 0; i < 2; i++) {
		common_w(d, VIRTIO_PCI_COMMON_DFSELECT, 4, i);
		offered |= (u64)common_r(d, VIRTIO_PCI_COMMON_DF, 4) << 32 * i;
	}
	d->features = offered & features;
	for (unsigned i = 0; i < 2; i++) {
		common_w(d, VIRTIO_PCI_COMMON_GFSELECT, 4, i);
		common_w(d, VIRTIO_PCI_COMMON_GF, 4, (u32)(d->features >> 32 * i));
	}
	drv_set_status(d, VIRTIO_CONFIG_S_FEATURES_OK);
}

gpa_t drv_alloc(struct drv *d, u64 n)
{
	gpa_t a = d->next_page;
	d->next_page += ALIGN_UP(n, 64);
	if (d->next_page > FAKE_RAM)
		abort();
	return a;
}

void *drv_ptr(struct drv *d, gpa_t a)
{
	return a >= FAKE_HIGH ? d->m->high + (a - FAKE_HIGH) : d->m->ram + a;
}

static void set_address(struct drv *d, unsigned off, gpa_t a)
{
	common_w(d, off, 4, (u32)a);
	common_w(d, off + 4, 4, (u32)(a >> 32));
}

void drv_queue_setup(struct drv *d, unsigned q, u16 size, bool msix)
{
	struct drv_queue *x = &d->q[q];
	*x = (struct drv_queue){.size = size};
	x->desc = drv_alloc(d, 16 * size);
	x->avail = drv_alloc(d, 6 + 2 * size);
	x->used = drv_alloc(d, 6 + 8 * size);
	memset(drv_ptr(d, x->desc), 0, 16 * size);
	memset(drv_ptr(d, x->avail), 0, 6 + 2 * size);
	memset(drv_ptr(d, x->used), 0, 6 + 8 * size);
	common_w(d, VIRTIO_PCI_COMMON_Q_SELECT, 2, q);
	common_w(d, VIRTIO_PCI_COMMON_Q_SIZE, 2, size);
	common_w(d, VIRTIO_PCI_COMMON_Q_MSIX, 2, msix ? q + 1 : VIRTIO_NO_VECTOR);
	set_address(d, VIRTIO_PCI_COMMON_Q_DESCLO, x->desc);
	set_address(d, VIRTIO_PCI_COMMON_Q_AVAILLO, x->avail);
	set_address(d, VIRTIO_PCI_COMMON_Q_USEDLO, x->used);
	common_w(d, VIRTIO_PCI_COMMON_Q_ENABLE, 2, 1);
}

void drv_msix_on(struct drv *d, unsigned vectors)
{
	unsigned c = cfg_read(d->m, d->slot, PCI_CAPABILITY_LIST, 1);
	while (c && cfg_read(d->m, d->slot, c, 1) != PCI_CAP_ID_MSIX)
		c = cfg_read(d->m, d->slot, c + 1, 1);
	cfg_write(d->m, d->slot, c + PCI_MSIX_FLAGS, 2, PCI_MSIX_FLAGS_ENABLE);
	for (unsigned v = 0; v < vectors; v++) {
		u64 e = d->msix_bar + 16 * v;
		mmio_write(d->m, e, 4, 0xfee00000);
		mmio_write(d->m, e + 4, 4, 0);
		mmio_write(d->m, e + 8, 4, 0x40 + v);
		mmio_write(d->m, e + 12, 4, 0);
	}
	common_w(d, VIRTIO_PCI_COMMON_MSIX, 2, 0);
}

void drv_start(struct drv *d, u64 features, unsigned n_queues, u16 size, bool msix)
{
	drv_begin(d, features);
	if (msix)
		drv_msix_on(d, n_queues + 1);
	for (unsigned i = 0; i < n_queues; i++)
		drv_queue_setup(d, i, size, msix);
	drv_set_status(d, VIRTIO_CONFIG_S_DRIVER_OK);
}

struct vring_desc *drv_desc(struct drv *d, unsigned q, unsigned i)
{
	return (struct vring_desc *)drv_ptr(d, d->q[q].desc) + i;
}

void drv_publish(struct drv *d, unsigned q, u16 head)
{
	struct drv_queue *x = &d->q[q];
	u16 *avail = drv_ptr(d, x->avail);
	avail[2 + x->avail_idx % x->size] = head;
	avail[1] = ++x->avail_idx;
}

u16 drv_add(struct drv *d, unsigned q, const struct seg *s, unsigned n)
{
	struct drv_queue *x = &d->q[q];
	u16 head = x->next_desc;
	for (unsigned i = 0; i < n; i++) {
		u16 at = x->next_desc;
		x->next_desc = (at + 1) % x->size;
		*drv_desc(d, q, at) = (struct vring_desc){.addr = s[i].addr,
							  .len = s[i].len,
							  .next = x->next_desc,
							  .flags = (s[i].in ? VRING_DESC_F_WRITE : 0) |
								   (i + 1 < n ? VRING_DESC_F_NEXT : 0)};
	}
	drv_publish(d, q, head);
	return head;
}

void drv_kick(struct drv *d, unsigned q)
{
	mmio_write(d->m, d->bar + d->notify + d->multiplier * q, 2, q);
}

bool drv_used(struct drv *d, unsigned q, struct vring_used_elem *e)
{
	struct drv_queue *x = &d->q[q];
	u8 *used = drv_ptr(d, x->used);
	u16 idx;
	memcpy(&idx, used + 2, 2);
	if (idx == x->used_seen)
		return false;
	memcpy(e, used + 4 + 8 * (x->used_seen % x->size), 8);
	x->used_seen++;
	return true;
}

u64 drv_config(struct drv *d, unsigned off, unsigned size)
{
	u64 v = 0;
	for (unsigned i = 0; i < size; i++)
		v |= (u64)mmio_read(d->m, d->bar + d->device + off + i, 1) << 8 * i;
	return v;
}
