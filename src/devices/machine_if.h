/*
 * What a device may know of the machine it sits in: buses, interrupts, guest memory, the event loop. Implemented by
 * devices/bus.c, devices/guestmem.c, base/loop.c and vmm/; devices include only this, pci.h and virtio.h.
 *
 * Threads: port and MMIO handlers run on vCPU threads, loop callbacks on the main thread. A device guards its state with its own
 * mutex.
 */
#ifndef DEVICES_MACHINE_IF_H
#define DEVICES_MACHINE_IF_H

#include "base/types.h"
#include "base/loop.h"

struct machine; /* vmm/machine.h */

struct loop *machine_loop(struct machine *m); /* the main thread's event loop: timers, disk completions, terminals */

/* ---- regions: port I/O and MMIO (devices/bus.c) ---- */
struct region;
struct region_ops {
	/* offset is relative to the region; size is one the region declares; the bus has checked bounds and splits others */
	u64 (*read)(void *dev, u64 offset, unsigned size);
	void (*write)(void *dev, u64 offset, unsigned size, u64 value);
};
struct region {
	const char *name;
	u64 base, size;
	u8 min_size, max_size; /* access sizes the handlers accept: 1 2 4 8; the bus splits or widens */
	const struct region_ops *ops;
	void *dev;
	bool enabled;
};
struct bus; /* one for ports, one for MMIO: sorted, read-mostly; safe to change while vCPUs run */
int bus_add(struct bus *b, struct region *r);    /* -EBUSY on overlap; keeps the pointer */
void bus_del(struct bus *b, struct region *r);
/* vCPU exits: reads without an owner give all ones, writes vanish. */
void bus_read(struct bus *b, u64 addr, void *data, unsigned len);
void bus_write(struct bus *b, u64 addr, const void *data, unsigned len);
struct bus *machine_pio(struct machine *m);
struct bus *machine_mmio(struct machine *m);

/* ---- interrupts ---- */
void machine_irq(struct machine *m, u32 gsi, bool level); /* ISA and PCI INTx lines: GSI 0..23 */
int machine_msi(struct machine *m, u64 addr, u32 data);
/* An eventfd whose signals make an MSI: for fast paths. Re-route with the same gsi handle. Returns 0 or -errno. */
struct msi_route {
	u32 gsi;
	int eventfd;
	u32 wake; /* the machine's own */
};
int machine_msi_route_add(struct machine *m, struct msi_route *r, u64 addr, u32 data);
/* The MSI, from any thread. False: it cannot be sent in this way. */
bool machine_msi_route_fire(struct machine *m, const struct msi_route *r);
int machine_msi_route_set(struct machine *m, struct msi_route *r, u64 addr, u32 data);
/* Another eventfd for the same route, or no longer. Unread signals stay in it. */
int machine_msi_route_bind(struct machine *m, const struct msi_route *r, int fd, bool on);
/* For another process that signals eventfd (base/wake.h): the page to wake vCPUs by, the machine's descriptor, and which of its
 * sources the eventfd now is. -1: there is no page, or it is full. */
int machine_wake_page(struct machine *m, int eventfd, u32 *source);
void machine_msi_route_del(struct machine *m, struct msi_route *r);
/* Signals eventfd when the guest writes len bytes at addr (no exit of the vCPU). */
int machine_ioeventfd(struct machine *m, bool pio, u64 addr, u32 len, int eventfd, bool add);

/* ---- guest memory: bounds-checked copies and pointers; any thread ---- */
bool guest_read(struct machine *m, gpa_t a, void *buf, u64 n);
bool guest_write(struct machine *m, gpa_t a, const void *buf, u64 n); /* tells the engine */
/* Host pointer to [a, a+n) if it lies inside one RAM slot, else NULL. After writing call guest_written(). */
void *guest_ptr(struct machine *m, gpa_t a, u64 n);
void guest_written(struct machine *m, gpa_t a, u64 n);
void guest_written_too(struct machine *m, gpa_t a, u64 n); /* before the last guest_written() of this thread; cheaper */
bool guest_is_window(struct machine *m, gpa_t a, u64 n); /* memory that devices do not reach */

/* A window onto files (base/window.h), nowhere yet: its number, and in *sock the end for the process that fills it. -ENOTSUP: this KVM has none.
 * Main thread, before the vCPUs run. */
int machine_window_add(struct machine *m, u64 size, int *sock);
#define MACHINE_NOWHERE (~0ull)
int machine_window_place(struct machine *m, int window, gpa_t gpa); /* any thread; 0 or -errno */

/* ---- the machine's fate ---- */
enum machine_event { MACHINE_POWEROFF, MACHINE_RESET, MACHINE_PANIC, MACHINE_DEBUG_EXIT, MACHINE_STOP };
void machine_request(struct machine *m, enum machine_event e, int code); /* any thread */

/* ---- device classes ---- */
struct device; /* opaque instance base: embed as first member */
struct device_class {
	const char *name;
	void (*reset)(struct device *d);
	void (*resume)(struct device *d); /* the VM goes on after a pause; main thread; may be NULL */
	void (*destroy)(struct device *d);
};
struct device {
	const struct device_class *cls;
	struct machine *machine;
	struct device *next; /* machine's list, in order of creation */
};
void machine_add_device(struct machine *m, struct device *d);

#endif
