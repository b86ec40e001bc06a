/* Debug registers (SDM 3B 17.2). */
#include "engine/cpu/cpu_int.h"

/* DR4 and DR5 are DR6 and DR7 unless CR4.DE makes them undefined. */
static unsigned alias(struct vcpu *cpu, unsigned n)
{
	if (n > 7 || ((n == 4 || n == 5) && (cpu->cr4 & CR4_DE)))
		cpu_raise(cpu, EXC_UD);
	if (cpu->dr7 & DR7_GD)
		cpu_raise_db(cpu, DR6_BD);
	return n == 4 || n == 5 ? n + 2 : n;
}

u64 cpu_get_dr(struct vcpu *cpu, unsigned n)
{
	n = alias(cpu, n);
	return n < 4 ? cpu->dr[n] : n == 6 ? cpu->dr6 : cpu->dr7;
}

void cpu_set_dr(struct vcpu *cpu, unsigned n, u64 v)
{
	u64 enabled = cpu->dr7 & 0xff;

	n = alias(cpu, n);
	if (n >= 6 && v >> 32)
		cpu_raise_gp(cpu, 0);
	if (n < 4)
		cpu->dr[n] = v;
	else if (n == 6)
		cpu->dr6 = (v & (0xf | DR6_BD | DR6_BS | DR6_BT)) | DR6_FIXED;
	else
		cpu->dr7 = (v & 0xffff2bff) | DR7_FIXED;
	if (n != 6 && (enabled || (cpu->dr7 & 0xff)))
		mmu_flush_all(cpu); /* pages with a data breakpoint have no TLB entries */
}
