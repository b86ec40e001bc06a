/*
 * The paravirtual side of the local APIC: the end of an interrupt by a bit in the guest's memory
 * (MSR_KVM_PV_EOI_EN, Documentation/virt/kvm/x86/msr.rst), and interrupts to many processors by one
 * hypercall. Owning thread.
 */
#include "engine/irqchip/lapic_int.h"
#include "engine/mmu/mmu.h"

#define PV_EOI_ENABLED 1u

static gpa_t pv_eoi_word(const struct lapic *l)
{
	return l->cpu->msr_kvm_eoi_en & ~3ull;
}

/*
 * An interrupt is being delivered: the guest may end it by clearing the bit. Not if ending it has to let
 * something happen at once: a level to look at again, or an interrupt that waits. One that comes later finds
 * out first (lapic_pv_eoi_sync).
 */
void lapic_pv_eoi_offer(struct lapic *l, u8 vector, bool more)
{
	u8 old = 0;

	if (!(l->cpu->msr_kvm_eoi_en & PV_EOI_ENABLED) || more ||
	    lapic_reg_load(l, AR_TMR + vector / 32) & BIT(vector % 32))
		return;
	l->pv_eoi = phys_exchange8(pv_eoi_word(l), 1, &old);
}

/* Before ISR is looked at: takes the offer back, or ends the interrupt if the guest took it. */
void lapic_pv_eoi_sync(struct vcpu *cpu)
{
	struct lapic *l = cpu->lapic;
	u8 old = 0;

	if (!l->pv_eoi)
		return;
	l->pv_eoi = false;
	if (phys_exchange8(pv_eoi_word(l), 0, &old) && !(old & 1))
		lapic_eoi(l);
}
