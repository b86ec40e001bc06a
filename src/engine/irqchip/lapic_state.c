/* KVM_GET_LAPIC and KVM_SET_LAPIC: the register page. Without KVM_CAP_X2APIC_API the ID is always in bits
 * 31-24. */
#include <errno.h>
#include "engine/irqchip/lapic_int.h"

static void page_put(struct kvm_lapic_state *s, unsigned r, u32 v)
{
	memcpy(s->regs + r * 16, &v, 4);
}

static u32 page_get(const struct kvm_lapic_state *s, unsigned r)
{
	u32 v = 0;

	memcpy(&v, s->regs + r * 16, 4);
	return v;
}

_Static_assert(KVM_APIC_REG_SIZE == AR_COUNT * 16, "KVM's page holds our registers");

void lapic_get(struct vcpu *cpu, struct kvm_lapic_state *s)
{
	struct lapic *l = cpu->lapic;

	memset(s, 0, sizeof(*s));
	if (!l)
		return;
	lapic_pv_eoi_sync(cpu);
	lapic_update_ppr(l);
	for (unsigned i = 0; i < AR_COUNT; i++)
		page_put(s, i, lapic_reg_load(l, i));
	page_put(s, AR_TMCCT, lapic_timer_count(l));
	if (l->mode == LAPIC_X2APIC)
		page_put(s, AR_ID, l->reg[AR_ID] << 24);
}

int lapic_set(struct vcpu *cpu, const struct kvm_lapic_state *s)
{
	struct lapic *l = cpu->lapic;
	u32 id = page_get(s, AR_ID);

	if (!l)
		return -EINVAL;
	if (l->mode == LAPIC_X2APIC && id >> 24 != l->x2apic_id)
		return -EINVAL;
	if (LVT_TIMER_MODE(page_get(s, AR_LVT_TIMER)) == 3)
		return -EINVAL;
	lapic_pv_eoi_sync(cpu);
	lapic_timer_stop(l);
	for (unsigned i = 0; i < AR_COUNT; i++)
		lapic_reg_store(l, i, page_get(s, i));
	lapic_reg_store(l, AR_VERSION, LAPIC_VERSION_VALUE);
	lapic_reg_store(l, AR_SPIV, page_get(s, AR_SPIV) & SPIV_MASK);
	lapic_reg_store(l, AR_TDCR, page_get(s, AR_TDCR) & 0xb);
	if (l->mode == LAPIC_X2APIC)
		lapic_set_mode(l, LAPIC_X2APIC); /* ID and LDR follow from the vCPU's ID */
	l->esr_pending = 0;
	lapic_timer_restore(l);
	vcpu_kick(cpu, ATT_IRQ);
	return 0;
}
