/*
 * Virtio over PCI, modern only (Virtio 1.2, 4.1). BAR 0 holds the four structures, each in a page of its own:
 * common, ISR, device configuration, notifications (4 bytes apart per queue, so each queue has its own
 * address and eventfd). BAR 2 is MSI-X: vector per queue and one for configuration. BAR 4 is a shared memory region, if the device
 * has one: memory of the KVM, so that accesses come here only while it has nothing there.
 *
 * A notification is an eventfd: written by the KVM when the guest writes the queue's address (no exit of the
 * vCPU), or by the MMIO handler when the KVM could not take the address. The main loop listens and calls the
 * device.
 */
#include <errno.h>
#include <linux/virtio_pci.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/base.h"
#include "devices/virtio.h"

enum { VIRTIO_VENDOR = 0x1af4, VIRTIO_DEVICE_BASE = 0x1040, VIRTIO_REVISION = 1 };
enum { BAR_VIRTIO = 0, BAR_MSIX = 2, BAR_SHM = 4 /* and 5 */ };
enum { AREA = 0x1000, COMMON = 0x0000, ISR = 0x1000, DEVICE = 0x2000, NOTIFY = 0x3000, BAR_BYTES = 0x4000 };
enum { NOTIFY_STRIDE = 4, NOTIFY_LEN = 2 };
enum { ISR_QUEUE = 1, ISR_CONFIG = 2 };

struct notifier {
	struct virtio_pci *vp;
	unsigned queue;
	int fd;
	bool armed; /* the KVM watches addr */
	gpa_t addr;
	/* of a remote device; fd is not read here */
	int call; /* -1: none */
	struct pci_msix_source source;
};

struct virtio_pci {
	struct pci_func func; /* first: func.dev is the struct device */
	struct virtio *v;
	u32 device_feature_select, driver_feature_select;
	u16 queue_select;
	u16 config_vector, queue_vector[VIRTIO_QUEUES_MAX];
	u8 isr;
	bool intx;
	unsigned window; /* offset of the PCI configuration access capability */
	bool bar_mapped;
	gpa_t bar_base;
	struct notifier notifier[VIRTIO_QUEUES_MAX];
};

struct virtio_pci *virtio_pci_of_device(struct device *d)
{
	return container_of(d, struct virtio_pci, func.dev);
}

struct virtio *virtio_of_device(struct device *d)
{
	return virtio_pci_of_device(d)->v;
}

/* ---- interrupts; v->lock held ---- */
static void raise_locked(struct virtio_pci *vp, u16 vector, u8 isr)
{
	if (pci_msix_enabled(&vp->func)) {
		if (vector != VIRTIO_NO_VECTOR)
			pci_msix_fire(&vp->func, vector);
		return;
	}
	vp->isr |= isr;
	if (!vp->intx) {
		vp->intx = true;
		pci_intx(&vp->func, true);
	}
}

static void vp_signal_queue(struct virtio *v, unsigned queue)
{
	struct virtio_pci *vp = v->transport_data;
	raise_locked(vp, vp->queue_vector[queue], ISR_QUEUE);
}

static void vp_signal_config(struct virtio *v)
{
	struct virtio_pci *vp = v->transport_data;
	raise_locked(vp, vp->config_vector, ISR_CONFIG);
}

static u8 read_isr_locked(struct virtio_pci *vp)
{
	u8 v = vp->isr;
	vp->isr = 0;
	if (vp->intx) {
		vp->intx = false;
		pci_intx(&vp->func, false);
	}
	return v;
}

/* ---- notifications ---- */
static void on_notify(void *arg, u32 events)
{
	struct notifier *n = arg;
	struct virtio *v = n->vp->v;
	u64 count;
	if (read(n->fd, &count, sizeof(count)) != sizeof(count))
		return;
	pthread_mutex_lock(&v->lock);
	if (virtio_live(v) && v->queue[n->queue].enabled)
		v->ops->notify(v, n->queue);
	pthread_mutex_unlock(&v->lock);
}

