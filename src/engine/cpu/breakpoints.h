/* Debug-register breakpoints (SDM 3B 17.2): matched in software, by the run loop and by slow accesses. */
#ifndef ENGINE_CPU_BREAKPOINTS_H
#define ENGINE_CPU_BREAKPOINTS_H

#include "engine/vcpu.h"

/* An instruction breakpoint is armed at the linear address: sets its B bits in *dr6. */
bool dbg_insn_breakpoint(const struct vcpu *cpu, gva_t rip, u64 *dr6);
/* An access has been made: remembers the data breakpoints it hit. */
void dbg_data_access(struct vcpu *cpu, gva_t a, unsigned size, bool write);
/* What was hit since the last call (DR6 B bits); the #DB is a trap after the instruction. */
u64 dbg_data_take(struct vcpu *cpu);

#endif
