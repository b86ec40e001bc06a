/*
 * PCI functions: configuration space type 0, BARs, capabilities (PCI Local Bus Specification 3.0, chapter 6).
 * Every register is bytes with a mask of writable bits, so that sizing a BAR, write-protection and partial
 * writes need no code: a BAR's address bits below its size are simply not writable. What writes cause
 * (decoding, MSI-X) is looked at after the bytes have changed.
 */
#include "devices/pci_int.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/base.h"

enum { BAR_IO = 0x01, BAR_MEM64 = 0x04, PCI_BASE_CLASS_BRIDGE = 0x06 };

/* Type 0 header: what is not listed is zero and read-only. Identification comes from struct pci_id. */
static const struct pci_reg {
	u16 offset;
	u8 width;
	u32 reset, writable;
	const char *name;
} header_regs[] = {
    {PCI_COMMAND, 2, 0,
     PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER | PCI_COMMAND_PARITY | PCI_COMMAND_SERR |
	 PCI_COMMAND_INTX_DISABLE,
     "Command"},
    {PCI_STATUS, 2, 0, 0, "Status"},
    {PCI_CACHE_LINE_SIZE, 1, 0, 0xff, "Cache Line Size"},
    {PCI_LATENCY_TIMER, 1, 0, 0, "Latency Timer"},
    {PCI_HEADER_TYPE, 1, PCI_HEADER_TYPE_NORMAL, 0, "Header Type"},
    {PCI_INTERRUPT_LINE, 1, 0, 0xff, "Interrupt Line"},
    {PCI_INTERRUPT_PIN, 1, 0, 0, "Interrupt Pin"},
};

void pci_put(u8 *p, unsigned size, u32 v)
{
	memcpy(p, &v, size);
}

u32 pci_get(const u8 *p, unsigned size)
{
	u32 v = 0;
	memcpy(&v, p, size);
	return v;
}

static unsigned bar_offset(unsigned bar)
{
	return PCI_BASE_ADDRESS_0 + 4 * bar;
}

/* ---- building ---- */
void pci_func_init(struct pci_func *f, struct machine *m, struct pci_host *h, const struct pci_id *id,
		   const struct pci_func_ops *ops)
{
	f->dev.machine = m;
	f->host = h;
	f->ops = ops;
	for (size_t i = 0; i < ARRAY_SIZE(header_regs); i++) {
		const struct pci_reg *r = &header_regs[i];
		pci_put(f->cfg + r->offset, r->width, r->reset);
		pci_put(f->writable + r->offset, r->width, r->writable);
	}
	pci_put(f->cfg + PCI_VENDOR_ID, 2, id->vendor);
	pci_put(f->cfg + PCI_DEVICE_ID, 2, id->device);
	pci_put(f->cfg + PCI_CLASS_REVISION, 4, id->class_code << 8 | id->revision);
	pci_put(f->cfg + PCI_SUBSYSTEM_VENDOR_ID, 2, id->subvendor);
	pci_put(f->cfg + PCI_SUBSYSTEM_ID, 2, id->subdevice);
	f->cap_next = PCI_STD_HEADER_SIZEOF;
	pthread_mutex_init(&f->msix.lock, NULL);
}

void pci_func_add_bar(struct pci_func *f, unsigned bar, enum pci_bar_kind kind, u64 size, const char *name,
		      u8 min, u8 max, const struct region_ops *rops, void *dev)
{
	assert(!f->plugged && bar < PCI_BARS - (kind == PCI_BAR_MEM64) && !(size & (size - 1)) && size >= 16);
	struct pci_bar *b = &f->bar[bar];
	b->kind = kind;
	b->region = (struct region){
	    .name = name, .size = size, .min_size = min, .max_size = max, .ops = rops, .dev = dev};
	u64 mask = ~(size - 1);
	pci_put(f->writable + bar_offset(bar), 4, (u32)mask);
	pci_put(f->cfg + bar_offset(bar), 4,
		kind == PCI_BAR_IO      ? BAR_IO
		: kind == PCI_BAR_MEM64 ? BAR_MEM64
					: 0);
	if (kind == PCI_BAR_MEM64)
		pci_put(f->writable + bar_offset(bar + 1), 4, (u32)(mask >> 32));
}

unsigned pci_func_add_cap(struct pci_func *f, u8 id, unsigned len)
{
	unsigned off = f->cap_next;
	assert(!f->plugged && len >= 2 && off + len <= PCI_CFG_SPACE_SIZE);
	f->cfg[off] = id;
	f->cfg[f->cap_last ? f->cap_last + 1 : PCI_CAPABILITY_LIST] = off;
	f->cfg[PCI_STATUS] |= PCI_STATUS_CAP_LIST;
	f->cap_last = off;
	f->cap_next = ALIGN_UP(off + len, 4);
	return off;
}

static void put_bar(struct pci_func *f, unsigned bar, u64 addr)
{
	u8 *p = f->cfg + bar_offset(bar);
	u32 flags = pci_get(p, 4) & 0xf;
	pci_put(p, 4, (u32)addr | flags);
	if (f->bar[bar].kind == PCI_BAR_MEM64)
		pci_put(p + 4, 4, (u32)(addr >> 32));
}