static void kick(struct virtio_pci *vp, unsigned queue)
{
	const u64 one = 1;
	if (queue < vp->v->n_queues && write(vp->notifier[queue].fd, &one, sizeof(one)) != sizeof(one))
		log_msg(LOG_DEBUG, "virtio: notification lost"); /* the counter is full: the loop has plenty
								    to see already */
}

static void vp_kick(struct virtio *v, unsigned queue)
{
	kick(v->transport_data, queue);
}

/* A remote device wants to interrupt, and no vector of MSI-X takes it from there: INTx, or a masked vector. */
static void on_call(void *arg, u32 events)
{
	struct notifier *n = arg;
	u64 count;
	if (read(n->call, &count, sizeof(count)) != sizeof(count))
		return;
	pthread_mutex_lock(&n->vp->v->lock);
	vp_signal_queue(n->vp->v, n->queue);
	pthread_mutex_unlock(&n->vp->v->lock);
}

void virtio_pci_eventfds(struct virtio_pci *vp, unsigned queue, int *kick_fd, int *call_fd)
{
	*kick_fd = vp->notifier[queue].fd;
	*call_fd = vp->notifier[queue].call;
}

int virtio_pci_take_over(struct virtio_pci *vp)
{
	int r = 0;
	for (unsigned i = 0; i < vp->v->n_queues && !r; i++)
		r = loop_add(machine_loop(vp->func.dev.machine), vp->notifier[i].fd, EPOLLIN, on_notify, &vp->notifier[i]);
	return r;
}

static const struct virtio_transport_ops transport_ops = {
    .signal_queue = vp_signal_queue, .signal_config = vp_signal_config, .kick = vp_kick};

/* Lets the KVM watch the notification addresses of the queues in use, as the BAR and the device's state are
 * now. */
static void arm_notifiers_locked(struct virtio_pci *vp)
{
	struct machine *m = vp->func.dev.machine;
	for (unsigned i = 0; i < vp->v->n_queues; i++) {
		struct notifier *n = &vp->notifier[i];
		bool want = vp->bar_mapped && virtio_live(vp->v) && vp->v->queue[i].enabled;
		gpa_t addr = vp->bar_base + NOTIFY + NOTIFY_STRIDE * i;
		if (n->armed && (!want || n->addr != addr)) {
			machine_ioeventfd(m, false, n->addr, NOTIFY_LEN, n->fd, false);
			n->armed = false;
		}
		if (want && !n->armed) {
			n->addr = addr;
			n->armed = machine_ioeventfd(m, false, addr, NOTIFY_LEN, n->fd, true) == 0;
		}
	}
}

static void vp_bar_mapped(struct pci_func *f, unsigned bar)
{
	struct virtio_pci *vp = container_of(f, struct virtio_pci, func);
	const struct pci_bar *b = &f->bar[bar];
	pthread_mutex_lock(&vp->v->lock);
	if (bar == BAR_VIRTIO) {
		vp->bar_mapped = b->mapped;
		vp->bar_base = b->region.base;
		arm_notifiers_locked(vp);
	} else if (bar == BAR_SHM) {
		vp->v->shm_gpa = b->mapped ? b->region.base : MACHINE_NOWHERE;
		vp->v->ops->shm_moved(vp->v);
	}
	pthread_mutex_unlock(&vp->v->lock);
}

/* ---- common configuration (4.1.4.3) ---- */
static struct virtq *selected(struct virtio_pci *vp)
{
	return vp->queue_select < vp->v->n_queues ? &vp->v->queue[vp->queue_select] : NULL;
}

static u32 feature_word(u64 features, u32 select)
{
	return select < 2 ? (u32)(features >> 32 * select) : 0;
}

static u32 get_device_feature(struct virtio_pci *vp)
{
	return feature_word(vp->v->device_features, vp->device_feature_select);
}

