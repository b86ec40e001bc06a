/*
 * Register access of the local APIC: the xAPIC page (SDM 3A 11.4.1) and the x2APIC MSRs (11.12.1.2). One
 * table says what exists, which bits are writable and what a write does.
 */
#include "engine/irqchip/lapic_int.h"

enum {
	RF_R = 1,
	RF_W = 2,
	RF_X2_NOR = 4,
	RF_X2_NOW = 8,
	RF_X2_NONE = RF_X2_NOR | RF_X2_NOW,
	RF_X2_ONLY = 16
};

struct lapic_reg_desc {
	u8 flags;
	u32 writable; /* other bits: #GP in x2APIC mode, ignored in xAPIC mode */
	u32 readonly; /* bits that may be written as anything, even in x2APIC mode */
	void (*write)(struct lapic *l, unsigned r, u32 v); /* v masked; NULL: plain store */
	u32 (*read)(struct lapic *l, unsigned r);
};

/* ---- reads ---- */

static u32 read_ppr(struct lapic *l, unsigned r)
{
	lapic_pv_eoi_sync(l->cpu);
	return lapic_update_ppr(l);
}

static u32 read_isr(struct lapic *l, unsigned r)
{
	lapic_pv_eoi_sync(l->cpu);
	return lapic_reg_load(l, r);
}

static u32 read_count(struct lapic *l, unsigned r)
{
	return lapic_timer_count(l);
}

/* ---- writes ---- */

static void write_tpr(struct lapic *l, unsigned r, u32 v)
{
	l->reg[AR_TPR] = v;
	lapic_recheck(l);
}

static void write_eoi(struct lapic *l, unsigned r, u32 v)
{
	lapic_eoi(l);
}

static void write_dfr(struct lapic *l, unsigned r, u32 v)
{
	lapic_reg_store(l, r, v | 0x0fffffff);
}

void lapic_write_spiv(struct lapic *l, u32 v)
{
	lapic_reg_store(l, AR_SPIV, v & SPIV_MASK);
	if (v & SPIV_ENABLE)
		return;
	for (unsigned i = AR_LVT_TIMER; i <= AR_LVT_ERROR; i++) /* SDM 3A 11.4.7.2 */
		lapic_reg_store(l, i, l->reg[i] | LVT_MASKED);
}

static void write_spiv(struct lapic *l, unsigned r, u32 v)
{
	lapic_write_spiv(l, v);
}

/* A write latches what has gathered since the last one, whatever its value. */
static void write_esr(struct lapic *l, unsigned r, u32 v)
{
	l->reg[AR_ESR] = l->esr_pending;
	l->esr_pending = 0;
}

static void write_icr_low(struct lapic *l, unsigned r, u32 v)
{
	l->reg[AR_ICR] = v;
	lapic_write_icr(l, v, l->reg[AR_ICR2] >> 24);
}

static u32 lvt_value(const struct lapic *l, u32 v)
{
	return lapic_sw_enabled(l) ? v : v | LVT_MASKED;
}

static void write_lvt(struct lapic *l, unsigned r, u32 v)
{
	lapic_reg_store(l, r, lvt_value(l, v));
	if (r == AR_LVT_LINT0) /* the PIC may wait for it */
		vcpu_kick(l->cpu, ATT_IRQ);
}

static void write_lvt_timer(struct lapic *l, unsigned r, u32 v)
{
	lapic_timer_write_lvt(l, lvt_value(l, v));
}

static void write_tmict(struct lapic *l, unsigned r, u32 v)
{
	lapic_timer_write_tmict(l, v);
}

static void write_tdcr(struct lapic *l, unsigned r, u32 v)
{
	lapic_timer_write_tdcr(l, v);
}

static void write_self_ipi(struct lapic *l, unsigned r, u32 v)
{
	lapic_write_icr(l, (u32)SH_SELF << 18 | (v & 0xff), 0);
}

