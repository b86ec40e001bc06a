/* The machine's RAM as the VMM sees it: slots of guest physical memory and where they are mapped here. */
#ifndef DEVICES_GUESTMEM_H
#define DEVICES_GUESTMEM_H

#include "devices/machine_if.h"

#define GUESTMEM_SLOTS 8

struct guestmem {
	u32 nslots;
	struct {
		gpa_t gpa;
		u64 size;
		u8 *host;
		int fd; /* the memory as a file, for other processes; and where in it */
		u64 offset;
	} slot[GUESTMEM_SLOTS];
	struct {
		gpa_t gpa;
		u64 size;
	} windows; /* where windows are (base/window.h): memory for the guest, but not for its devices; size 0: there are none */
	/* told of every write by a device (translated code of those pages goes) */
	void (*written)(void *arg, gpa_t a, u64 n);
	void *arg;
};
/* For a process that writes guest memory, in guestmem.written: whether [a, a+n) has a page of which the engine has decoded code. attr: bytes of
 * attributes, one for each of the pages; those beyond have none. */
bool guest_holds_code(const u8 *attr, u64 pages, u8 code, gpa_t a, u64 n);
struct guestmem *machine_guestmem(struct machine *m); /* vmm/machine.c */

#endif
