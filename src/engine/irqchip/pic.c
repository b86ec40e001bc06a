/*
 * The pair of 8259A interrupt controllers of the PC (Intel 8259A data sheet), slave on IR2 of the master, and
 * the edge/level registers at 4D0H. The state is KVM's struct kvm_pic_state; names of fields are its.
 */
#include "engine/irqchip/irqchip_int.h"
#include "engine/irqchip/lapic_int.h"

#define CASCADE 2

/* ICW1 */
#define ICW1_INIT 0x10
#define ICW1_IC4  0x01
/* OCW3 */
#define OCW3      0x08
#define OCW3_POLL 0x04
#define OCW3_RR   0x02
#define OCW3_ESMM 0x40
/* ICW4 */
#define ICW4_SFNM 0x10
#define ICW4_AEOI 0x02

void pic_reset(struct pic *p)
{
	memset(p, 0, sizeof(*p));
	p->chip[0].elcr_mask = 0xf8; /* IRQ 0-2 are always edge */
	p->chip[1].elcr_mask = 0xde; /* so are 8 and 13 */
}

/* Rank of the best of the bits in mask, 8 if none; rank 0 is the highest, rotated by priority_add. */
static unsigned best_rank(const struct kvm_pic_state *s, u8 mask)
{
	unsigned rank = 0;

	if (!mask)
		return 8;
	while (!(mask & BIT((rank + s->priority_add) & 7)))
		rank++;
	return rank;
}

/* IR to serve now, -1 if none. In special fully nested mode the master lets further requests of the slave
 * through; special mask mode takes masked levels out of the priority comparison. */
static int chip_request(const struct pic *p, unsigned n)
{
	const struct kvm_pic_state *s = &p->chip[n];
	u8 served = s->isr;
	unsigned rank = best_rank(s, s->irr & ~s->imr);

	if (rank == 8)
		return -1;
	if (s->special_mask)
		served &= ~s->imr;
	if (s->special_fully_nested_mode && n == 0)
		served &= ~BIT(CASCADE);
	return rank < best_rank(s, served) ? (int)((rank + s->priority_add) & 7) : -1;
}

static void chip_set_line(struct kvm_pic_state *s, unsigned ir, bool level)
{
	u8 bit = BIT(ir);

	if (s->elcr & bit) {
		s->irr = level ? s->irr | bit : s->irr & ~bit;
		s->last_irr = level ? s->last_irr | bit : s->last_irr & ~bit;
	} else if (level) {
		if (!(s->last_irr & bit))
			s->irr |= bit;
		s->last_irr |= bit;
	} else {
		s->last_irr &= ~bit;
	}
}

/* The slave's INTR drives IR2 of the master; the master's drives LINT0 of whoever listens. */
static void update_locked(struct irqchip *c)
{
	struct pic *p = &c->pic;
	bool out = false, was = p->output;
	u32 n = 0;

	chip_set_line(&p->chip[0], CASCADE, false);
	if (chip_request(p, 1) >= 0)
		chip_set_line(&p->chip[0], CASCADE, true);
	else
		p->chip[0].irr &= ~BIT(CASCADE);
	out = chip_request(p, 0) >= 0;
	__atomic_store_n(&p->output, out, __ATOMIC_RELEASE);
	if (!out || was)
		return;
	n = MIN(__atomic_load_n(&c->vm->nvcpus, __ATOMIC_ACQUIRE), (u32)ENG_MAX_VCPUS);
	for (u32 i = 0; i < n; i++) {
		struct vcpu *cpu = __atomic_load_n(&c->vm->vcpus[i], __ATOMIC_ACQUIRE);

		if (cpu && cpu->lapic && lapic_accepts_extint(cpu->lapic)) {
			vcpu_kick(cpu, ATT_IRQ);
			break;
		}
	}
}

