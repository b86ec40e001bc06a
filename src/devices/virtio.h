/*
 * Virtio 1.2 devices (OASIS Virtual I/O Device Version 1.2): the ring, the device's side of the contract, the
 * PCI transport.
 *
 * The ring. A queue is three tables in guest memory. The driver writes buffers as descriptors {address,
 * length, flags, next} into the descriptor table, puts the index of a chain's first descriptor into the
 * available ring and counts its index up; the device puts {head, bytes written} into the used ring and counts
 * that index up. Indices run freely modulo 65536; slots are index modulo queue size. A chain is
 * device-readable descriptors first, then device-writable ones. A descriptor may instead point at a table of
 * descriptors (indirect), once. Each side tells the other when it wants to be woken: by flags, or (EVENT_IDX)
 * by the index at which it wants it.
 *
 * Nothing in guest memory is trusted. virtio_ring.c is the only place that reads descriptors: it copies each
 * one once, checks it, and hands the device a struct virtq_chain of host pointers that lie inside guest RAM.
 * A chain longer than the queue, or than 2^32 - 1 bytes, a loop, an empty descriptor, a readable one after a
 * writable one, an address outside RAM: all make the queue broken; the device then needs a reset
 * (DEVICE_NEEDS_RESET) and nothing more is taken from it. The bytes behind the pointers may change at any
 * moment: a device copies a header out once (chain_read) and checks the copy.
 *
 * What is written: after virtq_push every page the device wrote has been reported by guest_written, so the
 * engine has dropped translations of it and it counts as dirty.
 *
 * Contract for device code (struct virtio_ops):
 *   - every callback runs with v->lock held; notify runs on the main thread's loop, the others on any thread;
 *   - notify takes from the queue until virtq_pop says 0 and pushes results now or later;
 *   - reset forgets the queues; when work in flight still points into guest memory it returns false, and
 * virtio_reset_done follows once the memory is quiet. Meanwhile the driver sees a device that is not yet
 * reset (1.2, 2.4.2);
 *   - lengths and offsets of config accesses are inside the config the device declared.
 *
 * Lock order: PCI host lock, v->lock, backend locks, MSI-X lock.
 */
#ifndef DEVICES_VIRTIO_H
#define DEVICES_VIRTIO_H

#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <pthread.h>
#include <sys/uio.h>

#include "devices/machine_if.h"
#include "devices/pci.h"

enum { VIRTQ_SIZE_MAX = 256, VIRTIO_QUEUES_MAX = 32 };
#define VIRTIO_NO_VECTOR 0xffff

/* ---- the ring (virtio_ring.c); the caller holds the device's lock ---- */
struct virtq {
	struct machine *machine;
	u16 size, size_max; /* size: what the driver chose, a power of two <= size_max */
	bool enabled, broken;
	bool event_idx;
	bool watched;  /* somebody looks at the ring: virtq_listen() asks for no notifications */
	bool tolerant; /* chains of unreachable memory are not a broken queue */
	gpa_t desc, avail, used;
	/* host addresses of the tables while enabled */
	const void *desc_p;
	const void *avail_p;
	void *used_p;
	u16 avail_next; /* next slot of the available ring to look at */
	u16 used_next;  /* next slot of the used ring to fill */
	u16 signalled;  /* used index at the last interrupt decision */
	bool signalled_valid;
};

struct virtq_chain {
	u16 head;
	unsigned n_out, n_in; /* iov[0..n_out) device reads, iov[n_out..n_out+n_in) device writes */
	u64 out_bytes, in_bytes;
	bool unreachable; /* for tolerant queues: some of it lies in a window (guest_is_window), has no address, and is neither read nor written */
	struct iovec iov[VIRTQ_SIZE_MAX];
	gpa_t gpa[VIRTQ_SIZE_MAX];
};

/* 0, or -EFAULT when a table is not in RAM, -EINVAL when misaligned or of a bad size */
int virtq_enable(struct virtq *q, bool event_idx) __attribute__((warn_unused_result));
void virtq_reset(struct virtq *q); /* size back to size_max, addresses 0 */
/* 1: *c is filled; 0: nothing there; -EIO: the driver broke the queue (q->broken is set) */
int virtq_pop(struct virtq *q, struct virtq_chain *c) __attribute__((warn_unused_result));
void virtq_unpop(struct virtq *q); /* undoes the last virtq_pop */
/* written: bytes from the start of the device-writable part */
void virtq_push(struct virtq *q, const struct virtq_chain *c, u32 written);
/* Several that the driver must see at once: fill each, ahead counting from 0, then publish that many. */
void virtq_fill(struct virtq *q, unsigned ahead, const struct virtq_chain *c, u32 written);
void virtq_publish(struct virtq *q, unsigned n);
bool virtq_wants_interrupt(struct virtq *q); /* after pushes, once */
void virtq_quiet(struct virtq *q);           /* the device is looking: no notifications wanted */
bool virtq_listen(struct virtq *q);          /* notify me again; true: more came meanwhile, go on */

/* For who takes a ring over from another: where to go on, what to look at. */
void virtq_resume(struct virtq *q, u16 avail_next);
u32 virtq_last_used(const struct virtq *q); /* head in the last entry of the used ring; UINT32_MAX: not in use */
u32 virtq_next_head(const struct virtq *q); /* what virtq_pop would take; UINT32_MAX: nothing */
int virtq_walk_head(struct virtq *q, u16 head, struct virtq_chain *c) __attribute__((warn_unused_result)); /* 0 or -EIO */