/* Bits 12 (delivery status) and 14 (remote IRR) of the LVT are read-only. */
static const struct lapic_reg_desc regs[AR_COUNT] = {
    [AR_ID] = {RF_R | RF_W | RF_X2_NOW, 0xff000000, 0, NULL, NULL},
    [AR_VERSION] = {RF_R | RF_X2_NOW, 0, 0, NULL, NULL},
    [AR_TPR] = {RF_R | RF_W, 0xff, 0, write_tpr, NULL},
    [AR_APR] = {RF_R | RF_X2_NONE, 0, 0, NULL, NULL},
    [AR_PPR] = {RF_R | RF_X2_NOW, 0, 0, NULL, read_ppr},
    [AR_EOI] = {RF_W | RF_X2_NOR, 0, 0, write_eoi, NULL},
    [AR_RRD] = {RF_R | RF_X2_NONE, 0, 0, NULL, NULL},
    [AR_LDR] = {RF_R | RF_W | RF_X2_NOW, 0xff000000, 0, NULL, NULL},
    [AR_DFR] = {RF_R | RF_W | RF_X2_NONE, 0xf0000000, 0x0fffffff, write_dfr, NULL},
    [AR_SPIV] = {RF_R | RF_W, SPIV_MASK, 0, write_spiv, NULL},
    [AR_ISR... AR_ISR + 7] = {RF_R | RF_X2_NOW, 0, 0, NULL, read_isr},
    [AR_TMR... AR_TMR + 7] = {RF_R | RF_X2_NOW, 0, 0, NULL, NULL},
    [AR_IRR... AR_IRR + 7] = {RF_R | RF_X2_NOW, 0, 0, NULL, NULL},
    [AR_ESR] = {RF_R | RF_W, 0, 0, write_esr, NULL},
    [AR_ICR] = {RF_R | RF_W, 0x000ccfff & ~BIT(12), BIT(12), write_icr_low, NULL},
    [AR_ICR2] = {RF_R | RF_W | RF_X2_NONE, 0xff000000, 0, NULL, NULL},
    [AR_LVT_TIMER] = {RF_R | RF_W, 0x000700ff, BIT(12), write_lvt_timer, NULL},
    [AR_LVT_THERMAL] = {RF_R | RF_W, 0x000107ff, BIT(12), write_lvt, NULL},
    [AR_LVT_PMC] = {RF_R | RF_W, 0x000107ff, BIT(12), write_lvt, NULL},
    [AR_LVT_LINT0] = {RF_R | RF_W, 0x0001a7ff, BIT(12) | BIT(14), write_lvt, NULL},
    [AR_LVT_LINT1] = {RF_R | RF_W, 0x0001a7ff, BIT(12) | BIT(14), write_lvt, NULL},
    [AR_LVT_ERROR] = {RF_R | RF_W, 0x000100ff, BIT(12), write_lvt, NULL},
    [AR_TMICT] = {RF_R | RF_W, ~0u, 0, write_tmict, NULL},
    [AR_TMCCT] = {RF_R | RF_X2_NOW, 0, 0, NULL, read_count},
    [AR_TDCR] = {RF_R | RF_W, 0xb, 0, write_tdcr, NULL},
    [AR_SELF_IPI] = {RF_W | RF_X2_NOR | RF_X2_ONLY, 0xff, 0, write_self_ipi, NULL},
};

static u32 reg_read(struct lapic *l, unsigned r)
{
	return regs[r].read ? regs[r].read(l, r) : lapic_reg_load(l, r);
}

static void reg_write(struct lapic *l, unsigned r, u32 v)
{
	v &= regs[r].writable;
	if (regs[r].write)
		regs[r].write(l, r, v);
	else
		lapic_reg_store(l, r, v);
}

/* ---- xAPIC page ---- */

static bool in_page(const struct lapic *l, gpa_t a)
{
	return l && l->mode == LAPIC_XAPIC && (a & PAGE_MASK) == BASE_ADDR(l->cpu->apic_base);
}

/* True if the register answers in xAPIC mode; else notes the error. */
static bool xapic_reg(struct lapic *l, unsigned r, unsigned right)
{
	if (r < AR_COUNT && (regs[r].flags & right) && !(regs[r].flags & RF_X2_ONLY))
		return true;
	if (r >= AR_COUNT || !regs[r].flags || (regs[r].flags & RF_X2_ONLY))
		lapic_error(l, ESR_REGISTER);
	return false;
}

bool lapic_mmio_read(struct vcpu *cpu, gpa_t a, void *data, unsigned len)
{
	struct lapic *l = cpu->lapic;
	unsigned off = a & 0xfff, in = off & 15;
	u64 v = 0;

	if (!in_page(l, a))
		return false;
	/* Only the low four bytes of each 16 are there. */
	if (in < 4 && xapic_reg(l, off >> 4, RF_R))
		v = (u64)reg_read(l, off >> 4) >> (in * 8);
	memset(data, 0, len);
	memcpy(data, &v, MIN(len, 4u));
	return true;
}

bool lapic_mmio_write(struct vcpu *cpu, gpa_t a, const void *data, unsigned len)
{
	struct lapic *l = cpu->lapic;
	unsigned off = a & 0xfff;
	u32 v = 0;

	if (!in_page(l, a))
		return false;
	if (len < 4 || (off & 15)) /* undefined by SDM 3A 11.4.1: ignored */
		return true;
	memcpy(&v, data, 4);
	if (xapic_reg(l, off >> 4, RF_W))
		reg_write(l, off >> 4, v);
	return true;
}

/* ---- x2APIC MSRs ---- */

#define MSR_X2APIC 0x800u

static const struct lapic_reg_desc *x2apic_reg(const struct lapic *l, u32 index, unsigned right,
					       unsigned refuse)
{
	u32 r = index - MSR_X2APIC;

	if (!l || l->mode != LAPIC_X2APIC || r >= AR_COUNT || !(regs[r].flags & right) ||
	    (regs[r].flags & refuse))
		return NULL;
	return &regs[r];
}

bool lapic_msr_read(struct vcpu *cpu, u32 index, u64 *v)
{
	struct lapic *l = cpu->lapic;

	if (!x2apic_reg(l, index, RF_R, RF_X2_NOR))
		return false;
	*v = reg_read(l, index - MSR_X2APIC);
	if (index - MSR_X2APIC == AR_ICR)
		*v |= (u64)l->reg[AR_ICR2] << 32;
	return true;
}

bool lapic_msr_write(struct vcpu *cpu, u32 index, u64 v)
{
	struct lapic *l = cpu->lapic;
	const struct lapic_reg_desc *d = x2apic_reg(l, index, RF_W, RF_X2_NOW);
	u32 r = index - MSR_X2APIC;

	if (!d || ((u32)v & ~(d->writable | d->readonly)))
		return false;
	if (r == AR_ICR) {
		l->reg[AR_ICR2] = (u32)(v >> 32);
		l->reg[AR_ICR] = (u32)v & d->writable;
		lapic_write_icr(l, (u32)v, (u32)(v >> 32));
		return true;
	}
	if (v >> 32)
		return false;
	reg_write(l, r, (u32)v);
	return true;
}