static u32 get_driver_feature(struct virtio_pci *vp)
{
	return feature_word(vp->v->driver_features, vp->driver_feature_select);
}

static void set_driver_feature(struct virtio_pci *vp, u32 x)
{
	unsigned shift = 32 * vp->driver_feature_select;
	if (vp->driver_feature_select > 1 || (vp->v->status & VIRTIO_CONFIG_S_FEATURES_OK))
		return;
	vp->v->driver_features = (vp->v->driver_features & ~(0xffffffffull << shift)) | (u64)x << shift;
}

/* A vector the table does not have reads back as NO_VECTOR: that is how a refusal looks (4.1.5.1.2.1). */
static u16 valid_vector(struct virtio_pci *vp, u32 x)
{
	return x < vp->func.msix.count ? (u16)x : VIRTIO_NO_VECTOR;
}

static u32 get_config_vector(struct virtio_pci *vp)
{
	return vp->config_vector;
}

static void set_config_vector(struct virtio_pci *vp, u32 x)
{
	vp->config_vector = valid_vector(vp, x);
}

static u32 get_num_queues(struct virtio_pci *vp)
{
	return vp->v->n_queues;
}

static u32 get_status(struct virtio_pci *vp)
{
	return virtio_read_status_locked(vp->v);
}

static void put_queue_vector(struct virtio_pci *vp, unsigned queue, u16 vector)
{
	vp->queue_vector[queue] = vector;
	if (vp->notifier[queue].call >= 0)
		pci_msix_source_set(&vp->func, &vp->notifier[queue].source, vector);
}

static void forget_driver_state(struct virtio_pci *vp)
{
	vp->device_feature_select = vp->driver_feature_select = 0;
	vp->queue_select = 0;
	vp->config_vector = VIRTIO_NO_VECTOR;
	for (unsigned i = 0; i < VIRTIO_QUEUES_MAX; i++)
		put_queue_vector(vp, i, VIRTIO_NO_VECTOR);
	read_isr_locked(vp);
}

static void set_status(struct virtio_pci *vp, u32 x)
{
	bool was_live = virtio_live(vp->v);
	virtio_write_status_locked(vp->v, x);
	if (!x)
		forget_driver_state(vp);
	arm_notifiers_locked(vp);
	if (!was_live && virtio_live(vp->v)) /* buffers may have been added, and notified, before DRIVER_OK */
		for (unsigned i = 0; i < vp->v->n_queues; i++)
			kick(vp, i);
}

static u32 get_generation(struct virtio_pci *vp)
{
	return vp->v->generation;
}

static u32 get_queue_size(struct virtio_pci *vp)
{
	struct virtq *q = selected(vp);
	return q ? q->size : 0;
}

static void set_queue_size(struct virtio_pci *vp, u32 x)
{
	struct virtq *q = selected(vp);
	if (q && !q->enabled && x && x <= q->size_max && !(x & (x - 1)))
		q->size = x;
}

static u32 get_queue_vector(struct virtio_pci *vp)
{
	return selected(vp) ? vp->queue_vector[vp->queue_select] : VIRTIO_NO_VECTOR;
}

static void set_queue_vector(struct virtio_pci *vp, u32 x)
{
	if (selected(vp))
		put_queue_vector(vp, vp->queue_select, valid_vector(vp, x));
}

static u32 get_queue_enable(struct virtio_pci *vp)
{
	struct virtq *q = selected(vp);
	return q && q->enabled;
}

static void set_queue_enable(struct virtio_pci *vp, u32 x)
{
	if (x != 1 || !selected(vp))
		return;
	virtio_enable_queue_locked(vp->v, vp->queue_select);
	arm_notifiers_locked(vp);
	if (virtio_live(vp->v))
		kick(vp, vp->queue_select);
}

static void set_half(u64 *field, unsigned high, u32 x)
{
	*field = high ? (u32)*field | (u64)x << 32 : (*field & ~0xffffffffull) | x;
}

