/* A machine for device tests: real buses, memory and loop; interrupts and eventfd routes are recorded. */
#ifndef TESTS_FAKE_MACHINE_H
#define TESTS_FAKE_MACHINE_H

#include "devices/bus.h"
#include "devices/guestmem.h"
#include "devices/machine_if.h"
#include "devices/pci.h"

enum { FAKE_GSIS = 24, FAKE_ROUTES = 64, FAKE_IOEVENTFDS = 64 };
#define FAKE_RAM      0x400000ull
#define FAKE_HIGH     0x100000000ull /* a second slot, 1 MiB */
#define FAKE_HIGH_RAM 0x100000ull

struct fake_route {
	bool used;
	u64 addr;
	u32 data;
	struct msi_route *route;
	int bound[8]; /* other eventfds, + 1 */
};
struct fake_ioeventfd {
	u64 addr;
	u32 len;
	int fd;
	bool used;
};
struct machine {
	struct bus *pio, *mmio;
	struct loop *loop;
	struct guestmem mem;
	u8 *ram, *high;
	bool irq[FAKE_GSIS];
	unsigned irq_edges[FAKE_GSIS];
	struct fake_route route[FAKE_ROUTES];
	struct fake_ioeventfd ioeventfd[FAKE_IOEVENTFDS];
	bool refuse_ioeventfd, refuse_routes;
	unsigned msis; /* by machine_msi */
	u32 last_msi_data;
	unsigned requests;
	enum machine_event last_event;
	int last_code;
	u64 written; /* bytes reported by guest_written */
	u64 written_lo, written_hi;
	struct device *devices;
};

struct machine *fake_machine_new(void);
void fake_machine_free(struct machine *m); /* destroys the devices, newest first */
void fake_reset(struct machine *m);
void fake_run(struct machine *m); /* the loop, until it has nothing to do */
bool fake_run_until(struct machine *m, bool (*done)(void *arg), void *arg); /* at most 5 s */

u8 in8(struct machine *m, u16 port);
u32 in32(struct machine *m, u16 port);
void out8(struct machine *m, u16 port, u8 v);
void out32(struct machine *m, u16 port, u32 v);
u32 mmio_read(struct machine *m, u64 a, unsigned size);
void mmio_write(struct machine *m, u64 a, unsigned size, u64 v); /* ioeventfds first, then the bus */
/* signals on the eventfd of the route with this data since the last call */
u64 fake_msis(struct machine *m, u32 data);

u32 cfg_read(struct machine *m, unsigned slot, unsigned off, unsigned size);
void cfg_write(struct machine *m, unsigned slot, unsigned off, unsigned size, u32 v);

extern const struct pci_host_config fake_pci_config;

#endif
