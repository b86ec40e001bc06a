/*
 * The in-kernel interrupt controllers and timers: LAPIC (xAPIC, x2APIC, TSC deadline), IOAPIC, PIC pair, PIT,
 * GSI routing, MSI, irqfd. State layouts of the KVM API (struct kvm_lapic_state ...) are the save format.
 */
#ifndef ENGINE_IRQCHIP_IRQCHIP_H
#define ENGINE_IRQCHIP_IRQCHIP_H

#include "engine/vm.h"

/* ---- creation and API; main thread, VM lock held; return 0 or -errno ---- */
int irqchip_create(struct vm *vm);                                 /* KVM_CREATE_IRQCHIP: PIC + IOAPIC; default routing */
int irqchip_split(struct vm *vm, u32 pins);                        /* KVM_CAP_SPLIT_IRQCHIP: LAPICs only */
int irqchip_get(struct vm *vm, struct kvm_irqchip *chip);
int irqchip_set(struct vm *vm, const struct kvm_irqchip *chip);
int irqchip_set_routing(struct vm *vm, const struct kvm_irq_routing *r); /* entries bounded by caller */
int irqchip_irqfd(struct vm *vm, const struct kvm_irqfd *f, int fd, int resample_fd); /* takes the fds */
int pit_create(struct vm *vm, const struct kvm_pit_config *c);
int pit_get(struct vm *vm, struct kvm_pit_state2 *s);
int pit_set(struct vm *vm, const struct kvm_pit_state2 *s);
int lapic_create(struct vcpu *cpu); /* on vCPU creation when an irqchip exists */
void lapic_get(struct vcpu *cpu, struct kvm_lapic_state *s);
int lapic_set(struct vcpu *cpu, const struct kvm_lapic_state *s);

/* ---- delivery; any thread ---- */
/* Level change of a GSI (KVM_IRQ_LINE): >0 delivered, 0 coalesced, <0 masked or no route; KVM_IRQ_LINE_STATUS returns it. */
int irq_set_gsi(struct vm *vm, u32 gsi, bool level);
int irq_send_msi(struct vm *vm, u64 address, u32 data); /* KVM_SIGNAL_MSI: number of LAPICs that took it, <0 none */

/* ---- owning vCPU thread ---- */
bool lapic_mmio_read(struct vcpu *cpu, gpa_t a, void *data, unsigned len);        /* false: not its page */
bool lapic_mmio_write(struct vcpu *cpu, gpa_t a, const void *data, unsigned len);
bool lapic_msr_read(struct vcpu *cpu, u32 index, u64 *v);  /* x2APIC 0x800..0x8ff; false: #GP */
bool lapic_msr_write(struct vcpu *cpu, u32 index, u64 v);
bool lapic_set_base(struct vcpu *cpu, u64 v, bool host);   /* IA32_APIC_BASE; false: #GP */
void lapic_set_tsc_deadline(struct vcpu *cpu, u64 v);
u64 lapic_get_tsc_deadline(struct vcpu *cpu);
u8 lapic_get_tpr(struct vcpu *cpu);                        /* CR8: 4 bits, TPR[7:4] */
void lapic_set_tpr(struct vcpu *cpu, u8 v);
void lapic_reset(struct vcpu *cpu, bool init);
/* Looks whether the guest has ended an interrupt by its paravirtual EOI bit; no interrupt can be ended so afterwards. */
void lapic_pv_eoi_sync(struct vcpu *cpu);
/* KVM_HC_SEND_IPI: to the APIC IDs min + n for each bit n of low, and min + span + n for each of high. Number of LAPICs that took it. */
int lapic_send_set(struct vcpu *cpu, u64 low, u64 high, u32 min, unsigned span, u32 icr);
/* Vector of the interrupt to deliver now (LAPIC above PPR, else ExtINT from the PIC), or -1. Does not consume. */
int irq_pending_vector(struct vcpu *cpu);
/* Acknowledges it (IRR -> ISR, PIC INTA): call just before delivering; returns the vector actually taken or -1. */
int irq_acknowledge(struct vcpu *cpu);
bool lapic_is_timer(const struct vcpu *cpu, unsigned vector); /* the vector is that of the local timer */
/* INIT/SIPI/NMI that arrived: sets cpu->init_pending etc. from the atomics other threads wrote. */
void lapic_take_events(struct vcpu *cpu);
/* The vCPU's host timer fired (ATT_TIMER): expires what is due, arms the next. */
void lapic_timer_run(struct vcpu *cpu);
/* After the guest's TSC changed (offset, adjust): re-arm. */
void lapic_timer_rearm(struct vcpu *cpu);

/* IOAPIC MMIO, PIC/PIT/ELCR ports: false if the address is not theirs. Any vCPU thread. */
bool ioapic_mmio_read(struct vm *vm, gpa_t a, void *data, unsigned len);
bool ioapic_mmio_write(struct vm *vm, gpa_t a, const void *data, unsigned len);
bool irqchip_pio_read(struct vm *vm, u16 port, unsigned len, u32 *v);
bool irqchip_pio_write(struct vm *vm, u16 port, unsigned len, u32 v);

/* Interrupts from processes that serve devices (wake.c, base/wake.h): DOPPEL_SET_WAKE_PAGE, and how a vCPU sleeps: until its
 * attention word is not 0, or it is rung, or for no reason. */
int wake_set_page(struct vm *vm, int fd);
void wake_wait(struct vcpu *cpu);

/* ---- main thread's event loop ---- */
/* fds to poll and what to do: the loop is engine/main loop (api/loop.h). */

#endif