int pic_set_pin_locked(struct irqchip *c, unsigned pin, enum irq_source src, bool level)
{
	struct pic *p = &c->pic;
	struct kvm_pic_state *s = &p->chip[pin >> 3];
	u8 bit = BIT(pin & 7);
	bool had = s->irr & bit, asserted = false;

	if (level)
		p->sources[pin] |= BIT(src);
	else
		p->sources[pin] &= ~BIT(src);
	asserted = p->sources[pin];
	chip_set_line(s, pin & 7, asserted);
	update_locked(c);
	if (s->imr & bit)
		return -1;
	return !(level && had);
}

void pic_restored_locked(struct irqchip *c)
{
	for (unsigned pin = 0; pin < PIC_PINS; pin++)
		c->pic.sources[pin] = c->pic.chip[pin >> 3].last_irr & BIT(pin & 7) ? BIT(SRC_USER) : 0;
	c->pic.output = false; /* so that a waiting one kicks */
	update_locked(c);
}

/* ---- acknowledge ---- */

static void chip_take(struct kvm_pic_state *s, unsigned ir)
{
	if (s->auto_eoi) {
		if (s->rotate_on_auto_eoi)
			s->priority_add = (ir + 1) & 7;
	} else {
		s->isr |= BIT(ir);
	}
	if (!(s->elcr & BIT(ir))) /* a level request stays as long as the line */
		s->irr &= ~BIT(ir);
}

/* End of interrupt of one IR: resample irqfds hear of it. */
static void chip_ended(struct irqchip *c, unsigned n, unsigned ir)
{
	if (c->nresample)
		irqfd_eoi_locked(c, n ? KVM_IRQCHIP_PIC_SLAVE : KVM_IRQCHIP_PIC_MASTER, ir);
}

static unsigned chip_intack(struct irqchip *c, unsigned n)
{
	struct kvm_pic_state *s = &c->pic.chip[n];
	int ir = chip_request(&c->pic, n);

	if (ir < 0)
		return 7; /* the request went away: spurious */
	chip_take(s, (unsigned)ir);
	if (s->auto_eoi)
		chip_ended(c, n, (unsigned)ir);
	return (unsigned)ir;
}

int pic_pending_vector(struct irqchip *c)
{
	struct kvm_pic_state *m = NULL;
	int ir = 0, vector = -1;

	if (!c || !__atomic_load_n(&c->pic.output, __ATOMIC_ACQUIRE))
		return -1;
	eng_lock(&c->lock);
	m = &c->pic.chip[0];
	ir = chip_request(&c->pic, 0);
	if (ir == CASCADE) {
		ir = chip_request(&c->pic, 1);
		vector = c->pic.chip[1].irq_base + (ir < 0 ? 7 : ir);
	} else if (ir >= 0) {
		vector = m->irq_base + ir;
	}
	eng_unlock(&c->lock);
	return vector;
}

int pic_acknowledge(struct irqchip *c)
{
	unsigned ir = 0;
	int vector = -1;

	if (!c)
		return -1;
	eng_lock(&c->lock);
	if (c->pic.output) {
		ir = chip_intack(c, 0);
		vector = c->pic.chip[0].irq_base + (int)ir;
		if (ir == CASCADE)
			vector = c->pic.chip[1].irq_base + (int)chip_intack(c, 1);
		__atomic_store_n(&c->pic.output, false, __ATOMIC_RELAXED); /* INTR drops with INTA */
		update_locked(c);
	}
	eng_unlock(&c->lock);
	return vector;
}

/* ---- programming ---- */

static void chip_init(struct kvm_pic_state *s, u8 icw1)
{
	s->irr &= s->elcr; /* the edge sense is reset */
	s->last_irr &= s->elcr;
	s->imr = s->isr = 0;
	s->priority_add = 0;
	s->special_mask = s->read_reg_select = s->poll = 0;
	s->auto_eoi = s->rotate_on_auto_eoi = s->special_fully_nested_mode = 0;
	s->init4 = icw1 & ICW1_IC4;
	s->init_state = 1;
}

static void chip_ocw3(struct kvm_pic_state *s, u8 v)
{
	if (v & OCW3_POLL)
		s->poll = 1;
	if (v & OCW3_RR)
		s->read_reg_select = v & 1;
	if (v & OCW3_ESMM)
		s->special_mask = v >> 5 & 1;
}

