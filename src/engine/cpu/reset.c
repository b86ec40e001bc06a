/* Power-on and INIT (SDM 3A table 10-1), as KVM's vCPUs have it. */
#include "engine/cpu/cpu_int.h"
#include "engine/cpu/fpu.h"
#include "engine/irqchip/irqchip.h"
#include "engine/lib/lib.h"
#include "engine/vm.h"

#define APIC_BASE_DEFAULT 0xfee00000u
#define APIC_BASE_BSP     BIT(8)
#define APIC_BASE_ENABLE  BIT(11)
#define PAT_DEFAULT       0x0007040600070406ull
#define MISC_ENABLE_FAST_STRING BIT(0)

static void reset_segments(struct vcpu *cpu)
{
	static const struct segment data = {.limit = 0xffff, .type = 3, .s = true, .present = true};

	for (unsigned i = SEG_ES; i <= SEG_GS; i++)
		cpu->seg[i] = data;
	cpu->seg[SEG_CS].type = 0xb;
	cpu->seg[SEG_CS].sel = 0xf000;
	cpu->seg[SEG_CS].base = 0xffff0000u;
	cpu->seg[SEG_LDTR] = (struct segment){.limit = 0xffff, .type = DT_LDT, .present = true};
	cpu->seg[SEG_TR] = (struct segment){.limit = 0xffff, .type = DT_TSS32_BUSY, .present = true};
	cpu->gdt = cpu->idt = (struct dtable){.limit = 0xffff};
}

static void reset_registers(struct vcpu *cpu)
{
	const struct kvm_cpuid_entry2 *e = cpuid_find(cpu, 1, 0);

	memset(cpu->gpr, 0, sizeof(cpu->gpr));
	cpu->gpr[R_DX] = e ? e->eax : 0x600; /* the processor's signature */
	cpu->rip = 0xfff0;
	cpu->rflags = FL_ONE;
	cpu->cr2 = cpu->cr3 = cpu->cr4 = cpu->efer = 0;
	memset(cpu->pdpte, 0, sizeof(cpu->pdpte));
	memset(cpu->dr, 0, sizeof(cpu->dr));
	cpu->dr6 = DR6_FIXED;
	cpu->dr7 = DR7_FIXED;
}

static void reset_events(struct vcpu *cpu)
{
	cpu->exc = (struct exception){0};
	cpu->redelivery.pending = false;
	cpu->shadow = SHADOW_NONE;
	cpu->nmi_pending = cpu->nmi_masked = cpu->smi_pending = false;
	cpu->inject.pending = false;
	memset(&cpu->mmio, 0, sizeof(cpu->mmio));
	memset(&cpu->pio, 0, sizeof(cpu->pio));
	cpu->msr_kvm_steal_time = cpu->msr_kvm_eoi_en = 0; /* as KVM, by INIT too */
	cpu->pv_kicked = 0;
}

/* The guest's TSC starts at 0, and all processors' agree. */
static u64 initial_tsc_offset(const struct vcpu *cpu)
{
	const struct vcpu *first = cpu->vm ? cpu->vm->vcpus[0] : NULL;

	return first && first != cpu ? first->tsc_offset : -eng_rdtsc();
}

/* What INIT leaves alone: MSRs of memory typing, machine check, system calls, TSC; and the vector state. */
static void reset_power_on(struct vcpu *cpu)
{
	cpu->xcr0 = 1;
	cpu->xss = 0;
	cpu->star = cpu->lstar = cpu->cstar = cpu->sfmask = cpu->kernel_gs_base = cpu->tsc_aux = 0;
	cpu->sysenter_cs = cpu->sysenter_esp = cpu->sysenter_eip = 0;
	cpu->pat = PAT_DEFAULT;
	cpu->apic_base = APIC_BASE_DEFAULT | APIC_BASE_ENABLE | (cpu->is_bsp ? APIC_BASE_BSP : 0);
	cpu->misc_enable = MISC_ENABLE_FAST_STRING;
	cpu->spec_ctrl = cpu->debugctl = cpu->smi_count = 0;
	cpu->mtrr_def_type = 0;
	memset(cpu->mtrr_fixed, 0, sizeof(cpu->mtrr_fixed));
	memset(cpu->mtrr_var, 0, sizeof(cpu->mtrr_var));
	cpu->mcg_status = cpu->mcg_ctl = 0;
	memset(cpu->mce_banks, 0, sizeof(cpu->mce_banks));
	cpu->tsc_adjust = 0;
	cpu->tsc_offset = initial_tsc_offset(cpu);
	cpu->tsc_deadline = 0;
	cpu->msr_kvm_wall_clock = cpu->msr_kvm_system_time = 0;
	cpu->msr_kvm_async_pf_en = cpu->msr_kvm_async_pf_int = cpu->msr_kvm_async_pf_ack = 0;
	cpu->msr_kvm_migration = 0;
	cpu->msr_kvm_poll_control = 1;
	cpu->mp_state = cpu->is_bsp ? MP_RUNNABLE : MP_UNINITIALIZED;
	/* An INIT leaves these: the start-up IPI behind it may have come already. */
	cpu->init_pending = false;
	cpu->sipi_pending = 0;
	if (!cpu->mcg_cap)
		cpu->mcg_cap = ARRAY_SIZE(cpu->mce_banks) / 4;
	fpu_reset(cpu, false);
}

void cpu_reset(struct vcpu *cpu, bool init)
{
	u64 old_cr0 = cpu->cr0, old_cr4 = cpu->cr4, old_efer = cpu->efer;

	reset_registers(cpu);
	reset_segments(cpu);
	reset_events(cpu);
	/* INIT keeps CD and NW. */
	cpu->cr0 = init ? CR0_ET | (old_cr0 & (CR0_CD | CR0_NW)) : CR0_ET | CR0_CD | CR0_NW;
	if (!init)
		reset_power_on(cpu);
	cpu_update_mode(cpu);
	if (init)
		mmu_update_paging(cpu, old_cr0, old_cr4, old_efer);
	else
		mmu_reset(cpu);
	if (init)
		mmu_flush_all(cpu);
	if (cpu->lapic)
		lapic_reset(cpu, init);
}
