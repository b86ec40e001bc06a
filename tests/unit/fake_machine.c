#include "fake_machine.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

const struct pci_host_config fake_pci_config = {.ecam_base = 0xe0000000,
						.ecam_size = 0x100000,
						.mem32_base = 0xd0000000,
						.mem32_size = 0x10000000,
						.mem64_base = 0x800000000ull,
						.mem64_size = 0x100000000ull,
						.io_base = 0xc000,
						.io_size = 0x1000};

static void fake_written(void *arg, gpa_t a, u64 n)
{
	struct machine *m = arg;
	m->written += n;
	m->written_lo = MIN(m->written_lo, a);
	m->written_hi = MAX(m->written_hi, a + n);
}

struct machine *fake_machine_new(void)
{
	struct machine *m = calloc(1, sizeof(*m));
	m->pio = bus_new();
	m->mmio = bus_new();
	m->loop = loop_new();
	m->mem.slot[0].fd = m->mem.slot[1].fd = memfd_create("fake-ram", MFD_CLOEXEC);
	m->mem.slot[1].offset = FAKE_RAM;
	if (ftruncate(m->mem.slot[0].fd, FAKE_RAM + FAKE_HIGH_RAM))
		abort();
	m->ram = mmap(NULL, FAKE_RAM, PROT_READ | PROT_WRITE, MAP_SHARED, m->mem.slot[0].fd, 0);
	m->high = mmap(NULL, FAKE_HIGH_RAM, PROT_READ | PROT_WRITE, MAP_SHARED, m->mem.slot[0].fd, FAKE_RAM);
	m->mem.nslots = 2;
	m->mem.slot[0].gpa = 0;
	m->mem.slot[0].size = FAKE_RAM;
	m->mem.slot[0].host = m->ram;
	m->mem.slot[1].gpa = FAKE_HIGH;
	m->mem.slot[1].size = FAKE_HIGH_RAM;
	m->mem.slot[1].host = m->high;
	m->mem.written = fake_written;
	m->mem.arg = m;
	m->written_lo = UINT64_MAX;
	return m;
}

void fake_machine_free(struct machine *m)
{
	while (m->devices) {
		struct device *d = m->devices;
		m->devices = d->next;
		d->cls->destroy(d);
	}
	for (int i = 0; i < FAKE_ROUTES; i++)
		if (m->route[i].used)
			abort(); /* a device leaked a route */
	for (int i = 0; i < FAKE_IOEVENTFDS; i++)
		if (m->ioeventfd[i].used)
			abort();
	bus_free(m->pio);
	bus_free(m->mmio);
	loop_free(m->loop);
	close(m->mem.slot[0].fd);
	munmap(m->ram, FAKE_RAM);
	munmap(m->high, FAKE_HIGH_RAM);
	free(m);
}

void fake_reset(struct machine *m)
{
	for (struct device *d = m->devices; d; d = d->next)
		d->cls->reset(d);
}

/* ---- the loop ---- */
struct rounds {
	struct machine *m;
	int left;
};

static void one_round(void *arg)
{
	struct rounds *r = arg;
	if (r->left-- > 0)
		loop_call(r->m->loop, one_round, r);
	else
		loop_stop(r->m->loop, 0);
}

void fake_run(struct machine *m)
{
	struct rounds r = {.m = m, .left = 12};
	loop_call(m->loop, one_round, &r);
	loop_run(m->loop);
}

bool fake_run_until(struct machine *m, bool (*done)(void *arg), void *arg)
{
	for (int i = 0; i < 5000 && !done(arg); i++) {
		fake_run(m);
		usleep(1000);
	}
	return done(arg);
}

/* ---- machine_if.h ---- */
struct bus *machine_pio(struct machine *m)
{
	return m->pio;
}

struct bus *machine_mmio(struct machine *m)
{
	return m->mmio;
}

struct loop *machine_loop(struct machine *m)
{
	return m->loop;
}

struct guestmem *machine_guestmem(struct machine *m)
{
	return &m->mem;
}

void machine_irq(struct machine *m, u32 gsi, bool level)
{
	if (level && !m->irq[gsi])
		m->irq_edges[gsi]++;
	m->irq[gsi] = level;
}

int machine_msi(struct machine *m, u64 addr, u32 data)
{
	m->msis++;
	m->last_msi_data = data;
	return 1;
}

int machine_msi_route_add(struct machine *m, struct msi_route *r, u64 addr, u32 data)
{
	if (m->refuse_routes)
		return -ENOSPC;
	for (u32 i = 0; i < FAKE_ROUTES; i++) {
		if (m->route[i].used)
			continue;
		r->gsi = FAKE_GSIS + i;
		r->eventfd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
		m->route[i] = (struct fake_route){.used = true, .addr = addr, .data = data, .route = r};
		return 0;
	}
	return -ENOSPC;
}