static void chip_eoi(struct irqchip *c, unsigned n, unsigned ir, bool rotate)
{
	struct kvm_pic_state *s = &c->pic.chip[n];

	s->isr &= ~BIT(ir);
	if (rotate)
		s->priority_add = (ir + 1) & 7;
	chip_ended(c, n, ir);
}

static void chip_ocw2(struct irqchip *c, unsigned n, u8 v)
{
	struct kvm_pic_state *s = &c->pic.chip[n];
	unsigned rank = 0;

	switch (v >> 5) {
	case 0: /* rotate in automatic EOI mode: clear, set */
	case 4:
		s->rotate_on_auto_eoi = v >> 7;
		break;
	case 1: /* non-specific EOI, plain or rotating */
	case 5:
		rank = best_rank(s, s->special_mask ? s->isr & ~s->imr : s->isr);
		if (rank < 8)
			chip_eoi(c, n, (rank + s->priority_add) & 7, v >> 7);
		break;
	case 3: /* specific EOI, plain or rotating */
	case 7:
		chip_eoi(c, n, v & 7, v >> 7);
		break;
	case 6: /* set priority */
		s->priority_add = (v + 1) & 7;
		break;
	case 2: /* no operation */
		break;
	}
}

static void chip_write_command(struct irqchip *c, unsigned n, u8 v)
{
	if (v & ICW1_INIT)
		chip_init(&c->pic.chip[n], v);
	else if (v & OCW3)
		chip_ocw3(&c->pic.chip[n], v);
	else
		chip_ocw2(c, n, v);
}

/* init_state: 0 OCW1, 1..3 ICW2..ICW4. The pair is always cascaded, so ICW1.SNGL has no effect. */
static void chip_write_data(struct kvm_pic_state *s, u8 v)
{
	switch (s->init_state) {
	case 0:
		s->imr = v;
		break;
	case 1:
		s->irq_base = v & 0xf8;
		s->init_state = 2;
		break;
	case 2:
		s->init_state = s->init4 ? 3 : 0;
		break;
	default:
		s->special_fully_nested_mode = !!(v & ICW4_SFNM);
		s->auto_eoi = !!(v & ICW4_AEOI);
		s->init_state = 0;
		break;
	}
}

/* Poll: the read is an INTA. A poll of the slave leaves the master's IR2 served, as the wires would. */
static u8 chip_poll(struct irqchip *c, unsigned n)
{
	int ir = chip_request(&c->pic, n);

	c->pic.chip[n].poll = 0;
	if (ir < 0)
		return 0;
	chip_take(&c->pic.chip[n], (unsigned)ir);
	return (u8)(0x80 | ir);
}

static u8 chip_read(struct irqchip *c, unsigned n, bool data)
{
	struct kvm_pic_state *s = &c->pic.chip[n];

	if (s->poll)
		return chip_poll(c, n);
	if (data)
		return s->imr;
	return s->read_reg_select ? s->isr : s->irr;
}

static bool is_pic(u16 port)
{
	return (port & ~0x81) == 0x20;
}
static bool is_elcr(u16 port)
{
	return (port & ~1) == 0x4d0;
}

bool pic_port_read(struct irqchip *c, u16 port, u8 *v)
{
	if (!is_pic(port) && !is_elcr(port))
		return false;
	eng_lock(&c->lock);
	if (is_pic(port)) {
		*v = chip_read(c, port >> 7, port & 1);
		update_locked(c);
	} else {
		*v = c->pic.chip[port & 1].elcr;
	}
	eng_unlock(&c->lock);
	return true;
}

bool pic_port_write(struct irqchip *c, u16 port, u8 v)
{
	if (!is_pic(port) && !is_elcr(port))
		return false;
	eng_lock(&c->lock);
	if (is_elcr(port))
		c->pic.chip[port & 1].elcr = v & c->pic.chip[port & 1].elcr_mask;
	else if (port & 1)
		chip_write_data(&c->pic.chip[port >> 7], v);
	else
		chip_write_command(c, port >> 7, v);
	update_locked(c);
	eng_unlock(&c->lock);
	return true;
}
