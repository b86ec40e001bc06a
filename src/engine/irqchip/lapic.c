/*
 * Local APIC: creation, reset, priorities, acknowledge, EOI, IA32_APIC_BASE. SDM 3A 11.4 and 11.8.
 */
#include <errno.h>
#include "engine/irqchip/irqchip_int.h"
#include "engine/irqchip/lapic_int.h"
#include "engine/irqchip/timer.h"

/* ---- vectors in the 256-bit registers ---- */

static int highest_bit(const u32 *words)
{
	for (int i = 7; i >= 0; i--) {
		u32 w = __atomic_load_n(&words[i], __ATOMIC_ACQUIRE);

		if (w)
			return i * 32 + 31 - __builtin_clz(w);
	}
	return -1;
}

static int highest_irr(const struct lapic *l)
{
	return highest_bit(&l->reg[AR_IRR]);
}
static int highest_isr(const struct lapic *l)
{
	return highest_bit(&l->reg[AR_ISR]);
}

/* SDM 3A 11.8.3.1 */
u32 lapic_update_ppr(struct lapic *l)
{
	u32 tpr = l->reg[AR_TPR];
	int isr = highest_isr(l);
	u32 served = isr < 0 ? 0 : (u32)isr & 0xf0;

	l->reg[AR_PPR] = (tpr & 0xf0) >= served ? tpr : served;
	return l->reg[AR_PPR];
}

static int lapic_pending(struct lapic *l)
{
	int v = -1;

	if (l->mode == LAPIC_OFF)
		return -1;
	v = highest_irr(l);
	if (v < 0)
		return -1;
	lapic_pv_eoi_sync(l->cpu);
	if (((u32)v & 0xf0) <= (lapic_update_ppr(l) & 0xf0))
		return -1;
	return v;
}

void lapic_recheck(struct lapic *l)
{
	if (lapic_pending(l) >= 0)
		vcpu_kick(l->cpu, ATT_IRQ);
}

int irq_pending_vector(struct vcpu *cpu)
{
	struct lapic *l = cpu->lapic;
	int v = -1;

	if (!l)
		return -1;
	v = lapic_pending(l);
	if (v >= 0)
		return v;
	return lapic_accepts_extint(l) ? pic_pending_vector(cpu->vm->irqchip) : -1;
}

int irq_acknowledge(struct vcpu *cpu)
{
	struct lapic *l = cpu->lapic;
	int v = -1;

	if (!l)
		return -1;
	v = lapic_pending(l);
	if (v < 0)
		return lapic_accepts_extint(l) ? pic_acknowledge(cpu->vm->irqchip) : -1;
	__atomic_fetch_and(&l->reg[AR_IRR + v / 32], ~BIT(v % 32), __ATOMIC_ACQ_REL);
	l->reg[AR_ISR + v / 32] |= BIT(v % 32);
	lapic_update_ppr(l);
	lapic_recheck(l); /* a still higher one may have come meanwhile: nesting is the guest's choice of IF */
	lapic_pv_eoi_offer(l, (u8)v, highest_irr(l) >= 0);
	return v;
}

void lapic_eoi(struct lapic *l)
{
	int v = -1;

	lapic_pv_eoi_sync(l->cpu);
	v = highest_isr(l);
	if (v < 0)
		return;
	l->reg[AR_ISR + v / 32] &= ~BIT(v % 32);
	lapic_update_ppr(l);
	if (lapic_reg_load(l, AR_TMR + v / 32) & BIT(v % 32))
		ioapic_eoi(l->cpu->vm, (u8)v);
	lapic_recheck(l);
}

/* ---- errors and local interrupts ---- */

void lapic_error(struct lapic *l, u32 esr_bit)
{
	bool news = !(l->esr_pending & esr_bit);

	l->esr_pending |= esr_bit;
	/* an LVT error entry with an illegal vector of its own must not recurse */
	if (news && (l->reg[AR_LVT_ERROR] & 0xff) >= 16)
		lapic_local_deliver(l, AR_LVT_ERROR);
}

void lapic_local_deliver(struct lapic *l, unsigned lvt)
{
	u32 v = l->reg[lvt];
	unsigned mode = lvt == AR_LVT_TIMER || lvt == AR_LVT_ERROR ? DM_FIXED : LVT_MODE(v);

	if (l->mode == LAPIC_OFF || (v & LVT_MASKED))
		return;
	if (mode == DM_NMI)
		lapic_post_event(l, EV_NMI, 0);
	else if (mode == DM_FIXED && (v & 0xff) >= 16)
		lapic_post(l, (u8)v, false);
	else if (mode == DM_FIXED)
		lapic_error(l, ESR_RECV_ILLEGAL);
}

void lapic_take_events(struct vcpu *cpu)
{
	struct lapic *l = cpu->lapic;
	u32 ev = 0;

	if (!l || !__atomic_load_n(&l->events, __ATOMIC_RELAXED))
		return;
	ev = __atomic_exchange_n(&l->events, 0, __ATOMIC_ACQUIRE);
	if (ev & EV_NMI)
		cpu->nmi_pending = true;
	if (ev & EV_INIT) {
		cpu->init_pending = true;
		cpu->sipi_pending = 0; /* one from before the INIT is void */
	}
	if (ev & EV_SIPI) {
		cpu->sipi_vector = (u8)(ev >> EV_SIPI_SHIFT);
		cpu->sipi_pending = 1;
	}
	if (ev & EV_ERROR)
		lapic_error(l, ESR_RECV_ILLEGAL);
}

