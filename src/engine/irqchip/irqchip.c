/* Creation, saved state and port dispatch of the shared interrupt controllers. */
#include <errno.h>
#include "engine/irqchip/irqchip_int.h"

int irqchip_create(struct vm *vm)
{
	struct irqchip *c = NULL;

	if (vm->irqchip)
		return -EEXIST;
	if (vm->nvcpus) /* their LAPICs would be missing */
		return -EINVAL;
	c = vm_alloc(sizeof(*c));
	if (!c)
		return -ENOMEM;
	c->routing = vm_alloc(sizeof(*c->routing));
	c->spare = vm_alloc(sizeof(*c->spare));
	if (!c->routing || !c->spare)
		return -ENOMEM;
	c->vm = vm;
	routing_default(c->routing);
	ioapic_reset(&c->ioapic);
	pic_reset(&c->pic);
	__atomic_store_n(&vm->irqchip, c, __ATOMIC_RELEASE);
	return 0;
}

int irqchip_split(struct vm *vm, u32 pins)
{
	return -EINVAL; /* not offered: KVM_CHECK_EXTENSION says so too */
}

static void ioapic_get(const struct ioapic *io, struct kvm_ioapic_state *s)
{
	memset(s, 0, sizeof(*s));
	s->base_address = IOAPIC_BASE;
	s->ioregsel = io->select;
	s->id = io->id;
	s->irr = io->irr;
	for (unsigned i = 0; i < IOAPIC_PINS; i++)
		s->redirtbl[i].bits = io->redir[i];
}

static void ioapic_set(struct ioapic *io, const struct kvm_ioapic_state *s)
{
	io->select = s->ioregsel & 0xff;
	io->id = s->id & 15;
	io->irr = s->irr & (BIT(IOAPIC_PINS) - 1);
	memset(io->sources, 0, sizeof(io->sources));
	for (unsigned i = 0; i < IOAPIC_PINS; i++)
		io->redir[i] = s->redirtbl[i].bits & 0xff0000000001ffffull;
}

int irqchip_get(struct vm *vm, struct kvm_irqchip *chip)
{
	struct irqchip *c = vm->irqchip;
	int r = 0;

	if (!c)
		return -ENXIO;
	eng_lock(&c->lock);
	switch (chip->chip_id) {
	case KVM_IRQCHIP_PIC_MASTER:
	case KVM_IRQCHIP_PIC_SLAVE:
		chip->chip.pic = c->pic.chip[chip->chip_id];
		break;
	case KVM_IRQCHIP_IOAPIC:
		ioapic_get(&c->ioapic, &chip->chip.ioapic);
		break;
	default:
		r = -EINVAL;
	}
	eng_unlock(&c->lock);
	return r;
}

/* Fields that index or count are bounded; the rest are plain bits. */
static void pic_set(struct pic *p, unsigned n, const struct kvm_pic_state *s)
{
	struct kvm_pic_state v = *s;

	v.priority_add &= 7;
	v.init_state &= 3;
	v.irq_base &= 0xf8;
	v.elcr_mask = p->chip[n].elcr_mask;
	v.elcr &= v.elcr_mask;
	p->chip[n] = v;
}

int irqchip_set(struct vm *vm, const struct kvm_irqchip *chip)
{
	struct irqchip *c = vm->irqchip;
	int r = 0;

	if (!c)
		return -ENXIO;
	eng_lock(&c->lock);
	switch (chip->chip_id) {
	case KVM_IRQCHIP_PIC_MASTER:
	case KVM_IRQCHIP_PIC_SLAVE:
		pic_set(&c->pic, chip->chip_id, &chip->chip.pic);
		pic_restored_locked(c);
		break;
	case KVM_IRQCHIP_IOAPIC:
		ioapic_set(&c->ioapic, &chip->chip.ioapic);
		ioapic_restored_locked(c);
		break;
	default:
		r = -EINVAL;
	}
	eng_unlock(&c->lock);
	return r;
}

/* ---- ports: wider accesses are split into bytes, what is nobody's reads as ones ---- */

static bool port_read(struct irqchip *c, u16 port, u8 *v)
{
	return pic_port_read(c, port, v) || pit_port_read(c, port, v);
}

bool irqchip_pio_read(struct vm *vm, u16 port, unsigned len, u32 *v)
{
	struct irqchip *c = vm->irqchip;
	u8 b = 0;

	if (!c || !port_read(c, port, &b))
		return false;
	*v = b;
	for (unsigned i = 1; i < len; i++) {
		b = 0xff;
		port_read(c, (u16)(port + i), &b);
		*v |= (u32)b << (8 * i);
	}
	return true;
}

bool irqchip_pio_write(struct vm *vm, u16 port, unsigned len, u32 v)
{
	struct irqchip *c = vm->irqchip;

	if (!c || !(pic_port_write(c, port, (u8)v) || pit_port_write(c, port, (u8)v)))
		return false;
	for (unsigned i = 1; i < len; i++) {
		u8 b = (u8)(v >> (8 * i));

		if (!pic_port_write(c, (u16)(port + i), b))
			pit_port_write(c, (u16)(port + i), b);
	}
	return true;
}
