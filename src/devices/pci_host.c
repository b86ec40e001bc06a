/*
 * The PCI host bridge: slot 0, and the two roads to configuration space: mechanism #1 (ports CF8h/CFCh, PCI
 * Local Bus Specification 3.0, 3.2.2.3.2) and ECAM (PCI Express Base Specification 4.0, 7.2.2). Port CF9h,
 * the reset control register (Intel ICH9 data sheet, 13.7.5), lies inside the address port and lives here as
 * it does in a chipset: dword accesses at CF8h are the address, byte accesses at CF9h the reset register.
 */
#include "devices/pci_int.h"

#include <errno.h>
#include <stdlib.h>

enum { HOST_VENDOR = 0x8086, HOST_DEVICE = 0x0d57, CLASS_HOST_BRIDGE = 0x060000 };
enum { RST_SYS = 0x02, RST_CPU = 0x04, RST_FULL = 0x08 };
#define CF8_ENABLE 0x80000000u
#define ECAM_BUS   0x100000u

struct window {
	u64 next, end;
};

struct pci_host {
	struct pci_func func; /* the bridge is function 0:0.0 itself */
	struct region address, data, ecam;
	bool ecam_on_bus;
	pthread_mutex_t lock; /* configuration space of all functions */
	pthread_mutex_t intx_lock;
	u32 cf8;
	u8 reset_control;
	struct pci_func *slot[PCI_SLOTS];
	u32 intx[4]; /* per GSI: slots that assert it */
	struct window io, mem32, mem64;
};

void pci_host_lock(struct pci_host *h)
{
	pthread_mutex_lock(&h->lock);
}

void pci_host_unlock(struct pci_host *h)
{
	pthread_mutex_unlock(&h->lock);
}

/* ---- slots, windows, interrupt lines ---- */
int pci_host_claim_slot(struct pci_host *h, struct pci_func *f, int slot)
{
	int r = 0;
	pci_host_lock(h);
	if (slot < 0)
		for (slot = 1; slot < PCI_SLOTS && h->slot[slot]; slot++)
			;
	if (slot >= PCI_SLOTS) {
		r = -ENOSPC;
	} else if (h->slot[slot]) {
		r = -EBUSY;
	} else {
		f->slot = (unsigned)slot;
		h->slot[slot] = f;
	}
	pci_host_unlock(h);
	return r;
}

void pci_host_release_slot(struct pci_host *h, struct pci_func *f)
{
	pci_host_lock(h);
	if (h->slot[f->slot] == f)
		h->slot[f->slot] = NULL;
	pci_host_unlock(h);
}

int pci_host_place_bar(struct pci_host *h, struct pci_bar *b)
{
	struct window *w = b->kind == PCI_BAR_IO                                       ? &h->io
			   : b->kind == PCI_BAR_MEM64 && h->mem64.end != h->mem64.next ? &h->mem64
										       : &h->mem32;
	u64 align = MAX(b->region.size,
			b->kind == PCI_BAR_IO ? 16 : PAGE_SIZE); /* ioeventfds and traps work by page */
	u64 at = ALIGN_UP(w->next, align);
	if (at < w->next || at > w->end || b->region.size > w->end - at)
		return -ENOSPC;
	b->home = at;
	w->next = at + b->region.size;
	return 0;
}

void pci_host_intx(struct pci_host *h, unsigned slot, bool level)
{
	unsigned line = slot & 3;
	pthread_mutex_lock(&h->intx_lock);
	u32 before = h->intx[line];
	h->intx[line] = level ? before | BIT(slot) : before & ~BIT(slot);
	if (!before != !h->intx[line])
		machine_irq(h->func.dev.machine, PCI_INTX_GSI(slot), level);
	pthread_mutex_unlock(&h->intx_lock);
}

/* ---- configuration accesses ---- */
static u32 cfg_read(struct pci_host *h, unsigned bdf, unsigned off, unsigned size)
{
	u32 v = ~0u;
	if (bdf >> 3 >= PCI_SLOTS || (bdf & 7) || off + size > PCI_CFG_SIZE)
		return v;
	pci_host_lock(h);
	if (h->slot[bdf >> 3])
		v = pci_func_cfg_read_locked(h->slot[bdf >> 3], off, size);
	pci_host_unlock(h);
	return v;
}

static void cfg_write(struct pci_host *h, unsigned bdf, unsigned off, unsigned size, u32 v)
{
	if (bdf >> 3 >= PCI_SLOTS || (bdf & 7) || off + size > PCI_CFG_SIZE)
		return;
	pci_host_lock(h);
	if (h->slot[bdf >> 3])
		pci_func_cfg_write_locked(h->slot[bdf >> 3], off, size, v);
	pci_host_unlock(h);
}

static u64 address_read(void *dev, u64 offset, unsigned size)
{
	struct pci_host *h = dev;
	pci_host_lock(h);
	u64 v = offset == 0 && size == 4 ? h->cf8 : offset == 1 && size == 1 ? h->reset_control : ~0ull;
	pci_host_unlock(h);
	return v;
}

