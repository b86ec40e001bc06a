/*
 * SYSCALL, SYSRET, SYSENTER, SYSEXIT. AMD and Intel differ; the vendor in the guest's CPUID decides (APM 3 SYSCALL,
 * SYSRET, SYSENTER; SDM 2B).
 */
#include "engine/cpu/cpu_int.h"

static struct segment flat_code(u16 sel, unsigned dpl, bool lng)
{
	return (struct segment){.limit = 0xffffffff, .sel = sel, .type = 0xb, .dpl = dpl, .s = true, .present = true,
				.l = lng, .db = !lng, .g = true};
}

static struct segment flat_data(u16 sel, unsigned dpl)
{
	return (struct segment){.limit = 0xffffffff, .sel = sel, .type = 3, .dpl = dpl, .s = true, .present = true,
				.db = true, .g = true};
}

static void check_sce(struct vcpu *cpu)
{
	if (!(cpu->efer & EFER_SCE))
		cpu_raise(cpu, EXC_UD);
	if (!cpu->mode.long64 && cpu_vendor_is_intel(cpu))
		cpu_raise(cpu, EXC_UD);
}

void cpu_syscall(struct vcpu *cpu, u64 next)
{
	u16 sel = cpu->star >> 32;
	bool stays_long = cpu->mode.long64;

	check_sce(cpu);
	cpu->stats.syscalls++;
	if (cpu->mode.lma) {
		cpu->gpr[R_CX] = next;
		cpu->gpr[R_11] = cpu->rflags & ~(u64)FL_RF;
		cpu->rip = cpu->mode.long64 ? cpu->lstar : cpu->cstar;
		cpu->rflags = (cpu->rflags & ~cpu->sfmask & ~(u64)FL_RF) | FL_ONE;
	} else {
		cpu->gpr[R_CX] = (u32)next;
		cpu->rip = (u32)cpu->star;
		cpu->rflags &= ~(u64)(FL_IF | FL_RF | FL_VM);
	}
	cpu->seg[SEG_CS] = flat_code(sel & ~3, 0, cpu->mode.lma);
	cpu->seg[SEG_SS] = flat_data((sel & ~3) + 8, 0);
	if (stays_long)
		mode_stay_long(cpu, 0);
	else
		cpu_update_mode(cpu);
}

void cpu_sysret(struct vcpu *cpu, unsigned size)
{
	bool stays_long = cpu->mode.long64 && size == 8;
	u16 sel = cpu->star >> 48;

	check_sce(cpu);
	if (!cpu->mode.pe || cpu_cpl(cpu) != 0)
		cpu_raise_gp(cpu, 0);
	if (cpu->mode.lma) {
		u64 rip = size == 8 ? cpu->gpr[R_CX] : (u32)cpu->gpr[R_CX];

		/* Intel faults here, at CPL 0; AMD at the first fetch, at CPL 3. */
		if (!canonical(rip) && cpu_vendor_is_intel(cpu))
			cpu_raise_gp(cpu, 0);
		cpu->rip = rip;
		cpu->rflags = (cpu->gpr[R_11] & 0x3c7fd7) | FL_ONE;
		cpu->seg[SEG_CS] = flat_code((size == 8 ? sel + 16 : sel) | 3, 3, size == 8);
	} else {
		cpu->rip = (u32)cpu->gpr[R_CX];
		cpu->rflags |= FL_IF;
		cpu->seg[SEG_CS] = flat_code(sel | 3, 3, false);
	}
	cpu->seg[SEG_SS] = flat_data((sel + 8) | 3, 3);
	if (stays_long)
		mode_stay_long(cpu, 3);
	else
		cpu_update_mode(cpu);
}

void cpu_sysenter(struct vcpu *cpu)
{
	u16 sel = cpu->sysenter_cs & 0xfffc;

	if (cpu->mode.lma && !cpu_vendor_is_intel(cpu))
		cpu_raise(cpu, EXC_UD);
	if (!cpu->mode.pe || sel == 0)
		cpu_raise_gp(cpu, 0);
	cpu->rflags &= ~(u64)(FL_VM | FL_IF | FL_RF);
	cpu->rip = cpu->mode.lma ? cpu->sysenter_eip : (u32)cpu->sysenter_eip;
	cpu->gpr[R_SP] = cpu->mode.lma ? cpu->sysenter_esp : (u32)cpu->sysenter_esp;
	cpu->seg[SEG_CS] = flat_code(sel, 0, cpu->mode.lma);
	cpu->seg[SEG_SS] = flat_data(sel + 8, 0);
	cpu_update_mode(cpu);
}

void cpu_sysexit(struct vcpu *cpu, unsigned size)
{
	u16 sel = cpu->sysenter_cs & 0xfffc;
	bool to64 = size == 8;
	u64 rip = cpu->gpr[R_DX], rsp = cpu->gpr[R_CX];

	if (cpu->mode.lma && !cpu_vendor_is_intel(cpu))
		cpu_raise(cpu, EXC_UD);
	if (!cpu->mode.pe || sel == 0 || cpu_cpl(cpu) != 0)
		cpu_raise_gp(cpu, 0);
	if (to64 && (!canonical(rip) || !canonical(rsp)))
		cpu_raise_gp(cpu, 0);
	cpu->rip = to64 ? rip : (u32)rip;
	cpu->gpr[R_SP] = to64 ? rsp : (u32)rsp;
	cpu->seg[SEG_CS] = flat_code((sel + (to64 ? 32 : 16)) | 3, 3, to64);
	cpu->seg[SEG_SS] = flat_data((sel + (to64 ? 40 : 24)) | 3, 3);
	cpu_update_mode(cpu);
}
