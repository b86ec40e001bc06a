/* RFLAGS: PUSHF POPF CLI STI with IOPL, V86, VME and PVI rules (SDM 2; SDM 3B 20.3, 20.4). */
#include "engine/cpu/cpu_int.h"

void flags_write(struct vcpu *cpu, u64 value, u64 mask)
{
	cpu->rflags = (cpu->rflags & ~mask) | (value & mask) | FL_ONE;
}

/* VIF stands in for IF: V86 with VME, or CPL 3 with PVI, and an IOPL that does not allow the real thing. */
static bool virtual_if(const struct vcpu *cpu)
{
	if (cpu->mode.vm86)
		return cpu_iopl(cpu) < 3 && (cpu->cr4 & CR4_VME);
	return cpu_cpl(cpu) == 3 && cpu_iopl(cpu) < 3 && (cpu->cr4 & CR4_PVI);
}

void cpu_pushf(struct vcpu *cpu, unsigned size)
{
	u64 fl = cpu->rflags & ~(u64)(FL_VM | FL_RF);

	if (cpu->mode.vm86 && cpu_iopl(cpu) < 3) {
		if (!(cpu->cr4 & CR4_VME) || size != 2)
			cpu_raise_gp(cpu, 0);
		fl = (fl & ~(u64)FL_IF) | FL_IOPL | (fl & FL_VIF ? FL_IF : 0);
	}
	cpu_push(cpu, fl, size);
}

static void popf_vme(struct vcpu *cpu)
{
	struct stack st;
	u64 fl = 0;

	stack_current(cpu, &st);
	fl = stack_pop(cpu, &st, 2);
	if ((fl & FL_TF) || ((fl & FL_IF) && (cpu->rflags & FL_VIP)))
		cpu_raise_gp(cpu, 0);
	stack_commit(cpu, &st);
	flags_write(cpu, fl | (fl & FL_IF ? FL_VIF : 0), FL_ARITH | FL_TF | FL_DF | FL_NT | FL_VIF);
}

void cpu_popf(struct vcpu *cpu, unsigned size)
{
	u64 mask = FL_ARITH | FL_TF | FL_DF | FL_NT, fl = 0;

	if (cpu->mode.vm86 && cpu_iopl(cpu) < 3) {
		if (!(cpu->cr4 & CR4_VME) || size != 2)
			cpu_raise_gp(cpu, 0);
		popf_vme(cpu);
		return;
	}
	fl = cpu_pop(cpu, size);
	if (cpu_cpl(cpu) <= cpu_iopl(cpu))
		mask |= FL_IF;
	if (cpu_cpl(cpu) == 0)
		mask |= FL_IOPL;
	if (size > 2) {
		mask |= FL_AC | FL_ID | FL_RF;
		fl &= ~(u64)FL_RF; /* POPF clears RF */
	}
	flags_write(cpu, fl, mask);
	if (size > 2)
		cpu_update_mode(cpu); /* AC */
}

void cpu_cli(struct vcpu *cpu)
{
	if (cpu_cpl(cpu) <= cpu_iopl(cpu))
		cpu->rflags &= ~(u64)FL_IF;
	else if (virtual_if(cpu))
		cpu->rflags &= ~(u64)FL_VIF;
	else
		cpu_raise_gp(cpu, 0);
}

void cpu_sti(struct vcpu *cpu)
{
	if (cpu_cpl(cpu) <= cpu_iopl(cpu)) {
		if (!(cpu->rflags & FL_IF))
			cpu->shadow = SHADOW_STI;
		cpu->rflags |= FL_IF;
	} else if (virtual_if(cpu) && !(cpu->rflags & FL_VIP)) {
		cpu->rflags |= FL_VIF;
	} else {
		cpu_raise_gp(cpu, 0);
	}
}

/* SDM 1 19.5.2: CPL <= IOPL outside V86 mode, else every port's bit in the TSS must be clear. */
void cpu_check_io(struct vcpu *cpu, u16 port, unsigned size)
{
	const struct segment *tr = &cpu->seg[SEG_TR];
	gva_t base = cpu->mode.lma ? tr->base : (u32)tr->base;
	u32 off = 0;

	if (!cpu->mode.pe || (!cpu->mode.vm86 && cpu_cpl(cpu) <= cpu_iopl(cpu)))
		return;
	if (tr->unusable || !(tr->type & 8) || tr->limit < 103)
		cpu_raise_gp(cpu, 0);
	off = mmu_sys_read16(cpu, base + 102) + port / 8;
	if (off + 1 > tr->limit) /* two bytes are read always */
		cpu_raise_gp(cpu, 0);
	if (mmu_sys_read16(cpu, base + off) >> (port & 7) & (BIT(size) - 1))
		cpu_raise_gp(cpu, 0);
}
