/* Control registers and EFER: checks of SDM 3A 2.5, 9.8.5 and what follows from a change. */
#include "engine/cpu/cpu_int.h"
#include "engine/irqchip/irqchip.h"

#define CR0_VALID                                                                                                \
	(CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_NW | CR0_CD | CR0_PG)
#define CR3_RSVD_LONG (~(ENG_GPA_LIMIT - 1))
#define CR3_NOFLUSH   BIT64(63)
#define CR4_PDPTE_BITS (CR4_PAE | CR4_PSE | CR4_PGE | CR4_SMEP)

static bool is_pae_legacy(u64 cr0, u64 cr4, u64 efer)
{
	return (cr0 & CR0_PG) && (cr4 & CR4_PAE) && !(efer & EFER_LMA);
}

/* PG 0 -> 1 with LME: long mode becomes active (SDM 3A 9.8.5). */
static void check_enter_long(struct vcpu *cpu)
{
	if (!(cpu->cr4 & CR4_PAE) || cpu->seg[SEG_CS].l)
		cpu_raise_gp(cpu, 0);
	if (!(cpu->seg[SEG_TR].type & 8) && !cpu->seg[SEG_TR].unusable) /* a 16-bit TSS */
		cpu_raise_gp(cpu, 0);
}

static void set_cr0(struct vcpu *cpu, u64 v)
{
	u64 old = cpu->cr0, old_efer = cpu->efer, efer = old_efer;
	bool pg = v & CR0_PG, was_pg = old & CR0_PG;

	if (v >> 32)
		cpu_raise_gp(cpu, 0);
	v = (v & CR0_VALID) | CR0_ET;
	if ((pg && !(v & CR0_PE)) || ((v & CR0_NW) && !(v & CR0_CD)))
		cpu_raise_gp(cpu, 0);
	if (!pg && ((cpu->cr4 & CR4_PCIDE) || (was_pg && cpu->mode.long64)))
		cpu_raise_gp(cpu, 0);
	if (pg && !was_pg && (efer & EFER_LME)) {
		check_enter_long(cpu);
		efer |= EFER_LMA;
	}
	if (!pg)
		efer &= ~(u64)EFER_LMA;
	if (is_pae_legacy(v, cpu->cr4, efer) && ((old ^ v) & (CR0_PG | CR0_CD | CR0_NW)) &&
	    !mmu_load_pdptes(cpu, cpu->cr3))
		cpu_raise_gp(cpu, 0);
	cpu->cr0 = v;
	cpu->efer = efer;
	cpu_update_mode(cpu);
	if (((old ^ v) & (CR0_PG | CR0_WP | CR0_PE)) || efer != old_efer)
		mmu_update_paging(cpu, old, cpu->cr4, old_efer);
}

static void set_cr3(struct vcpu *cpu, u64 v)
{
	bool noflush = false;

	if (cpu->cr4 & CR4_PCIDE) {
		noflush = v & CR3_NOFLUSH;
		v &= ~CR3_NOFLUSH;
	}
	if (cpu->mode.lma) {
		if (v & CR3_RSVD_LONG)
			cpu_raise_gp(cpu, 0);
	} else {
		v = (u32)v;
		if (is_pae_legacy(cpu->cr0, cpu->cr4, cpu->efer) && !mmu_load_pdptes(cpu, v))
			cpu_raise_gp(cpu, 0);
	}
	mmu_set_cr3(cpu, v, noflush);
	cpu->cr3 = v;
}

static void check_cr4(struct vcpu *cpu, u64 v)
{
	if (v & cpu->cr4_guest_rsvd)
		cpu_raise_gp(cpu, 0);
	if (cpu->mode.lma && !(v & CR4_PAE))
		cpu_raise_gp(cpu, 0);
	if ((v & CR4_PCIDE) && !(cpu->cr4 & CR4_PCIDE) && (!cpu->mode.lma || (cpu->cr3 & 0xfff)))
		cpu_raise_gp(cpu, 0);
}

static void set_cr4(struct vcpu *cpu, u64 v)
{
	u64 old = cpu->cr4;

	check_cr4(cpu, v);
	if (is_pae_legacy(cpu->cr0, v, cpu->efer) && ((old ^ v) & CR4_PDPTE_BITS) && !mmu_load_pdptes(cpu, cpu->cr3))
		cpu_raise_gp(cpu, 0);
	cpu->cr4 = v;
	cpu_update_mode(cpu);
	if ((old ^ v) & (CR4_PSE | CR4_PAE | CR4_PGE | CR4_PCIDE | CR4_SMEP | CR4_SMAP))
		mmu_update_paging(cpu, cpu->cr0, old, cpu->efer);
}

static void set_cr8(struct vcpu *cpu, u64 v)
{
	if (v & ~0xfull)
		cpu_raise_gp(cpu, 0);
	if (cpu->lapic)
		lapic_set_tpr(cpu, v);
	else
		cpu->cr8_unused = v;
}

u64 cpu_get_cr(struct vcpu *cpu, unsigned n)
{
	switch (n) {
	case 0:
		return cpu->cr0;
	case 2:
		return cpu->cr2;
	case 3:
		return cpu->cr3;
	case 4:
		return cpu->cr4;
	case 8:
		return cpu->lapic ? lapic_get_tpr(cpu) : cpu->cr8_unused;
	default:
		cpu_raise(cpu, EXC_UD);
	}
}

void cpu_set_cr(struct vcpu *cpu, unsigned n, u64 v)
{
	switch (n) {
	case 0:
		set_cr0(cpu, v);
		break;
	case 2:
		cpu->cr2 = v;
		break;
	case 3:
		set_cr3(cpu, v);
		break;
	case 4:
		set_cr4(cpu, v);
		break;
	case 8:
		set_cr8(cpu, v);
		break;
	default:
		cpu_raise(cpu, EXC_UD);
	}
}

/* LMSW writes PE MP EM TS and cannot clear PE. */
void cpu_lmsw(struct vcpu *cpu, u16 v)
{
	u64 keep = ~(u64)(CR0_MP | CR0_EM | CR0_TS);

	set_cr0(cpu, (cpu->cr0 & keep) | (v & (CR0_PE | CR0_MP | CR0_EM | CR0_TS)));
}

void cpu_clts(struct vcpu *cpu)
{
	cpu->cr0 &= ~(u64)CR0_TS;
	cpu_update_mode(cpu);
}

/* Checked by the MSR table; LMA follows CR0.PG and cannot be written. */
void cpu_set_efer(struct vcpu *cpu, u64 v)
{
	u64 old = cpu->efer;

	cpu->efer = (v & ~(u64)EFER_LMA) | (old & EFER_LMA);
	cpu_update_mode(cpu);
	if ((old ^ cpu->efer) & EFER_NX)
		mmu_update_paging(cpu, cpu->cr0, cpu->cr4, old);
}
