/* Debug-register breakpoints. A debugger of the VMM (KVM_GUESTDBG_USE_HW_BP) takes the place of the guest's registers. */
#include "engine/cpu/breakpoints.h"

static bool by_debugger(const struct vcpu *cpu)
{
	return cpu->guest_debug & KVM_GUESTDBG_ENABLE && cpu->guest_debug & KVM_GUESTDBG_USE_HW_BP;
}

static u64 active_dr7(const struct vcpu *cpu)
{
	return by_debugger(cpu) ? cpu->guest_debug_dr[7] : cpu->dr7;
}

static u64 active_dr(const struct vcpu *cpu, unsigned n)
{
	return by_debugger(cpu) ? cpu->guest_debug_dr[n] : cpu->dr[n];
}

enum { RW_EXEC, RW_WRITE, RW_IO, RW_ACCESS };

static unsigned rw_field(u64 dr7, unsigned n)
{
	return dr7 >> (16 + 4 * n) & 3;
}

static unsigned length(u64 dr7, unsigned n)
{
	static const u8 bytes[] = {1, 2, 8, 4};

	return bytes[dr7 >> (18 + 4 * n) & 3];
}

bool dbg_insn_breakpoint(const struct vcpu *cpu, gva_t rip, u64 *dr6)
{
	u64 dr7 = active_dr7(cpu), hit = 0;

	for (unsigned n = 0; n < 4; n++)
		if (dr7 >> (2 * n) & 3 && rw_field(dr7, n) == RW_EXEC && active_dr(cpu, n) == rip)
			hit |= BIT64(n);
	*dr6 |= hit;
	return hit;
}

bool dbg_any_insn(const struct vcpu *cpu)
{
	u64 dr7 = active_dr7(cpu);

	for (unsigned n = 0; n < 4; n++)
		if (dr7 >> (2 * n) & 3 && rw_field(dr7, n) == RW_EXEC)
			return true;
	return false;
}

bool dbg_page_armed(const struct vcpu *cpu, gva_t rip)
{
	u64 dr7 = active_dr7(cpu);

	for (unsigned n = 0; n < 4; n++)
		if (dr7 >> (2 * n) & 3 && rw_field(dr7, n) == RW_EXEC &&
		    (cpu->rflags & FL_RF || !((active_dr(cpu, n) ^ rip) & PAGE_MASK)))
			return true;
	return false;
}

/* B bits of the data breakpoints that the access hits. */
static u64 data_hits(const struct vcpu *cpu, gva_t a, unsigned size, bool write)
{
	u64 dr7 = active_dr7(cpu), hit = 0;

	for (unsigned n = 0; unlikely(dr7 & 0xff) && n < 4; n++) {
		unsigned rw = rw_field(dr7, n), len = length(dr7, n);
		gva_t at = active_dr(cpu, n) & ~(u64)(len - 1);

		if (!(dr7 >> (2 * n) & 3) || !(rw == RW_ACCESS || (rw == RW_WRITE && write)))
			continue;
		if (a < at + len && at < a + size)
			hit |= BIT64(n);
	}
	return hit;
}

void dbg_data_before(struct vcpu *cpu, gva_t a, unsigned size, bool write)
{
	if (likely(!dbg_armed(cpu)) || !cpu->restartable || !data_hits(cpu, a, size, write))
		return;
	cpu->restartable = false;
	cpu->step_once = true;
	__builtin_longjmp(cpu->unwind, 1);
}

void dbg_data_access(struct vcpu *cpu, gva_t a, unsigned size, bool write)
{
	if (unlikely(dbg_armed(cpu)))
		cpu->dr6_pending |= data_hits(cpu, a, size, write);
}

u64 dbg_data_take(struct vcpu *cpu)
{
	u64 hit = cpu->dr6_pending;

	cpu->dr6_pending = 0;
	return hit;
}