int machine_msi_route_set(struct machine *m, struct msi_route *r, u64 addr, u32 data)
{
	m->route[r->gsi - FAKE_GSIS].addr = addr;
	m->route[r->gsi - FAKE_GSIS].data = data;
	return 0;
}

int machine_msi_route_bind(struct machine *m, const struct msi_route *r, int fd, bool on)
{
	int *bound = m->route[r->gsi - FAKE_GSIS].bound;
	for (u32 i = 0; i < ARRAY_SIZE(m->route[0].bound); i++) {
		if (bound[i] != (on ? 0 : fd + 1))
			continue;
		bound[i] = on ? fd + 1 : 0;
		return 0;
	}
	return -ENOSPC;
}

bool machine_msi_route_fire(struct machine *m, const struct msi_route *r)
{
	const u64 one = 1;

	return write(r->eventfd, &one, sizeof(one)) == sizeof(one);
}

int machine_window_add(struct machine *m, u64 size, int *sock)
{
	return -ENOTSUP;
}

int machine_window_place(struct machine *m, int window, gpa_t gpa)
{
	return -ENOTSUP;
}

int machine_wake_page(struct machine *m, int eventfd, u32 *source)
{
	return -1;
}

void machine_msi_route_del(struct machine *m, struct msi_route *r)
{
	close(r->eventfd);
	m->route[r->gsi - FAKE_GSIS].used = false;
}

int machine_ioeventfd(struct machine *m, bool pio, u64 addr, u32 len, int fd, bool add)
{
	if (m->refuse_ioeventfd)
		return -ENOSPC;
	for (int i = 0; i < FAKE_IOEVENTFDS; i++) {
		struct fake_ioeventfd *e = &m->ioeventfd[i];
		if (add && !e->used) {
			*e = (struct fake_ioeventfd){.addr = addr, .len = len, .fd = fd, .used = true};
			return 0;
		}
		if (!add && e->used && e->addr == addr && e->fd == fd) {
			e->used = false;
			return 0;
		}
	}
	return -ENOENT;
}

void machine_request(struct machine *m, enum machine_event e, int code)
{
	m->requests++;
	m->last_event = e;
	m->last_code = code;
}

void machine_add_device(struct machine *m, struct device *d)
{
	d->next = m->devices;
	m->devices = d;
}

/* ---- the guest's side ---- */
u8 in8(struct machine *m, u16 port)
{
	u8 v;
	bus_read(m->pio, port, &v, 1);
	return v;
}

u32 in32(struct machine *m, u16 port)
{
	u32 v;
	bus_read(m->pio, port, &v, 4);
	return v;
}

void out8(struct machine *m, u16 port, u8 v)
{
	bus_write(m->pio, port, &v, 1);
}

void out32(struct machine *m, u16 port, u32 v)
{
	bus_write(m->pio, port, &v, 4);
}

u32 mmio_read(struct machine *m, u64 a, unsigned size)
{
	u32 v = 0;
	bus_read(m->mmio, a, &v, size);
	return v;
}

void mmio_write(struct machine *m, u64 a, unsigned size, u64 v)
{
	const u64 one = 1;
	for (int i = 0; i < FAKE_IOEVENTFDS; i++) {
		struct fake_ioeventfd *e = &m->ioeventfd[i];
		if (e->used && e->addr == a && e->len == size) {
			if (write(e->fd, &one, 8) != 8)
				abort();
			return;
		}
	}
	bus_write(m->mmio, a, &v, size);
}

u64 fake_msis(struct machine *m, u32 data)
{
	u64 n = 0, all = 0;
	for (int i = 0; i < FAKE_ROUTES; i++) {
		struct fake_route *r = &m->route[i];
		if (!r->used || r->data != data)
			continue;
		if (read(r->route->eventfd, &n, 8) == 8)
			all += n;
		for (u32 j = 0; j < ARRAY_SIZE(r->bound); j++)
			if (r->bound[j] && read(r->bound[j] - 1, &n, 8) == 8)
				all += n;
	}
	return all;
}

u32 cfg_read(struct machine *m, unsigned slot, unsigned off, unsigned size)
{
	u32 v = 0;
	out32(m, 0xcf8, 0x80000000 | slot << 11 | (off & 0xfc));
	bus_read(m->pio, 0xcfc + (off & 3), &v, size);
	return v;
}

void cfg_write(struct machine *m, unsigned slot, unsigned off, unsigned size, u32 v)
{
	out32(m, 0xcf8, 0x80000000 | slot << 11 | (off & 0xfc));
	bus_write(m->pio, 0xcfc + (off & 3), &v, size);
}