static gpa_t *queue_address(struct virtq *q, unsigned which)
{
	return which == 0 ? &q->desc : which == 1 ? &q->avail : &q->used;
}

static u32 get_address(struct virtio_pci *vp, unsigned which, unsigned high)
{
	struct virtq *q = selected(vp);
	return q ? (u32)(*queue_address(q, which) >> 32 * high) : 0;
}

static void set_address(struct virtio_pci *vp, unsigned which, unsigned high, u32 x)
{
	struct virtq *q = selected(vp);
	if (q && !q->enabled)
		set_half(queue_address(q, which), high, x);
}

#define SHOWN(f) .field = offsetof(struct virtio_pci, f)
#define KEPT(f)  .field = offsetof(struct virtio_pci, f), .kept = true

/* The 64-bit table addresses are not here: they are six dwords from ADDRESSES on. */
static const struct common_reg {
	u8 offset, width;
	u32 (*get)(struct virtio_pci *vp);
	void (*set)(struct virtio_pci *vp, u32 x);
	const char *name;
	u16 field; /* without get: offset of the field, of this width, that is read, and written if `kept` */
	bool kept;
} common_regs[] = {
    {.offset = VIRTIO_PCI_COMMON_DFSELECT,
     .width = 4,
     .name = "device_feature_select",
     KEPT(device_feature_select)},
    {.offset = VIRTIO_PCI_COMMON_DF, .width = 4, .get = get_device_feature, .name = "device_feature"},
    {.offset = VIRTIO_PCI_COMMON_GFSELECT,
     .width = 4,
     .name = "driver_feature_select",
     KEPT(driver_feature_select)},
    {.offset = VIRTIO_PCI_COMMON_GF,
     .width = 4,
     .get = get_driver_feature,
     .set = set_driver_feature,
     .name = "driver_feature"},
    {.offset = VIRTIO_PCI_COMMON_MSIX,
     .width = 2,
     .get = get_config_vector,
     .set = set_config_vector,
     .name = "config_msix_vector"},
    {.offset = VIRTIO_PCI_COMMON_NUMQ, .width = 2, .get = get_num_queues, .name = "num_queues"},
    {.offset = VIRTIO_PCI_COMMON_STATUS,
     .width = 1,
     .get = get_status,
     .set = set_status,
     .name = "device_status"},
    {.offset = VIRTIO_PCI_COMMON_CFGGENERATION,
     .width = 1,
     .get = get_generation,
     .name = "config_generation"},
    {.offset = VIRTIO_PCI_COMMON_Q_SELECT, .width = 2, .name = "queue_select", KEPT(queue_select)},
    {.offset = VIRTIO_PCI_COMMON_Q_SIZE,
     .width = 2,
     .get = get_queue_size,
     .set = set_queue_size,
     .name = "queue_size"},
    {.offset = VIRTIO_PCI_COMMON_Q_MSIX,
     .width = 2,
     .get = get_queue_vector,
     .set = set_queue_vector,
     .name = "queue_msix_vector"},
    {.offset = VIRTIO_PCI_COMMON_Q_ENABLE,
     .width = 2,
     .get = get_queue_enable,
     .set = set_queue_enable,
     .name = "queue_enable"},
    {.offset = VIRTIO_PCI_COMMON_Q_NOFF, .width = 2, .name = "queue_notify_off", SHOWN(queue_select)},
};
enum { ADDRESSES = VIRTIO_PCI_COMMON_Q_DESCLO, ADDRESSES_END = VIRTIO_PCI_COMMON_Q_USEDHI + 4 };

static const struct common_reg *find_common(u64 off, unsigned size)
{
	for (size_t i = 0; i < ARRAY_SIZE(common_regs); i++)
		if (common_regs[i].offset == off && common_regs[i].width == size)
			return &common_regs[i];
	return NULL;
}