/* ---- task priority ---- */

u8 lapic_get_tpr(struct vcpu *cpu)
{
	return cpu->lapic ? (u8)(cpu->lapic->reg[AR_TPR] >> 4) : (u8)cpu->cr8_unused;
}

void lapic_set_tpr(struct vcpu *cpu, u8 v)
{
	if (!cpu->lapic) {
		cpu->cr8_unused = v & 15;
		return;
	}
	cpu->lapic->reg[AR_TPR] = (u32)(v & 15) << 4;
	lapic_recheck(cpu->lapic);
}

/* ---- reset and base ---- */

/* SDM 3A 11.12.5.1: the logical ID of x2APIC mode is derived from the ID. */
static u32 x2apic_ldr(u32 id)
{
	return (id >> 4) << 16 | BIT(id & 15);
}

void lapic_set_mode(struct lapic *l, enum lapic_mode m)
{
	if (m == LAPIC_X2APIC) {
		lapic_reg_store(l, AR_ID, l->x2apic_id);
		lapic_reg_store(l, AR_LDR, x2apic_ldr(l->x2apic_id));
	} else if (l->mode != LAPIC_XAPIC) {
		lapic_reg_store(l, AR_ID, l->x2apic_id << 24);
	}
	__atomic_store_n(&l->mode, m, __ATOMIC_RELEASE);
}

/* SDM 3A 11.4.7.1 and 11.4.7.3: INIT keeps the ID and the mode. */
static void lapic_reset_regs(struct lapic *l)
{
	u32 id = l->reg[AR_ID], ldr = l->mode == LAPIC_X2APIC ? l->reg[AR_LDR] : 0;

	lapic_timer_stop(l);
	for (unsigned i = 0; i < AR_COUNT; i++)
		lapic_reg_store(l, i, 0);
	lapic_reg_store(l, AR_ID, id);
	lapic_reg_store(l, AR_LDR, ldr);
	lapic_reg_store(l, AR_DFR, ~0u);
	lapic_reg_store(l, AR_VERSION, LAPIC_VERSION_VALUE);
	lapic_reg_store(l, AR_SPIV, 0xff);
	for (unsigned i = AR_LVT_TIMER; i <= AR_LVT_ERROR; i++)
		lapic_reg_store(l, i, LVT_MASKED);
	/* What firmware would do: virtual wire, so that a guest without one hears the PIC (KVM does the
	 * same). */
	if (l->cpu->is_bsp)
		lapic_reg_store(l, AR_LVT_LINT0, DM_EXTINT << 8);
	l->esr_pending = 0;
	l->pv_eoi = false;
	l->cpu->tsc_deadline = 0;
}

void lapic_reset(struct vcpu *cpu, bool init)
{
	struct lapic *l = cpu->lapic;

	if (!init)
		cpu->apic_base = LAPIC_DEFAULT_BASE | BASE_ENABLE | (cpu->is_bsp ? BASE_BSP : 0);
	if (!l)
		return;
	if (!init) {
		l->mode = LAPIC_OFF;
		lapic_set_mode(l, LAPIC_XAPIC);
		__atomic_store_n(&l->events, 0, __ATOMIC_RELAXED);
	}
	lapic_reset_regs(l);
}

int lapic_create(struct vcpu *cpu)
{
	struct lapic *l = vm_alloc(sizeof(*l));

	if (!l)
		return -ENOMEM;
	l->cpu = cpu;
	l->x2apic_id = cpu->id;
	l->timer.host_id = -1;
	cpu->lapic = l;
	lapic_reset(cpu, false);
	return 0;
}

static bool guest_has_x2apic(const struct vcpu *cpu)
{
	for (u32 i = 0; i < cpu->ncpuid; i++)
		if (cpu->cpuid[i].function == 1)
			return cpu->cpuid[i].ecx & BIT(21);
	return false;
}

static enum lapic_mode base_mode(u64 base)
{
	if (!(base & BASE_ENABLE))
		return LAPIC_OFF;
	return base & BASE_X2APIC ? LAPIC_X2APIC : LAPIC_XAPIC;
}

/* Transitions: SDM 3A figure 11-27. The VMM may jump anywhere when it restores. */
bool lapic_set_base(struct vcpu *cpu, u64 v, bool host)
{
	struct lapic *l = cpu->lapic;
	u64 reserved = ~(ENG_GPA_LIMIT - 1) | 0x2ff | (guest_has_x2apic(cpu) ? 0 : BASE_X2APIC);
	enum lapic_mode old = base_mode(cpu->apic_base), new = base_mode(v);

	if ((v & reserved) || (v & (BASE_ENABLE | BASE_X2APIC)) == BASE_X2APIC)
		return false;
	if (!host &&
	    ((old == LAPIC_X2APIC && new == LAPIC_XAPIC) || (old == LAPIC_OFF && new == LAPIC_X2APIC)))
		return false;
	cpu->apic_base = v;
	if (!l || old == new)
		return true;
	lapic_set_mode(l, new);
	if (new == LAPIC_OFF)
		lapic_reset_regs(l);
	vcpu_kick(cpu, ATT_IRQ);
	return true;
}
