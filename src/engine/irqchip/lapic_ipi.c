/*
 * Messages between APICs: who is addressed, and how it arrives. SDM 3A 11.6 (ICR), 11.6.2
 * (destinations), 11.12.9 (x2APIC), 11.11 (MSI uses the same modes).
 */
#include "engine/irqchip/lapic_int.h"

void lapic_post(struct lapic *l, u8 vector, bool level)
{
	u32 bit = BIT(vector % 32), *tmr = &l->reg[AR_TMR + vector / 32];

	if (!!(__atomic_load_n(tmr, __ATOMIC_RELAXED) & bit) != level) {
		if (level)
			__atomic_fetch_or(tmr, bit, __ATOMIC_RELAXED);
		else
			__atomic_fetch_and(tmr, ~bit, __ATOMIC_RELAXED);
	}
	/* Whoever set the bit first kicks. */
	if (!(__atomic_fetch_or(&l->reg[AR_IRR + vector / 32], bit, __ATOMIC_ACQ_REL) & bit))
		vcpu_kick(l->cpu, ATT_IRQ);
}

void lapic_post_event(struct lapic *l, u32 event, u8 sipi_vector)
{
	u32 old = __atomic_load_n(&l->events, __ATOMIC_RELAXED), new = 0;

	do {
		new = old | event;
		if (event == EV_INIT) /* voids an earlier SIPI */
			new &= ~(EV_SIPI | 0xffu << EV_SIPI_SHIFT);
		if (event == EV_SIPI)
			new = (new & ~(0xffu << EV_SIPI_SHIFT)) | (u32)sipi_vector << EV_SIPI_SHIFT;
	} while (
	    !__atomic_compare_exchange_n(&l->events, &old, new, true, __ATOMIC_RELEASE, __ATOMIC_RELAXED));
	vcpu_kick(l->cpu, ATT_EVENT);
}

/* ---- addressing ---- */

static bool match_physical(const struct lapic *l, const struct irq_msg *m)
{
	if (lapic_mode_load(l) == LAPIC_X2APIC)
		return m->dest == ~0u || (!m->ipi && m->dest == 0xff) || m->dest == l->x2apic_id;
	return m->dest == 0xff || m->dest == lapic_reg_load(l, AR_ID) >> 24;
}

static bool match_logical(const struct lapic *l, const struct irq_msg *m)
{
	u32 ldr = lapic_reg_load(l, AR_LDR), id = 0;

	if (lapic_mode_load(l) == LAPIC_X2APIC) {
		if (m->dest == ~0u || (!m->ipi && m->dest == 0xff))
			return true;
		return ldr >> 16 == m->dest >> 16 && (ldr & m->dest & 0xffff);
	}
	if (m->dest == 0xff)
		return true;
	if (m->dest > 0xff)
		return false;
	id = ldr >> 24;
	switch (lapic_reg_load(l, AR_DFR) >> 28) {
	case 0xf: /* flat */
		return id & m->dest;
	case 0x0: /* cluster */
		return id >> 4 == m->dest >> 4 && (id & m->dest & 0xf);
	default:
		return false;
	}
}

static bool match(const struct lapic *l, const struct lapic *self, const struct irq_msg *m)
{
	if (lapic_mode_load(l) == LAPIC_OFF)
		return false;
	switch (m->shorthand) {
	case SH_SELF:
		return l == self;
	case SH_ALL:
		return true;
	case SH_OTHERS:
		return l != self;
	default:
		return m->logical ? match_logical(l, m) : match_physical(l, m);
	}
}

/* ---- arrival ---- */

static bool accept_vector(struct lapic *l, const struct irq_msg *m)
{
	if (!lapic_sw_enabled(l))
		return false;
	if (m->vector < 16) {
		lapic_post_event(l, EV_ERROR, 0);
		return false;
	}
	lapic_post(l, m->vector, m->level);
	if (!m->ipi)
		__atomic_fetch_add(&l->cpu->stats.irq_injected, 1, __ATOMIC_RELAXED);
	return true;
}

static bool accept(struct lapic *l, const struct irq_msg *m)
{
	switch (m->mode) {
	case DM_FIXED:
	case DM_LOWEST:
		return accept_vector(l, m);
	case DM_NMI:
		lapic_post_event(l, EV_NMI, 0);
		return true;
	case DM_INIT:
		if (!m->level || m->assert_) /* the de-assert of old buses does nothing */
			lapic_post_event(l, EV_INIT, 0);
		return true;
	case DM_STARTUP:
		lapic_post_event(l, EV_SIPI, m->vector);
		return true;
	default: /* SMI: there is no SMM here; ExtINT arrives by LINT0 only */
		return false;
	}
}

