/*
 * MSI-X (PCI Local Bus Specification 3.0, 6.8.2). Table and pending bit array share one BAR: the table at 0,
 * the PBA in its upper half. A vector that is unmasked owns a route (an eventfd that the interrupt controller
 * listens to), so that firing it is one write from any thread. Routes are made when a vector is first
 * unmasked and changed when its address or data did.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/base.h"

#include "devices/pci_int.h"

enum { BAR_SIZE = 4096, PBA_OFFSET = 2048 };
_Static_assert(PCI_MSIX_MAX *PCI_MSIX_ENTRY_SIZE <= PBA_OFFSET, "table fits");

static void deliver_locked(struct pci_func *f, struct pci_msix_vector *v)
{
	v->pending = false;
	if (v->routed && machine_msi_route_fire(f->dev.machine, &v->route))
		return;
	machine_msi(f->dev.machine, v->addr, v->data);
}

static bool open_locked(const struct pci_msix *x, const struct pci_msix_vector *v)
{
	return x->enabled && !x->masked && !(v->control & PCI_MSIX_ENTRY_CTRL_MASKBIT);
}

/* ---- sources ---- */
static void bind_locked(struct pci_func *f, struct pci_msix_source *s)
{
	struct machine *m = f->dev.machine;
	const struct pci_msix_vector *v = s->vector < f->msix.count ? &f->msix.vector[s->vector] : NULL;
	bool want = v && v->routed && open_locked(&f->msix, v);
	if (s->bound && (!want || v->route.gsi != s->to.gsi)) {
		machine_msi_route_bind(m, &s->to, s->fd, false);
		s->bound = false;
		if (loop_add(machine_loop(m), s->fd, EPOLLIN, s->cb, s->arg))
			log_msg(LOG_DEBUG, "pci slot %u: an interrupt cannot be watched", f->slot);
	}
	if (want && !s->bound) {
		loop_del(machine_loop(m), s->fd);
		s->to = v->route;
		s->bound = machine_msi_route_bind(m, &s->to, s->fd, true) == 0;
		if (!s->bound && loop_add(machine_loop(m), s->fd, EPOLLIN, s->cb, s->arg))
			log_msg(LOG_DEBUG, "pci slot %u: an interrupt cannot be watched", f->slot);
	}
}

static void bind_all_locked(struct pci_func *f)
{
	for (struct pci_msix_source *s = f->msix.sources; s; s = s->next)
		bind_locked(f, s);
}

int pci_msix_source_add(struct pci_func *f, struct pci_msix_source *s)
{
	int r = loop_add(machine_loop(f->dev.machine), s->fd, EPOLLIN, s->cb, s->arg);
	if (r)
		return r;
	s->next = f->msix.sources;
	f->msix.sources = s;
	return 0;
}

void pci_msix_source_set(struct pci_func *f, struct pci_msix_source *s, u16 vector)
{
	pthread_mutex_lock(&f->msix.lock);
	s->vector = vector;
	bind_locked(f, s);
	pthread_mutex_unlock(&f->msix.lock);
}

/* ---- routes ---- */
/* Takes the route away: nobody may be bound to it any more. */
static void unroute_locked(struct pci_func *f, struct pci_msix_vector *v)
{
	struct msi_route r = v->route;
	v->routed = false;
	bind_all_locked(f);
	machine_msi_route_del(f->dev.machine, &r);
}

/* Brings the route up to date with an open vector's address and data. Without a route, delivery goes by
 * machine_msi. */
static void route_locked(struct pci_func *f, struct pci_msix_vector *v)
{
	struct machine *m = f->dev.machine;
	if (v->routed && v->routed_addr == v->addr && v->routed_data == v->data)
		return;
	if (!v->routed)
		v->routed = machine_msi_route_add(m, &v->route, v->addr, v->data) == 0;
	else if (machine_msi_route_set(m, &v->route, v->addr, v->data))
		unroute_locked(f, v);
	v->routed_addr = v->addr;
	v->routed_data = v->data;
}

static void refresh_locked(struct pci_func *f, struct pci_msix_vector *v)
{
	if (open_locked(&f->msix, v)) {
		route_locked(f, v);
		if (v->pending)
			deliver_locked(f, v);
	}
	bind_all_locked(f);
}

bool pci_msix_enabled(struct pci_func *f)
{
	pthread_mutex_lock(&f->msix.lock);
	bool on = f->msix.enabled;
	pthread_mutex_unlock(&f->msix.lock);
	return on;
}

void pci_msix_fire(struct pci_func *f, unsigned vector)
{
	struct pci_msix *x = &f->msix;
	pthread_mutex_lock(&x->lock);
	if (vector < x->count && x->enabled) {
		struct pci_msix_vector *v = &x->vector[vector];
		if (open_locked(x, v))
			deliver_locked(f, v);
		else
			v->pending = true;
	}
	pthread_mutex_unlock(&x->lock);
}

void pci_msix_control_written(struct pci_func *f)
{
	struct pci_msix *x = &f->msix;
	u32 flags = pci_get(f->cfg + x->cap + PCI_MSIX_FLAGS, 2);
	pthread_mutex_lock(&x->lock);
	x->enabled = flags & PCI_MSIX_FLAGS_ENABLE;
	x->masked = flags & PCI_MSIX_FLAGS_MASKALL;
	for (unsigned i = 0; i < x->count; i++)
		refresh_locked(f, &x->vector[i]);
	pthread_mutex_unlock(&x->lock);
}

