/* Counters of one vCPU: an X-macro list; all appear in `doppel stats --json` by these names. */
#ifndef KVM_STATS_H
#define KVM_STATS_H

#include "base/types.h"

#define VCPU_STATS(X)                                                                                            \
	X(insns, "guest instructions retired")                                                                   \
	X(exits, "returns from KVM_RUN")                                                                         \
	X(exit_io, "exits for port I/O")                                                                         \
	X(exit_mmio, "exits for memory-mapped I/O")                                                              \
	X(exit_hlt, "exits for HLT")                                                                             \
	X(exit_intr, "exits for a signal")                                                                       \
	X(exit_other, "other exits")                                                                             \
	X(halts, "HLT waits inside the engine")                                                                  \
	X(exceptions, "exceptions delivered")                                                                    \
	X(page_faults, "of these page faults")                                                                   \
	X(syscalls, "SYSCALL instructions")                                                                      \
	X(interrupts, "external interrupts delivered")                                                           \
	X(nmis, "NMIs delivered")                                                                                \
	X(tlb_misses, "TLB slow paths")                                                                          \
	X(tlb_walks, "page-table walks")                                                                         \
	X(tlb_flushes, "TLB flushes")                                                                            \
	X(blocks_decoded, "blocks decoded")                                                                      \
	X(blocks_run, "blocks entered through the slow lookup")                                                  \
	X(smc_invalidations, "writes to pages that hold decoded code")                                                     \
	X(vec_stubs, "host stubs made for vector instructions")                                                  \
	X(tr_blocks, "blocks translated")                                                                        \
	X(tr_entries, "entries into translated code")                                                            \
	X(tr_misses, "leaving it: no entry in the address tables")                                               \
	X(tr_interpreted, "of these interpreted instructions")                                                   \
	X(tr_emulated, "leaving it: instructions done by their handlers")                                        \
	X(tr_chained, "leaving it: direct jumps to chain")                                                       \
	X(tr_jumps, "leaving it: indirect jumps not cached")                                                     \
	X(tr_checked, "turns compared with the interpreter (--engine check)")                                    \
	X(tr_stale, "leaving it: the page does not hold that code any more")                                     \
	X(tr_faults, "leaving it: host faults")                                                                  \
	X(cell_spaces, "times an address space was moved to a cell (direct execution)")                         \
	X(cell_stops, "stops of user code in cells")                                                            \
	X(cell_faults, "of these for pages to be mapped there")                                                 \
	X(cell_unfit, "of these at code that is to be translated")                                              \
	X(cell_us, "microseconds of user code in cells")                                                        \
	X(rung, "sleeps ended by a process that serves a device")                                                 \
	X(spared, "halts that were over before the vCPU slept")                                                 \
	X(safepoints, "stops for another thread")                                                                \
	X(ioeventfds, "writes taken by an ioeventfd")                                                            \
	X(open_ports, "port accesses that nobody decodes, answered by the engine")                               \
	X(irq_injected, "interrupts accepted from irqfd, MSI or line")

struct vcpu_stats {
#define X(name, text) u64 name;
	VCPU_STATS(X)
#undef X
};

#endif
