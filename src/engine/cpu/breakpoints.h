/* Debug-register breakpoints (SDM 3B 17.2): matched in software, by the run loop and by slow accesses. */
#ifndef ENGINE_CPU_BREAKPOINTS_H
#define ENGINE_CPU_BREAKPOINTS_H

#include "engine/vcpu.h"

/* An instruction breakpoint is armed at the linear address: sets its B bits in *dr6. */
bool dbg_insn_breakpoint(const struct vcpu *cpu, gva_t rip, u64 *dr6);
/* Breakpoints are enabled, the debugger's or the guest's. */
static inline bool dbg_armed(const struct vcpu *cpu)
{
	return (cpu->guest_debug & KVM_GUESTDBG_USE_HW_BP ? cpu->guest_debug_dr[7] : cpu->dr7) & 0xff;
}
/* Instructions are to be executed one by one here: an instruction breakpoint lies on the page, or RF hides one. */
bool dbg_page_armed(const struct vcpu *cpu, gva_t rip);
bool dbg_any_insn(const struct vcpu *cpu);
/* An access is about to be made and can still be taken back: if it hits, it is, and the run loop does the instruction by itself. */
void dbg_data_before(struct vcpu *cpu, gva_t a, unsigned size, bool write);
/* An access has been made: remembers the data breakpoints it hit. */
void dbg_data_access(struct vcpu *cpu, gva_t a, unsigned size, bool write);
/* What was hit since the last call (DR6 B bits); the #DB is a trap after the instruction. */
u64 dbg_data_take(struct vcpu *cpu);

#endif