/* ---- the BAR ---- */
static u32 table_get(const struct pci_msix_vector *v, unsigned field)
{
	switch (field) {
	case PCI_MSIX_ENTRY_LOWER_ADDR:
		return (u32)v->addr;
	case PCI_MSIX_ENTRY_UPPER_ADDR:
		return (u32)(v->addr >> 32);
	case PCI_MSIX_ENTRY_DATA:
		return v->data;
	default:
		return v->control;
	}
}

static void table_put(struct pci_msix_vector *v, unsigned field, u32 value)
{
	switch (field) {
	case PCI_MSIX_ENTRY_LOWER_ADDR:
		v->addr = (v->addr & ~0xffffffffull) | (value & ~3u);
		break;
	case PCI_MSIX_ENTRY_UPPER_ADDR:
		v->addr = (u32)v->addr | (u64)value << 32;
		break;
	case PCI_MSIX_ENTRY_DATA:
		v->data = value;
		break;
	default:
		v->control = value & PCI_MSIX_ENTRY_CTRL_MASKBIT;
	}
}

static u32 pba_get(const struct pci_msix *x, unsigned first)
{
	u32 bits = 0;
	for (unsigned i = 0; i < 32 && first + i < x->count; i++)
		bits |= (u32)x->vector[first + i].pending << i;
	return bits;
}

/* Dwords; qword accesses, which the specification allows too, are split by the bus. */
static u64 msix_read(void *dev, u64 offset, unsigned size)
{
	struct pci_func *f = dev;
	struct pci_msix *x = &f->msix;
	unsigned n = (unsigned)offset / PCI_MSIX_ENTRY_SIZE;
	u32 v = 0;
	pthread_mutex_lock(&x->lock);
	if (offset >= PBA_OFFSET)
		v = pba_get(x, (unsigned)(offset - PBA_OFFSET) * 8);
	else if (n < x->count)
		v = table_get(&x->vector[n], offset % PCI_MSIX_ENTRY_SIZE & ~3u);
	pthread_mutex_unlock(&x->lock);
	return v;
}

static void msix_write(void *dev, u64 offset, unsigned size, u64 value)
{
	struct pci_func *f = dev;
	struct pci_msix *x = &f->msix;
	unsigned n = (unsigned)offset / PCI_MSIX_ENTRY_SIZE;
	if (offset >= PBA_OFFSET || (offset & 3))
		return;
	pthread_mutex_lock(&x->lock);
	if (n < x->count) {
		table_put(&x->vector[n], offset % PCI_MSIX_ENTRY_SIZE, (u32)value);
		refresh_locked(f, &x->vector[n]);
	}
	pthread_mutex_unlock(&x->lock);
}

static const struct region_ops msix_region_ops = {.read = msix_read, .write = msix_write};

/* ---- lifecycle ---- */
int pci_msix_init(struct pci_func *f, unsigned vectors, unsigned bar)
{
	struct pci_msix *x = &f->msix;
	assert(vectors > 0 && vectors <= PCI_MSIX_MAX);
	x->vector = calloc(vectors, sizeof(*x->vector));
	if (!x->vector)
		return -ENOMEM;
	x->count = vectors;
	x->bar = bar;
	x->cap = pci_func_add_cap(f, PCI_CAP_ID_MSIX, PCI_CAP_MSIX_SIZEOF);
	pci_put(f->cfg + x->cap + PCI_MSIX_FLAGS, 2, vectors - 1);
	pci_put(f->writable + x->cap + PCI_MSIX_FLAGS, 2, PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL);
	pci_put(f->cfg + x->cap + PCI_MSIX_TABLE, 4, bar);
	pci_put(f->cfg + x->cap + PCI_MSIX_PBA, 4, PBA_OFFSET | bar);
	pci_func_add_bar(f, bar, PCI_BAR_MEM32, BAR_SIZE, "msix", 4, 4, &msix_region_ops, f);
	for (unsigned i = 0; i < vectors; i++)
		x->vector[i].control = PCI_MSIX_ENTRY_CTRL_MASKBIT;
	return 0;
}

static void drop_routes_locked(struct pci_func *f)
{
	for (unsigned i = 0; i < f->msix.count; i++) {
		struct pci_msix_vector *v = &f->msix.vector[i];
		if (v->routed)
			unroute_locked(f, v);
		*v = (struct pci_msix_vector){.control = PCI_MSIX_ENTRY_CTRL_MASKBIT};
	}
}

void pci_msix_reset(struct pci_func *f)
{
	pthread_mutex_lock(&f->msix.lock);
	f->msix.enabled = f->msix.masked = false;
	drop_routes_locked(f);
	pthread_mutex_unlock(&f->msix.lock);
}

void pci_msix_fini(struct pci_func *f)
{
	if (!f->msix.count)
		return;
	pci_msix_reset(f);
	free(f->msix.vector);
	f->msix.vector = NULL;
	f->msix.count = 0;
}
