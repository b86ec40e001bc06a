/*
 * The interrupt controllers that all vCPUs share: IOAPIC, PIC pair, PIT, routing, irqfds. One lock
 * (irq->lock) covers them; under it only LAPIC atomics and kicks happen, so it is held briefly and by any
 * thread.
 */
#ifndef ENGINE_IRQCHIP_INT_H
#define ENGINE_IRQCHIP_INT_H

#include "engine/irqchip/irqchip.h"
#include "engine/lib/lib.h"
#include "engine/lib/loop.h"

#define IOAPIC_PINS    24
#define IOAPIC_BASE    0xfec00000ull
#define PIC_PINS       16
#define IRQ_MAX_GSI    4096
#define IRQ_MAX_ROUTES 4096
#define IRQ_MAX_FDS    1024

/* Who drives a line: a line is high while any source holds it so. */
enum irq_source { SRC_USER, SRC_RESAMPLE, SRC_PIT };

struct ioapic {
	u32 id; /* bits 27-24 of register 0 */
	u32 select;
	u32 irr; /* pins asserted (level) or raised (edge) */
	u64 redir[IOAPIC_PINS];
	u8 sources[IOAPIC_PINS]; /* 1 << enum irq_source: who holds the pin */
};

struct pic {
	struct kvm_pic_state chip[2]; /* the save format is the state */
	u8 sources[PIC_PINS];
	u32 output; /* INTR line; atomic, read without the lock */
};

struct pit {
	bool present, speaker;
	struct kvm_pit_state2 s;
	bool null_count[3];      /* mode set, no count written yet: the counter rests */
	u64 paused[3];           /* ns counted when the gate of mode 0 or 4 dropped, plus 1; 0: counting */
	struct loop_timer timer; /* channel 0 */
	u64 next_edge;           /* when OUT of channel 0 rises next; 0: never */
};

struct irq_route {
	u32 type; /* KVM_IRQ_ROUTING_IRQCHIP or _MSI */
	u32 chip, pin;
	u64 address;
	u32 data;
	u32 next; /* index + 1 of the next route of the GSI */
};

struct irq_routing {
	u32 head[IRQ_MAX_GSI]; /* index + 1 */
	u32 n;
	struct irq_route route[IRQ_MAX_ROUTES];
};

struct irq_fd {
	bool used;
	bool asserted;       /* resample kind: the line is held until the guest's EOI */
	int fd, resample_fd; /* -1: none */
	u32 gsi;
};

struct irqchip {
	u32 lock;
	struct vm *vm;
	struct ioapic ioapic;
	struct pic pic;
	struct pit pit;
	struct irq_routing *routing, *spare;
	u32 nresample; /* irqfds that want EOIs */
	struct irq_fd fds[IRQ_MAX_FDS];
};

/* ---- lock held ---- */
int ioapic_set_pin_locked(struct irqchip *c, unsigned pin, enum irq_source src, bool level);
int pic_set_pin_locked(struct irqchip *c, unsigned pin, enum irq_source src, bool level);
int irq_set_gsi_locked(struct irqchip *c, u32 gsi, enum irq_source src, bool level);
int irq_target_locked(struct irqchip *c, u32 gsi); /* ID of the vCPU that an MSI goes to, or of one of them; -1: none */
void wake_note_locked(struct irqchip *c, u32 gsi); /* an interrupt came by irqfd: who got it is to be woken next time */
void irqfd_eoi_locked(struct irqchip *c, unsigned chip,
		      unsigned pin); /* KVM_IRQCHIP_*; pin within the chip */
void routing_default(struct irq_routing *r);
void ioapic_reset(struct ioapic *io);
void ioapic_restored_locked(struct irqchip *c);
void pic_reset(struct pic *p);
void pic_restored_locked(struct irqchip *c);

/* ---- takes the lock; any thread ---- */
void ioapic_eoi(struct vm *vm, u8 vector);
int pic_pending_vector(struct irqchip *c); /* c may be NULL */
int pic_acknowledge(struct irqchip *c);
/* One byte port each; false: not ours. */
bool pic_port_read(struct irqchip *c, u16 port, u8 *v);
bool pic_port_write(struct irqchip *c, u16 port, u8 v);
bool pit_port_read(struct irqchip *c, u16 port, u8 *v);
bool pit_port_write(struct irqchip *c, u16 port, u8 v);

#endif
