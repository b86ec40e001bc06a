/*
 * The local APIC inside the room (SDM 3A chapter 11). Registers are kept in an array by offset >> 4, the
 * order of KVM's struct kvm_lapic_state.
 *
 * Who touches what: IRR, TMR and `events` are written by any thread, atomically. id, LDR, DFR, SPIV, LVT0 and
 * mode are written by the owner with atomic stores and read by any thread. All else is the owner's alone. A
 * sender sets the TMR bit, then the IRR bit (release), then kicks; the owner clears the IRR bit (acquire) and
 * looks then.
 */
#ifndef ENGINE_IRQCHIP_LAPIC_INT_H
#define ENGINE_IRQCHIP_LAPIC_INT_H

#include "engine/irqchip/irqchip.h"
#include "engine/lib/lib.h"

enum lapic_reg {
	AR_ID = 0x02,
	AR_VERSION = 0x03,
	AR_TPR = 0x08,
	AR_APR = 0x09,
	AR_PPR = 0x0a,
	AR_EOI = 0x0b,
	AR_RRD = 0x0c,
	AR_LDR = 0x0d,
	AR_DFR = 0x0e,
	AR_SPIV = 0x0f,
	AR_ISR = 0x10,
	AR_TMR = 0x18,
	AR_IRR = 0x20,
	AR_ESR = 0x28,
	AR_ICR = 0x30,
	AR_ICR2 = 0x31,
	AR_LVT_TIMER = 0x32,
	AR_LVT_THERMAL = 0x33,
	AR_LVT_PMC = 0x34,
	AR_LVT_LINT0 = 0x35,
	AR_LVT_LINT1 = 0x36,
	AR_LVT_ERROR = 0x37,
	AR_TMICT = 0x38,
	AR_TMCCT = 0x39,
	AR_TDCR = 0x3e,
	AR_SELF_IPI = 0x3f,
	AR_COUNT = 0x40,
};

#define LAPIC_VERSION_VALUE 0x00050014u /* six LVT entries, no EOI broadcast suppression: as KVM */

#define SPIV_ENABLE       BIT(8)
#define SPIV_MASK         0x3ffu
#define LVT_MASKED        BIT(16)
#define LVT_MODE(v)       ((v) >> 8 & 7)
#define LVT_TIMER_MODE(v) ((v) >> 17 & 3)
enum { TIMER_ONESHOT, TIMER_PERIODIC, TIMER_DEADLINE };

/* Delivery modes of ICR, LVT, MSI and redirection entries. */
enum { DM_FIXED, DM_LOWEST, DM_SMI, DM_RESERVED, DM_NMI, DM_INIT, DM_STARTUP, DM_EXTINT };

/* ESR (SDM 3A 11.5.3) */
#define ESR_SEND_ILLEGAL BIT(5)
#define ESR_RECV_ILLEGAL BIT(6)
#define ESR_REGISTER     BIT(7)

#define BASE_BSP           BIT64(8)
#define BASE_X2APIC        BIT64(10)
#define BASE_ENABLE        BIT64(11)
#define BASE_ADDR(v)       ((v) & (ENG_GPA_LIMIT - 1) & PAGE_MASK)
#define LAPIC_DEFAULT_BASE 0xfee00000ull

enum lapic_mode { LAPIC_OFF, LAPIC_XAPIC, LAPIC_X2APIC };

/* Bits of lapic.events; the vector of a start-up IPI lies above. */
#define EV_NMI        0x01u
#define EV_INIT       0x02u
#define EV_SIPI       0x04u
#define EV_ERROR      0x08u /* an illegal vector arrived */
#define EV_SIPI_SHIFT 8

struct lapic {
	u32 reg[AR_COUNT];
	u32 events;      /* EV_*: any thread */
	u8 mode;         /* enum lapic_mode */
	u32 x2apic_id;   /* = vCPU ID */
	bool pv_eoi;     /* the guest may end the interrupt in service by its bit in memory */
	u32 esr_pending; /* errors since ESR was last written */
	struct vcpu *cpu;
	struct {
		u64 target;  /* expiry of the count-down timer in CLOCK_MONOTONIC ns; 0: stopped */
		u64 period;  /* ns of TMICT counts; for periodic mode bounded below */
		u64 armed;   /* what the host timer is set to; 0: off */
		int host_id; /* POSIX timer, -1 before vtimer_init() */
	} timer;
};

/* What a message on the interrupt bus says. */
struct irq_msg {
	u32 dest;
	u8 vector;
	u8 mode; /* DM_* */
	u8 shorthand;
	bool logical, level, assert_, redirect;
	bool ipi; /* from an ICR: an 8-bit broadcast does not reach x2APICs (SDM 3A 11.12.9) */
};
enum { SH_NONE, SH_SELF, SH_ALL, SH_OTHERS };

static inline u32 lapic_reg_load(const struct lapic *l, unsigned r)
{
	return __atomic_load_n(&l->reg[r], __ATOMIC_RELAXED);
}

static inline void lapic_reg_store(struct lapic *l, unsigned r, u32 v)
{
	__atomic_store_n(&l->reg[r], v, __ATOMIC_RELAXED);
}

static inline u8 lapic_mode_load(const struct lapic *l)
{
	return __atomic_load_n(&l->mode, __ATOMIC_RELAXED);
}

static inline bool lapic_sw_enabled(const struct lapic *l)
{
	return lapic_reg_load(l, AR_SPIV) & SPIV_ENABLE;
}

static inline bool lapic_accepts_extint(const struct lapic *l)
{
	u32 lvt = lapic_reg_load(l, AR_LVT_LINT0);

	return lapic_mode_load(l) == LAPIC_OFF || (!(lvt & LVT_MASKED) && LVT_MODE(lvt) == DM_EXTINT);
}

/* ---- any thread (lapic_ipi.c) ---- */
/* Number of LAPICs that took the message, -1 if none matched. self: sender of a shorthand, or NULL. */
int lapic_deliver(struct vm *vm, struct lapic *self, const struct irq_msg *m);
int lapic_find(struct vm *vm, const struct irq_msg *m); /* ID of the first vCPU that it is addressed to, or -1 */
void lapic_post(struct lapic *l, u8 vector, bool level);
void lapic_post_event(struct lapic *l, u32 event, u8 sipi_vector);

/* ---- owning thread ---- */
void lapic_write_icr(struct lapic *l, u32 low, u32 dest);
void lapic_local_deliver(struct lapic *l, unsigned lvt);
void lapic_error(struct lapic *l, u32 esr_bit);
void lapic_eoi(struct lapic *l);
u32 lapic_update_ppr(struct lapic *l);
void lapic_recheck(struct lapic *l); /* kicks itself if an interrupt became deliverable */
void lapic_set_mode(struct lapic *l, enum lapic_mode m);
/* lapic_pv.c */
void lapic_pv_eoi_offer(struct lapic *l, u8 vector, bool more);
/* lapic_regs.c */
void lapic_write_spiv(struct lapic *l, u32 v);
/* lapic_timer.c */
void lapic_timer_write_tmict(struct lapic *l, u32 v);
void lapic_timer_write_tdcr(struct lapic *l, u32 v);
void lapic_timer_write_lvt(struct lapic *l, u32 v);
u32 lapic_timer_count(struct lapic *l);
void lapic_timer_stop(struct lapic *l);
void lapic_timer_restore(struct lapic *l);

#endif