static void address_write(void *dev, u64 offset, unsigned size, u64 value)
{
	struct pci_host *h = dev;
	bool reset = false;
	pci_host_lock(h);
	if (offset == 0 && size == 4) {
		h->cf8 = (u32)value & 0x80fffffc;
	} else if (offset == 1 && size == 1) {
		reset = (value & ~h->reset_control & RST_CPU) != 0;
		h->reset_control = value & (RST_SYS | RST_CPU | RST_FULL);
	}
	pci_host_unlock(h);
	if (reset)
		machine_request(h->func.dev.machine, MACHINE_RESET, 0);
}

static u32 current_address(struct pci_host *h)
{
	pci_host_lock(h);
	u32 a = h->cf8;
	pci_host_unlock(h);
	return a;
}

static u64 data_read(void *dev, u64 offset, unsigned size)
{
	struct pci_host *h = dev;
	u32 a = current_address(h);
	if (!(a & CF8_ENABLE))
		return ~0ull;
	return cfg_read(h, a >> 8 & 0xffff, (a & 0xfc) + (unsigned)offset, size);
}

static void data_write(void *dev, u64 offset, unsigned size, u64 value)
{
	struct pci_host *h = dev;
	u32 a = current_address(h);
	if (a & CF8_ENABLE)
		cfg_write(h, a >> 8 & 0xffff, (a & 0xfc) + (unsigned)offset, size, (u32)value);
}

static u64 ecam_read(void *dev, u64 offset, unsigned size)
{
	return cfg_read(dev, (unsigned)(offset >> 12), offset & 0xfff, size);
}

static void ecam_write(void *dev, u64 offset, unsigned size, u64 value)
{
	cfg_write(dev, (unsigned)(offset >> 12), offset & 0xfff, size, (u32)value);
}

static const struct region_ops address_ops = {.read = address_read, .write = address_write};
static const struct region_ops data_ops = {.read = data_read, .write = data_write};
static const struct region_ops ecam_ops = {.read = ecam_read, .write = ecam_write};

/* ---- lifecycle ---- */
static void pci_host_reset(struct device *d)
{
	struct pci_host *h = container_of(d, struct pci_host, func.dev);
	pci_func_reset(&h->func);
	pci_host_lock(h);
	h->cf8 = 0;
	h->reset_control = 0;
	pci_host_unlock(h);
}

/* Functions were created later and are destroyed before. */
static void pci_host_destroy(struct device *d)
{
	struct pci_host *h = container_of(d, struct pci_host, func.dev);
	pci_func_unplug(&h->func);
	if (h->ecam_on_bus)
		bus_del(machine_mmio(d->machine), &h->ecam);
	bus_del(machine_pio(d->machine), &h->data);
	bus_del(machine_pio(d->machine), &h->address);
	pthread_mutex_destroy(&h->intx_lock);
	pthread_mutex_destroy(&h->lock);
	free(h);
}

static const struct pci_func_ops bridge_ops = {0};
static const struct device_class pci_host_class = {
    .name = "pci-host", .reset = pci_host_reset, .destroy = pci_host_destroy};

static int add_regions(struct pci_host *h, struct machine *m)
{
	int r = bus_add(machine_pio(m), &h->address);
	if (r)
		return r;
	r = bus_add(machine_pio(m), &h->data);
	if (r)
		goto fail_address;
	if (h->ecam.size) {
		r = bus_add(machine_mmio(m), &h->ecam);
		if (r)
			goto fail_data;
		h->ecam_on_bus = true;
	}
	return 0;
fail_data:
	bus_del(machine_pio(m), &h->data);
fail_address:
	bus_del(machine_pio(m), &h->address);
	return r;
}

static struct region config_region(struct pci_host *h, const char *name, u64 base, u64 size,
				   const struct region_ops *ops)
{
	return (struct region){.name = name,
			       .base = base,
			       .size = size,
			       .min_size = 1,
			       .max_size = 4,
			       .ops = ops,
			       .dev = h,
			       .enabled = true};
}

int pci_host_create(struct machine *m, const struct pci_host_config *c, struct pci_host **out)
{
	static const struct pci_id id = {
	    .vendor = HOST_VENDOR, .device = HOST_DEVICE, .class_code = CLASS_HOST_BRIDGE};
	struct pci_host *h = calloc(1, sizeof(*h));
	if (!h)
		return -ENOMEM;
	pthread_mutex_init(&h->lock, NULL);
	pthread_mutex_init(&h->intx_lock, NULL);
	h->io = (struct window){c->io_base, c->io_base + (u64)c->io_size};
	h->mem32 = (struct window){c->mem32_base, c->mem32_base + c->mem32_size};
	h->mem64 = (struct window){c->mem64_base, c->mem64_base + c->mem64_size};
	h->address = config_region(h, "pci address", 0xcf8, 4, &address_ops);
	h->data = config_region(h, "pci data", 0xcfc, 4, &data_ops);
	h->ecam = config_region(h, "pci ecam", c->ecam_base, c->ecam_size, &ecam_ops);
	pci_func_init(&h->func, m, h, &id, &bridge_ops);
	h->func.dev.cls = &pci_host_class;
	int r = pci_func_plug(&h->func, 0);
	if (!r)
		r = add_regions(h, m);
	if (r) {
		pci_func_unplug(&h->func);
		pthread_mutex_destroy(&h->intx_lock);
		pthread_mutex_destroy(&h->lock);
		free(h);
		return r;
	}
	machine_add_device(m, &h->func.dev);
	*out = h;
	return 0;
}