int pci_func_plug(struct pci_func *f, int slot)
{
	bool bridge = f->cfg[PCI_CLASS_DEVICE + 1] == PCI_BASE_CLASS_BRIDGE;
	for (unsigned i = 0; i < PCI_BARS; i++) {
		if (f->bar[i].kind == PCI_BAR_NONE)
			continue;
		int r = pci_host_place_bar(f->host, &f->bar[i]);
		if (r)
			return r;
		put_bar(f, i, f->bar[i].home);
	}
	int r = pci_host_claim_slot(f->host, f, slot);
	if (r)
		return r;
	f->cfg[PCI_INTERRUPT_PIN] = bridge ? 0 : 1;
	f->cfg[PCI_INTERRUPT_LINE] = bridge ? 0 : PCI_INTX_GSI(f->slot);
	memcpy(f->reset_value, f->cfg, sizeof(f->cfg));
	f->plugged = true;
	return 0;
}

/* ---- decoding ---- */
static struct bus *bar_bus(struct pci_func *f, const struct pci_bar *b)
{
	return b->kind == PCI_BAR_IO ? machine_pio(f->dev.machine) : machine_mmio(f->dev.machine);
}

static u64 bar_address(const struct pci_func *f, unsigned bar)
{
	const u8 *p = f->cfg + bar_offset(bar);
	if (f->bar[bar].kind == PCI_BAR_IO)
		return pci_get(p, 4) & ~3u;
	u64 a = pci_get(p, 4) & ~0xfu;
	return f->bar[bar].kind == PCI_BAR_MEM64 ? a | (u64)pci_get(p + 4, 4) << 32 : a;
}

/* A BAR at 0, or one whose end leaves the address space, is a guest sizing it or a guest gone wrong: not
 * decoded. */
static bool bar_decodes(const struct pci_func *f, unsigned bar, u64 addr)
{
	const struct pci_bar *b = &f->bar[bar];
	u32 command = pci_get(f->cfg + PCI_COMMAND, 2);
	if (b->kind == PCI_BAR_NONE ||
	    !(command & (b->kind == PCI_BAR_IO ? PCI_COMMAND_IO : PCI_COMMAND_MEMORY)))
		return false;
	u64 limit = b->kind == PCI_BAR_IO ? 0x10000 : b->kind == PCI_BAR_MEM32 ? BIT64(32) : BIT64(52);
	return addr && range_within(addr, b->region.size, limit);
}

static void unmap_bar(struct pci_func *f, unsigned bar)
{
	struct pci_bar *b = &f->bar[bar];
	bus_del(bar_bus(f, b), &b->region);
	b->mapped = b->region.enabled = false;
	if (f->ops->bar_mapped)
		f->ops->bar_mapped(f, bar);
}

static void map_bar(struct pci_func *f, unsigned bar, u64 addr)
{
	struct pci_bar *b = &f->bar[bar];
	b->region.base = addr;
	b->region.enabled = true;
	if (bus_add(bar_bus(f, b), &b->region)) {
		b->region.enabled =
		    false; /* the guest put it over something else: nobody answers, as with a bus conflict */
		log_msg(LOG_DEBUG, "pci slot %u BAR %u: %#llx is taken", f->slot, bar,
			(unsigned long long)addr);
		return;
	}
	b->mapped = true;
	if (f->ops->bar_mapped)
		f->ops->bar_mapped(f, bar);
}

static void update_bars(struct pci_func *f)
{
	for (unsigned i = 0; i < PCI_BARS; i++) {
		struct pci_bar *b = &f->bar[i];
		u64 addr = bar_address(f, i);
		bool want = bar_decodes(f, i, addr);
		if (b->mapped && (!want || b->region.base != addr))
			unmap_bar(f, i);
		if (want && !b->mapped)
			map_bar(f, i, addr);
	}
}

/* ---- access ---- */
static bool touches(unsigned off, unsigned size, unsigned first, unsigned end)
{
	return off < end && off + size > first;
}

u32 pci_func_cfg_read_locked(struct pci_func *f, unsigned off, unsigned size)
{
	if (f->ops->cfg_reading)
		f->ops->cfg_reading(f, off, size);
	return pci_get(f->cfg + off, size);
}

void pci_func_cfg_write_locked(struct pci_func *f, unsigned off, unsigned size, u32 v)
{
	for (unsigned i = 0; i < size; i++) {
		u8 mask = f->writable[off + i];
		f->cfg[off + i] = (f->cfg[off + i] & ~mask) | ((v >> 8 * i) & mask);
	}
	if (touches(off, size, PCI_COMMAND, PCI_COMMAND + 2) ||
	    touches(off, size, PCI_BASE_ADDRESS_0, PCI_CARDBUS_CIS))
		update_bars(f);
	if (f->msix.count &&
	    touches(off, size, f->msix.cap + PCI_MSIX_FLAGS, f->msix.cap + PCI_MSIX_FLAGS + 2))
		pci_msix_control_written(f);
	if (f->ops->cfg_written)
		f->ops->cfg_written(f, off, size);
}

void pci_intx(struct pci_func *f, bool level)
{
	pci_host_intx(f->host, f->slot, level);
}

void pci_func_reset(struct pci_func *f)
{
	pci_host_lock(f->host);
	memcpy(f->cfg, f->reset_value, sizeof(f->cfg));
	update_bars(f);
	if (f->msix.count)
		pci_msix_reset(f);
	pci_host_unlock(f->host);
	pci_intx(f, false);
}

void pci_func_unplug(struct pci_func *f)
{
	if (f->plugged) {
		pci_host_lock(f->host);
		for (unsigned i = 0; i < PCI_BARS; i++)
			if (f->bar[i].mapped)
				unmap_bar(f, i);
		pci_host_unlock(f->host);
		pci_intx(f, false);
		pci_host_release_slot(f->host, f);
		f->plugged = false;
	}
	pci_msix_fini(f);
	pthread_mutex_destroy(&f->msix.lock);
}
