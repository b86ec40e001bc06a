/*
 * PCI: one host bridge, one bus of 32 slots, functions with BARs, capabilities and MSI-X.
 *
 * A device embeds struct pci_func as its first member and builds it in this order: pci_func_init,
 * pci_func_add_bar and pci_func_add_cap and pci_msix_init as needed, pci_func_plug. BARs get addresses at
 * plug time, as firmware would give them; the guest may move them. A BAR's region is on its bus while the
 * command register decodes it.
 *
 * INTx: pin A of slot s is wired to GSI PCI_INTX_GSI(s), level triggered, active high towards the interrupt
 * controller; the DSDT's _PRT says the same.
 *
 * Lock order: host lock (configuration space), device mutex, then the function's MSI-X lock or the host's
 * INTx lock.
 */
#ifndef DEVICES_PCI_H
#define DEVICES_PCI_H

#include <linux/pci_regs.h>
#include <pthread.h>

#include "devices/machine_if.h"

enum { PCI_SLOTS = 32, PCI_BARS = 6, PCI_CFG_SIZE = 4096, PCI_MSIX_MAX = 64 };
#define PCI_INTX_GSI(slot) (16u + ((slot)&3))

struct pci_host;
struct pci_host_config {
	gpa_t ecam_base;  /* 1 MiB per bus, bus 0 only */
	u64 ecam_size;    /* what MCFG declares; 0: no ECAM */
	gpa_t mem32_base; /* windows of _CRS that BARs are placed in */
	u64 mem32_size;
	gpa_t mem64_base;
	u64 mem64_size; /* 0: 64-bit BARs are placed in mem32 */
	u16 io_base;
	u32 io_size;
};
int pci_host_create(struct machine *m, const struct pci_host_config *c, struct pci_host **out);

enum pci_bar_kind { PCI_BAR_NONE, PCI_BAR_IO, PCI_BAR_MEM32, PCI_BAR_MEM64 };
struct pci_bar {
	enum pci_bar_kind kind;
	u64 home;             /* address given at plug time; a reset goes back to it */
	struct region region; /* size, handlers; base and enabled follow the guest */
	bool mapped;
};

struct pci_func;
struct pci_func_ops {
	void (*bar_mapped)(struct pci_func *f, unsigned bar); /* mapped or unmapped: look at f->bar[bar] */
	void (*cfg_reading)(struct pci_func *f, unsigned off,
			    unsigned size); /* about to be read: refresh f->cfg */
	void (*cfg_written)(struct pci_func *f, unsigned off, unsigned size);
};

struct pci_msix_vector {
	u64 addr;
	u32 data, control;
	bool pending, routed;
	struct msi_route route; /* valid while routed */
	u64 routed_addr;
	u32 routed_data;
};
/* An eventfd of another process that asks for an interrupt. While its vector is open the interrupt controller listens to it; else
 * cb(arg) on the main loop, which reads it and does what is to be done. */
struct pci_msix_source {
	int fd;
	u16 vector; /* of none: 0xffff */
	loop_cb *cb;
	void *arg;
	/* under the lock */
	struct pci_msix_source *next;
	bool bound;
	struct msi_route to; /* where it is bound */
};
struct pci_msix {
	struct pci_msix_source *sources;
	pthread_mutex_t lock;
	unsigned count; /* 0: no MSI-X */
	unsigned bar, cap;
	bool enabled, masked;
	struct pci_msix_vector *vector;
};

struct pci_func {
	struct device dev;
	const struct pci_func_ops *ops; /* members may be NULL */
	struct pci_host *host;
	unsigned slot;
	bool plugged;
	u8 cfg[PCI_CFG_SIZE], writable[PCI_CFG_SIZE]; /* under the host lock once plugged */
	u8 reset_value[PCI_CFG_SIZE];
	unsigned cap_next, cap_last;
	struct pci_bar bar[PCI_BARS];
	struct pci_msix msix;
};

struct pci_id {
	u16 vendor, device, subvendor, subdevice;
	u32 class_code; /* 24 bits: class, subclass, interface */
	u8 revision;
};

/* ---- building a function: main thread, before the vCPUs run ---- */
void pci_func_init(struct pci_func *f, struct machine *m, struct pci_host *h, const struct pci_id *id,
		   const struct pci_func_ops *ops);
/* size: power of two, >= 16; min and max are the access sizes the handlers take. */
void pci_func_add_bar(struct pci_func *f, unsigned bar, enum pci_bar_kind kind, u64 size, const char *name,
		      u8 min, u8 max, const struct region_ops *rops, void *dev);
/* len: bytes with the two header bytes. Returns the offset of the capability, filled with zeros, read-only.
 */
unsigned pci_func_add_cap(struct pci_func *f, u8 id, unsigned len);
int pci_msix_init(struct pci_func *f, unsigned vectors,
		  unsigned bar);                 /* the BAR holds table and PBA, nothing else */
int pci_msix_source_add(struct pci_func *f, struct pci_msix_source *s);
int pci_func_plug(struct pci_func *f, int slot); /* slot < 0: the next free one */
void pci_func_unplug(struct pci_func *f);        /* frees what the function holds, not f itself */

/* ---- any thread ---- */
bool pci_msix_enabled(struct pci_func *f);
void pci_msix_fire(struct pci_func *f, unsigned vector);
void pci_msix_source_set(struct pci_func *f, struct pci_msix_source *s, u16 vector);
void pci_intx(struct pci_func *f, bool level);

/* ---- the owner's reset handler ---- */
void pci_func_reset(struct pci_func *f);

/* little-endian fields of configuration space */
void pci_put(u8 *p, unsigned size, u32 v);
u32 pci_get(const u8 *p, unsigned size);

#endif