static u32 common_read(struct virtio_pci *vp, u64 off, unsigned size)
{
	if (off >= ADDRESSES && off < ADDRESSES_END && size == 4 && !(off & 3))
		return get_address(vp, (off - ADDRESSES) / 8, (off - ADDRESSES) / 4 & 1);
	const struct common_reg *r = find_common(off, size);
	u32 v = 0;
	if (!r)
		return 0;
	if (r->get)
		return r->get(vp);
	memcpy(&v, (u8 *)vp + r->field, r->width);
	return v;
}

static void common_write(struct virtio_pci *vp, u64 off, unsigned size, u32 x)
{
	if (off >= ADDRESSES && off < ADDRESSES_END && size == 4 && !(off & 3)) {
		set_address(vp, (off - ADDRESSES) / 8, (off - ADDRESSES) / 4 & 1, x);
		return;
	}
	const struct common_reg *r = find_common(off, size);
	if (r && r->set)
		r->set(vp, x);
	else if (r && r->kept)
		memcpy((u8 *)vp + r->field, &x, r->width);
}

/* ---- device configuration ---- */
static u32 config_read(struct virtio *v, u64 off, unsigned size)
{
	u32 x = 0;
	for (unsigned i = 0; i < size; i++)
		x |= (u32)(off + i < v->config_size ? v->config[off + i] : 0) << 8 * i;
	return x;
}

static void config_write(struct virtio *v, u64 off, unsigned size, u32 x)
{
	if (!v->config_writable || !range_within(off, size, v->config_size))
		return;
	for (unsigned i = 0; i < size; i++) {
		u8 mask = v->config_writable[off + i];
		v->config[off + i] = (v->config[off + i] & ~mask) | ((x >> 8 * i) & mask);
	}
	if (v->ops->config_written)
		v->ops->config_written(v, off, size);
}

/* ---- BAR 0 ---- */
static u64 vp_read(void *dev, u64 offset, unsigned size)
{
	struct virtio_pci *vp = dev;
	u64 in = offset % AREA;
	u32 x = 0;
	pthread_mutex_lock(&vp->v->lock);
	switch (offset - in) {
	case COMMON:
		x = common_read(vp, in, size);
		break;
	case ISR:
		x = in == 0 ? read_isr_locked(vp) : 0;
		break;
	case DEVICE:
		x = config_read(vp->v, in, size);
		break;
	}
	pthread_mutex_unlock(&vp->v->lock);
	return x;
}

static void vp_write(void *dev, u64 offset, unsigned size, u64 value)
{
	struct virtio_pci *vp = dev;
	u64 in = offset % AREA;
	pthread_mutex_lock(&vp->v->lock);
	switch (offset - in) {
	case COMMON:
		common_write(vp, in, size, (u32)value);
		break;
	case DEVICE:
		config_write(vp->v, in, size, (u32)value);
		break;
	case NOTIFY:
		if (in % NOTIFY_STRIDE == 0)
			kick(vp, in / NOTIFY_STRIDE);
		break;
	}
	pthread_mutex_unlock(&vp->v->lock);
}

static const struct region_ops vp_region_ops = {.read = vp_read, .write = vp_write};

/* ---- the window in configuration space (4.1.4.9): BAR 0 for whoever cannot reach it by memory accesses ----
 */
enum { CAP_BAR = 4, CAP_OFFSET = 8, CAP_LENGTH = 12, CAP_DATA = 16, CAP_MULTIPLIER = 16 };

static bool window_target(struct virtio_pci *vp, unsigned off, unsigned size, u32 *at, u32 *len)
{
	const u8 *cap = vp->func.cfg + vp->window;
	if (off + size <= vp->window + CAP_DATA || off >= vp->window + CAP_DATA + 4)
		return false;
	*at = pci_get(cap + CAP_OFFSET, 4);
	*len = pci_get(cap + CAP_LENGTH, 4);
	return cap[CAP_BAR] == BAR_VIRTIO && (*len == 1 || *len == 2 || *len == 4) && !(*at & (*len - 1)) &&
	       range_within(*at, *len, BAR_BYTES);
}

