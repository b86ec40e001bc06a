/* A machine that is only RAM: what loaders need. Slots as a VM has them, small. */
#ifndef TESTS_FAKE_GUEST_H
#define TESTS_FAKE_GUEST_H

#include "devices/guestmem.h"
#include "vmm/loader.h"

struct machine {
	struct guestmem ram;
	struct memmap map;
};
int fake_guest_init(struct machine *m, u64 memory);
void fake_guest_free(struct machine *m);

#endif
