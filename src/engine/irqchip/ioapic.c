/*
 * The I/O APIC: Intel 82093AA, version 11H, 24 pins. Polarity is ignored (a line is asserted or not), as in
 * KVM; there is no EOI register in this version: level interrupts end by the EOI broadcast of the local
 * APICs.
 */
#include "engine/irqchip/irqchip_int.h"
#include "engine/irqchip/lapic_int.h"

#define IOREGSEL       0x00
#define IOWIN          0x10
#define IOAPIC_VERSION 0x11u

/* Redirection entry */
#define RE_VECTOR(e)  ((u8)(e))
#define RE_MODE(e)    ((u8)((e) >> 8 & 7))
#define RE_LOGICAL    BIT64(11)
#define RE_STATUS     BIT64(12)
#define RE_REMOTE_IRR BIT64(14)
#define RE_LEVEL      BIT64(15)
#define RE_MASKED     BIT64(16)
#define RE_DEST(e)    ((u32)((e) >> 56))
#define RE_WRITABLE   0xff0000000001afffull /* not status, not remote IRR */

void ioapic_reset(struct ioapic *io)
{
	memset(io, 0, sizeof(*io));
	for (unsigned i = 0; i < IOAPIC_PINS; i++)
		io->redir[i] = RE_MASKED;
}

/* Sends what the pin asks for; -1 if it may not now. */
static int service_locked(struct irqchip *c, unsigned pin)
{
	struct ioapic *io = &c->ioapic;
	u64 e = io->redir[pin];
	struct irq_msg m = {
	    .dest = RE_DEST(e),
	    .vector = RE_VECTOR(e),
	    .mode = RE_MODE(e),
	    .logical = e & RE_LOGICAL,
	    .level = e & RE_LEVEL,
	    .assert_ = true,
	};
	int r = 0;

	if ((e & RE_MASKED) || (m.level && (e & RE_REMOTE_IRR)))
		return -1;
	r = lapic_deliver(c->vm, NULL, &m);
	if (r > 0 && m.level)
		io->redir[pin] |= RE_REMOTE_IRR;
	return r;
}

int ioapic_set_pin_locked(struct irqchip *c, unsigned pin, enum irq_source src, bool level)
{
	struct ioapic *io = &c->ioapic;
	u32 bit = BIT(pin);
	bool was = io->irr & bit;

	if (level)
		io->sources[pin] |= BIT(src);
	else
		io->sources[pin] &= ~BIT(src);
	if (!io->sources[pin]) {
		io->irr &= ~bit;
		return 1;
	}
	io->irr |= bit;
	if (!level || (was && !(io->redir[pin] & RE_LEVEL)))
		return level ? 0 : 1; /* no new edge */
	return service_locked(c, pin);
}

/* A level pin that is asserted and free to be sent. */
static void resend_locked(struct irqchip *c, unsigned pin)
{
	if ((c->ioapic.redir[pin] & RE_LEVEL) && (c->ioapic.irr & BIT(pin)))
		service_locked(c, pin);
}

void ioapic_eoi(struct vm *vm, u8 vector)
{
	struct irqchip *c = __atomic_load_n(&vm->irqchip, __ATOMIC_ACQUIRE);

	if (!c)
		return;
	eng_lock(&c->lock);
	for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
		u64 *e = &c->ioapic.redir[pin];

		if (RE_VECTOR(*e) != vector || !(*e & RE_LEVEL) || !(*e & RE_REMOTE_IRR))
			continue;
		*e &= ~RE_REMOTE_IRR;
		if (c->nresample)
			irqfd_eoi_locked(c, KVM_IRQCHIP_IOAPIC, pin); /* may lower the line */
		resend_locked(c, pin);
	}
	eng_unlock(&c->lock);
}

void ioapic_restored_locked(struct irqchip *c)
{
	for (unsigned pin = 0; pin < IOAPIC_PINS; pin++)
		if (c->ioapic.irr & BIT(pin)) {
			c->ioapic.sources[pin] = BIT(SRC_USER);
			resend_locked(c, pin);
		}
}

/* ---- registers ---- */

static u32 reg_read(struct ioapic *io)
{
	unsigned i = io->select - 0x10;

	switch (io->select) {
	case 0: /* ID */
	case 2: /* arbitration ID */
		return io->id << 24;
	case 1:
		return (IOAPIC_PINS - 1) << 16 | IOAPIC_VERSION;
	}
	if (i >= 2 * IOAPIC_PINS)
		return 0;
	return (u32)(io->redir[i / 2] >> (i % 2 * 32));
}

static void redir_write_locked(struct irqchip *c, unsigned i, u32 v)
{
	unsigned shift = i % 2 * 32, pin = i / 2;
	u64 *e = &c->ioapic.redir[pin];
	u64 mask = RE_WRITABLE & (0xffffffffull << shift);

	*e = (*e & ~mask) | ((u64)v << shift & mask);
	/* Guests clear remote IRR by switching to edge and back: the way to EOI this version offers them. */
	if (!(*e & RE_LEVEL))
		*e &= ~RE_REMOTE_IRR;
	resend_locked(c, pin);
}

static void reg_write_locked(struct irqchip *c, u32 v)
{
	unsigned i = c->ioapic.select - 0x10;

	if (c->ioapic.select == 0)
		c->ioapic.id = v >> 24 & 15;
	else if (i < 2 * IOAPIC_PINS)
		redir_write_locked(c, i, v);
}

static bool in_window(const struct irqchip *c, gpa_t a)
{
	return c && a - IOAPIC_BASE < 0x100;
}

bool ioapic_mmio_read(struct vm *vm, gpa_t a, void *data, unsigned len)
{
	struct irqchip *c = vm->irqchip;
	u32 v = 0;

	if (!in_window(c, a))
		return false;
	eng_lock(&c->lock);
	if ((a & 0xff) == IOREGSEL)
		v = c->ioapic.select;
	else if ((a & 0xff) == IOWIN)
		v = reg_read(&c->ioapic);
	eng_unlock(&c->lock);
	memset(data, 0, len);
	memcpy(data, &v, MIN(len, 4u));
	return true;
}

bool ioapic_mmio_write(struct vm *vm, gpa_t a, const void *data, unsigned len)
{
	struct irqchip *c = vm->irqchip;
	u32 v = 0;

	if (!in_window(c, a))
		return false;
	memcpy(&v, data, MIN(len, 4u));
	eng_lock(&c->lock);
	if ((a & 0xff) == IOREGSEL)
		c->ioapic.select = v & 0xff;
	else if ((a & 0xff) == IOWIN)
		reg_write_locked(c, v);
	eng_unlock(&c->lock);
	return true;
}
