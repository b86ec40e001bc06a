/*
 * A stopped guest's memory by linear address, as its own page tables say, without its help: what the debugger, the
 * autopsy and the profiler look through. Nothing here changes accessed or dirty bits; nothing trusts what it reads.
 */
#ifndef DEBUG_INSPECT_H
#define DEBUG_INSPECT_H

#include <linux/kvm.h>
#include "base/types.h"
#include "devices/guestmem.h"

/* What a walk needs of a vCPU: KVM_GET_SREGS. The vCPU is outside the guest (vcpus_hold()). */
struct inspect {
	const struct guestmem *ram;
	struct kvm_sregs s;
};

#define INSPECT_LEVELS 4
enum inspect_end { WALK_MAPPED, WALK_NOT_PRESENT, WALK_RESERVED, WALK_NO_RAM, WALK_NOT_CANONICAL };
struct inspect_walk {
	u64 linear;
	u8 nsteps;
	struct inspect_step {
		u8 level;   /* 4: PML4E, 3: PDPTE, 2: PDE, 1: PTE (SDM 3A 4.5); of the entry that was read */
		u8 size;    /* of the entry, bytes: 4 or 8 */
		gpa_t at;   /* where the entry is */
		u64 entry;
		bool leaf;
	} step[INSPECT_LEVELS];
	enum inspect_end end;
	gpa_t gpa;          /* of linear itself; WALK_MAPPED */
	u64 page_size;      /* 0 with paging off */
	bool writable, user, nx; /* of the whole path */
};

/* Walks the page tables for a linear address; with paging off the address is the GPA. */
void inspect_walk(const struct inspect *in, u64 linear, struct inspect_walk *w);
const char *inspect_end_text(enum inspect_end end);
/* Names of the bits set in a page-table entry: "P RW US A D PS G NX". Returns buf. */
const char *inspect_entry_text(const struct inspect_step *s, char *buf, size_t n);

/* Guest physical memory; false: some of it is not RAM, nothing was copied. */
bool inspect_read_physical(const struct guestmem *ram, gpa_t a, void *buf, u64 n);
bool inspect_write_physical(const struct guestmem *ram, gpa_t a, const void *buf, u64 n);
/* By linear address: the number of bytes that were done, less than n if a page is not mapped. Writing ignores page permissions, as
 * debuggers do, and has the engine drop what it translated of that page. */
u64 inspect_read(const struct inspect *in, u64 linear, void *buf, u64 n);
u64 inspect_write(const struct inspect *in, u64 linear, const void *buf, u64 n);
/* Width of code at CS:RIP in bits: 16, 32 or 64. */
unsigned inspect_code_bits(const struct kvm_sregs *s);

#endif