u16 virtq_published(const struct virtq *q);  /* where avail_next will be behind all that is there now */

/* Copies from the readable / to the writable part at byte offset off; false (and no copy) when it does not
 * hold n bytes there. */
bool chain_read(const struct virtq_chain *c, u64 off, void *buf, u64 n) __attribute__((warn_unused_result));
bool chain_write(const struct virtq_chain *c, u64 off, const void *buf, u64 n)
    __attribute__((warn_unused_result));
/* Cuts [off, off+n) out of a part into iov (room for VIRTQ_SIZE_MAX); number of entries, 0 when it is not all
 * there. */
unsigned chain_slice(const struct virtq_chain *c, bool in, u64 off, u64 n, struct iovec *iov);

/* ---- a device (virtio.c) ---- */
struct virtio;
struct virtio_ops {
	const char *name;
	u16 id;        /* VIRTIO_ID_* */
	u32 pci_class; /* 24 bits */
	void (*notify)(struct virtio *v, unsigned queue);
	void (*activate)(struct virtio *v); /* DRIVER_OK was set; may be NULL */
	void (*leave)(struct virtio *v);    /* a reset comes, the queues are still there; may be NULL */
	bool (*reset)(struct virtio *v);    /* true: quiet now; may be NULL */
	void (*config_written)(struct virtio *v, unsigned off, unsigned size); /* may be NULL */
	void (*shm_moved)(struct virtio *v); /* look at v->shm_gpa; may be NULL without such a region */
};
struct virtio_transport_ops {
	void (*signal_queue)(struct virtio *v, unsigned queue);
	void (*signal_config)(struct virtio *v);
	void (*kick)(struct virtio *v, unsigned queue);
	void (*reset_done)(struct virtio *v); /* may be NULL */
};
/* Chains a device takes per notification; then virtio_again gives the loop's other work its turn. */
enum { VIRTIO_BUDGET = 256 };
struct virtio {
	const struct virtio_ops *ops;
	const struct virtio_transport_ops *transport;
	void *transport_data;
	struct machine *machine;
	pthread_mutex_t lock;
	u64 device_features, driver_features;
	u8 status;
	bool resetting;
	bool remote; /* another process serves the queues: kicks and calls are eventfds for it. Set before virtio_pci_create */
	u8 generation;
	u8 *config;                /* the device's configuration, little-endian; the device owns it */
	const u8 *config_writable; /* mask; NULL: all read-only */
	unsigned config_size;
	u64 shm_size; /* shared memory region 0 (2.10), a power of two; 0: none. Set before virtio_pci_create */
	gpa_t shm_gpa; /* where the guest has it now, or MACHINE_NOWHERE */
	unsigned n_queues;
	struct virtq queue[VIRTIO_QUEUES_MAX];
};
/* VERSION_1, INDIRECT_DESC and EVENT_IDX are offered for every device. */
void virtio_init(struct virtio *v, struct machine *m, const struct virtio_ops *ops, u64 features,
		 unsigned n_queues, u16 queue_size);
void virtio_tolerate(struct virtio *v); /* all queues; the device answers chains of unreachable memory with an error */
void virtio_set_config(struct virtio *v, void *config, const u8 *writable, unsigned size);
void virtio_fini(struct virtio *v);

static inline bool virtio_has(const struct virtio *v, unsigned feature)
{
	return v->driver_features & BIT64(feature);
}
static inline bool virtio_live(const struct virtio *v)
{
	return (v->status & (VIRTIO_CONFIG_S_DRIVER_OK | VIRTIO_CONFIG_S_NEEDS_RESET)) ==
	       VIRTIO_CONFIG_S_DRIVER_OK;
}

/* for devices; v->lock held */
void virtio_signal_queue(struct virtio *v, unsigned queue); /* if the driver wants it */
void virtio_again(struct virtio *v, unsigned queue);        /* notify is called once more, soon */
void virtio_config_changed_locked(struct virtio *v);
void virtio_needs_reset_locked(struct virtio *v, const char *why);
void virtio_reset_done_locked(struct virtio *v);

/* for transports; v->lock held */
void virtio_write_status_locked(struct virtio *v, u8 status);
u8 virtio_read_status_locked(struct virtio *v);
void virtio_enable_queue_locked(struct virtio *v, unsigned queue);
void virtio_reset_locked(struct virtio *v);

/* ---- on PCI (virtio_pci.c) ---- */
struct virtio_pci;
/* The transport is the struct device of the pair: cls is the device's class, whose handlers call these two.
 * destroy may be called with vp NULL. */
int virtio_pci_create(struct virtio *v, struct pci_host *h, int slot, const struct device_class *cls,
		      struct virtio_pci **out);
void virtio_pci_reset(struct virtio_pci *vp); /* main thread, vCPUs stopped, device quiet */
void virtio_pci_destroy(struct virtio_pci *vp);
/* A remote device's eventfds; they stay the transport's. */
void virtio_pci_eventfds(struct virtio_pci *vp, unsigned queue, int *kick, int *call);
int virtio_pci_take_over(struct virtio_pci *vp); /* from here on it is served here, by ops->notify. v->lock held */
struct virtio *virtio_of_device(struct device *d);
struct virtio_pci *virtio_pci_of_device(struct device *d);

#endif