static struct lapic *lapic_at(struct vm *vm, u32 i)
{
	struct vcpu *cpu = __atomic_load_n(&vm->vcpus[i], __ATOMIC_ACQUIRE);

	return cpu ? cpu->lapic : NULL;
}

int lapic_find(struct vm *vm, const struct irq_msg *m)
{
	u32 n = MIN(__atomic_load_n(&vm->nvcpus, __ATOMIC_ACQUIRE), (u32)ENG_MAX_VCPUS);

	for (u32 i = 0; i < n; i++) {
		const struct lapic *l = lapic_at(vm, i);

		if (l && match(l, NULL, m))
			return (int)l->cpu->id;
	}
	return -1;
}

/* Lowest priority: like current chipsets we do not compare priorities but spread by vector. */
static int deliver_one(struct vm *vm, const struct lapic *self, const struct irq_msg *m, u32 n)
{
	u64 set = 0;

	for (u32 i = 0; i < n; i++) {
		struct lapic *l = lapic_at(vm, i);

		if (l && match(l, self, m) && lapic_sw_enabled(l))
			set |= BIT64(i);
	}
	if (!set)
		return -1;
	for (int skip = m->vector % __builtin_popcountll(set); skip; skip--)
		set &= set - 1;
	return accept(lapic_at(vm, (u32)__builtin_ctzll(set)), m);
}

int lapic_deliver(struct vm *vm, struct lapic *self, const struct irq_msg *m)
{
	u32 n = MIN(__atomic_load_n(&vm->nvcpus, __ATOMIC_ACQUIRE), (u32)ENG_MAX_VCPUS);
	int taken = -1;

	if (m->mode == DM_LOWEST || (m->redirect && m->mode == DM_FIXED))
		return deliver_one(vm, self, m, n);
	for (u32 i = 0; i < n; i++) {
		struct lapic *l = lapic_at(vm, i);

		if (l && match(l, self, m))
			taken = MAX(taken, 0) + accept(l, m);
	}
	return taken;
}

static bool in_set(u64 set, u32 id, u32 min, unsigned span)
{
	return id >= min && id - min < span && set >> (id - min) & 1;
}

int lapic_send_set(struct vcpu *cpu, u64 low, u64 high, u32 min, unsigned span, u32 icr)
{
	const struct irq_msg m = {
		.vector = (u8)icr,
		.mode = icr >> 8 & 7,
		.level = (icr >> 8 & 7) == DM_INIT && icr & BIT(15),
		.assert_ = icr & BIT(14),
		.ipi = true,
	};
	u32 n = MIN(__atomic_load_n(&cpu->vm->nvcpus, __ATOMIC_ACQUIRE), (u32)ENG_MAX_VCPUS);
	int taken = 0;

	for (u32 i = 0; i < n; i++) {
		struct lapic *l = lapic_at(cpu->vm, i);

		if (l && lapic_mode_load(l) != LAPIC_OFF &&
		    (in_set(low, l->x2apic_id, min, span) ||
		     (min <= ~0u - span && in_set(high, l->x2apic_id, min + span, span))))
			taken += accept(l, &m);
	}
	return taken;
}

void lapic_write_icr(struct lapic *l, u32 low, u32 dest)
{
	struct irq_msg m = {
	    .dest = dest,
	    .vector = (u8)low,
	    .mode = low >> 8 & 7,
	    .logical = low & BIT(11),
	    .assert_ = low & BIT(14),
	    .level = low & BIT(15),
	    .shorthand = low >> 18 & 3,
	    .ipi = true,
	};
	bool fixed = m.mode == DM_FIXED || m.mode == DM_LOWEST;

	if (l->mode == LAPIC_OFF || m.mode == DM_RESERVED || m.mode == DM_EXTINT)
		return;
	if (fixed && m.vector < 16) {
		lapic_error(l, ESR_SEND_ILLEGAL);
		return;
	}
	if (fixed)
		m.level = false; /* SDM 3A 11.6.1: ignored but for INIT de-assert */
	lapic_deliver(l->cpu->vm, l, &m);
}