static void vp_cfg_reading(struct pci_func *f, unsigned off, unsigned size)
{
	struct virtio_pci *vp = container_of(f, struct virtio_pci, func);
	u32 at, len;
	if (window_target(vp, off, size, &at, &len))
		pci_put(f->cfg + vp->window + CAP_DATA, 4, (u32)vp_read(vp, at, len));
}

static void vp_cfg_written(struct pci_func *f, unsigned off, unsigned size)
{
	struct virtio_pci *vp = container_of(f, struct virtio_pci, func);
	u32 at, len;
	if (window_target(vp, off, size, &at, &len)) {
		u32 x = pci_get(f->cfg + vp->window + CAP_DATA, 4);
		vp_write(vp, at, len, len < 4 ? x & (BIT(8 * len) - 1) : x);
	}
}

static const struct pci_func_ops vp_func_ops = {
    .bar_mapped = vp_bar_mapped, .cfg_reading = vp_cfg_reading, .cfg_written = vp_cfg_written};

/* ---- lifecycle ---- */
static const struct virtio_area {
	u8 type, len;
	u32 offset, length;
} areas[] = {
    {VIRTIO_PCI_CAP_COMMON_CFG, 16, COMMON, ADDRESSES_END},
    {VIRTIO_PCI_CAP_ISR_CFG, 16, ISR, 1},
    {VIRTIO_PCI_CAP_DEVICE_CFG, 16, DEVICE, AREA},
    {VIRTIO_PCI_CAP_NOTIFY_CFG, 20, NOTIFY, AREA},
    {VIRTIO_PCI_CAP_PCI_CFG, 20, 0, 0},
};

static void add_capabilities(struct virtio_pci *vp)
{
	struct pci_func *f = &vp->func;
	for (size_t i = 0; i < ARRAY_SIZE(areas); i++) {
		const struct virtio_area *a = &areas[i];
		if (a->type == VIRTIO_PCI_CAP_DEVICE_CFG && !vp->v->config_size)
			continue;
		unsigned off = pci_func_add_cap(f, PCI_CAP_ID_VNDR, a->len);
		f->cfg[off + 2] = a->len;
		f->cfg[off + 3] = a->type;
		f->cfg[off + CAP_BAR] = BAR_VIRTIO;
		pci_put(f->cfg + off + CAP_OFFSET, 4, a->offset);
		pci_put(f->cfg + off + CAP_LENGTH, 4, a->length);
		if (a->type == VIRTIO_PCI_CAP_NOTIFY_CFG)
			pci_put(f->cfg + off + CAP_MULTIPLIER, 4, NOTIFY_STRIDE);
		if (a->type != VIRTIO_PCI_CAP_PCI_CFG)
			continue;
		vp->window = off;
		f->writable[off + CAP_BAR] = 0xff;
		memset(f->writable + off + CAP_OFFSET, 0xff, CAP_DATA + 4 - CAP_OFFSET);
	}
}

static u64 shm_read(void *dev, u64 off, unsigned size)
{
	return ~0ull;
}

static void shm_write(void *dev, u64 off, unsigned size, u64 x)
{
}

static const struct region_ops shm_region_ops = {.read = shm_read, .write = shm_write};

/* 4.1.4.7: 64-bit offset and length, and which region it is. */
static void add_shm(struct virtio_pci *vp)
{
	enum { CAP64_LEN = 24, CAP_ID = 5 };
	struct pci_func *f = &vp->func;
	u64 size = vp->v->shm_size;
	unsigned off = 0;
	if (!size)
		return;
	pci_func_add_bar(f, BAR_SHM, PCI_BAR_MEM64, size, "virtio-shm", 1, 8, &shm_region_ops, vp);
	off = pci_func_add_cap(f, PCI_CAP_ID_VNDR, CAP64_LEN);
	f->cfg[off + 2] = CAP64_LEN;
	f->cfg[off + 3] = VIRTIO_PCI_CAP_SHARED_MEMORY_CFG;
	f->cfg[off + CAP_BAR] = BAR_SHM;
	f->cfg[off + CAP_ID] = 0;
	pci_put(f->cfg + off + CAP_LENGTH, 4, (u32)size);
	pci_put(f->cfg + off + CAP_LENGTH + 8, 4, (u32)(size >> 32));
}

