/* What doppel top knows of VMs at one moment, and how two such moments are shown. */
#ifndef CLI_TOP_H
#define CLI_TOP_H

#include "base/base.h"
#include "vmm/instance.h"

#define TOP_VMS  64
#define TOP_CPUS 64

/* Counters of a vCPU: X(FIELD, group and key in x-doppel-top, heading, width). Shown by the second. */
#define TOP_COLUMNS(X)                                                                                           \
	X(INSNS, "engine", "insns", "insn/s", 8)                                                                 \
	X(EXITS, "exits", "total", "exits", 7)                                                                   \
	X(IO, "exits", "io", "io", 6)                                                                            \
	X(MMIO, "exits", "mmio", "mmio", 6)                                                                      \
	X(INTR, "exits", "intr", "intr", 5)                                                                      \
	X(HALTS, "engine", "halts", "hlt", 6)                                                                    \
	X(IRQS, "engine", "interrupts", "irq", 6)                                                                \
	X(EXCEPTIONS, "engine", "exceptions", "exc", 7)                                                          \
	X(WALKS, "engine", "tlb_walks", "tlbmiss", 7)                                                            \
	X(BLOCKS, "engine", "tr_blocks", "transl", 6)

enum top_counter {
#define X(field, group, key, head, width) TOP_##field,
	TOP_COLUMNS(X)
#undef X
	TOP_COUNTERS
};

struct top_cpu {
	double counter[TOP_COUNTERS];
	double sample[4]; /* user, kernel, monitor, idle */
	bool sampled;
};
struct top_vm {
	char name[INSTANCE_NAME_MAX + 1], engine[16], state[16];
	u64 memory, touched, own, up_ms;
	u32 ncpus;
	struct top_cpu cpu[TOP_CPUS];
};
struct top {
	const char *only; /* NULL: all */
	bool insns;       /* translated code counts */
	u64 ms;           /* when */
	u32 n;
	struct top_vm vm[TOP_VMS];
};

void top_table(const struct top *old, const struct top *now);
void top_screen(const struct top *old, const struct top *now, u16 cols, u16 rows); /* in place, cut to what there is */
void top_json(const struct top *old, const struct top *now);

#endif