static int open_call(struct virtio_pci *vp, struct notifier *n)
{
	n->call = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (n->call < 0)
		return -errno;
	n->source = (struct pci_msix_source){.fd = n->call, .vector = VIRTIO_NO_VECTOR, .cb = on_call, .arg = n};
	return pci_msix_source_add(&vp->func, &n->source);
}

static int open_notifiers(struct virtio_pci *vp)
{
	for (unsigned i = 0; i < vp->v->n_queues; i++) {
		struct notifier *n = &vp->notifier[i];
		*n = (struct notifier){.vp = vp, .queue = i, .call = -1, .fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)};
		if (n->fd < 0)
			return -errno;
		int r = vp->v->remote ? open_call(vp, n) : loop_add(machine_loop(vp->func.dev.machine), n->fd, EPOLLIN, on_notify, n);
		if (r) {
			close(n->fd);
			n->fd = -1;
			return r;
		}
	}
	return 0;
}

int virtio_pci_create(struct virtio *v, struct pci_host *h, int slot, const struct device_class *cls,
		      struct virtio_pci **out)
{
	struct virtio_pci *vp = calloc(1, sizeof(*vp));
	if (!vp)
		return -ENOMEM;
	const struct pci_id id = {.vendor = VIRTIO_VENDOR,
				  .device = VIRTIO_DEVICE_BASE + v->ops->id,
				  .subvendor = VIRTIO_VENDOR,
				  .subdevice = VIRTIO_DEVICE_BASE + v->ops->id,
				  .class_code = v->ops->pci_class,
				  .revision = VIRTIO_REVISION};
	for (unsigned i = 0; i < VIRTIO_QUEUES_MAX; i++)
		vp->notifier[i].fd = vp->notifier[i].call = -1;
	vp->v = v;
	v->transport = &transport_ops;
	v->transport_data = vp;
	vp->func.dev.cls = cls;
	pci_func_init(&vp->func, v->machine, h, &id, &vp_func_ops);
	pci_func_add_bar(&vp->func, BAR_VIRTIO, PCI_BAR_MEM32, BAR_BYTES, v->ops->name, 1, 4, &vp_region_ops,
			 vp);
	add_capabilities(vp);
	add_shm(vp);
	forget_driver_state(vp);
	int r = pci_msix_init(&vp->func, v->n_queues + 1, BAR_MSIX);
	if (!r)
		r = open_notifiers(vp);
	if (!r)
		r = pci_func_plug(&vp->func, slot);
	if (r) {
		virtio_pci_destroy(vp);
		return r;
	}
	machine_add_device(v->machine, &vp->func.dev);
	*out = vp;
	return 0;
}

void virtio_pci_reset(struct virtio_pci *vp)
{
	pthread_mutex_lock(&vp->v->lock);
	virtio_reset_locked(vp->v);
	forget_driver_state(vp);
	arm_notifiers_locked(vp);
	pthread_mutex_unlock(&vp->v->lock);
	pci_func_reset(&vp->func);
}

void virtio_pci_destroy(struct virtio_pci *vp)
{
	if (!vp)
		return;
	pci_func_unplug(&vp->func);
	for (unsigned i = 0; i < vp->v->n_queues; i++) {
		if (vp->notifier[i].fd < 0)
			continue;
		loop_del(machine_loop(vp->func.dev.machine), vp->notifier[i].fd);
		close(vp->notifier[i].fd);
		if (vp->notifier[i].call < 0)
			continue;
		loop_del(machine_loop(vp->func.dev.machine), vp->notifier[i].call);
		close(vp->notifier[i].call);
	}
	free(vp);
}
