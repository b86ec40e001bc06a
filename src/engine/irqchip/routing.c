/* GSI routing: which pins and messages a GSI drives; MSI decoding (SDM 3A 11.11). */
#include <errno.h>
#include "engine/irqchip/irqchip_int.h"
#include "engine/irqchip/lapic_int.h"

static int route_add(struct irq_routing *r, u32 gsi, struct irq_route e)
{
	if (gsi >= IRQ_MAX_GSI || r->n >= IRQ_MAX_ROUTES)
		return -EINVAL;
	e.next = r->head[gsi];
	r->route[r->n++] = e;
	r->head[gsi] = r->n;
	return 0;
}

/* KVM's default: GSI n is pin n of the IOAPIC, the first 16 also the PIC's. */
void routing_default(struct irq_routing *r)
{
	memset(r, 0, sizeof(*r));
	for (u32 i = 0; i < IOAPIC_PINS; i++) {
		route_add(r, i,
			  (struct irq_route){
			      .type = KVM_IRQ_ROUTING_IRQCHIP, .chip = KVM_IRQCHIP_IOAPIC, .pin = i});
		if (i < PIC_PINS)
			route_add(
			    r, i,
			    (struct irq_route){.type = KVM_IRQ_ROUTING_IRQCHIP, .chip = i / 8, .pin = i % 8});
	}
}

static const u32 chip_pins[] = {
    [KVM_IRQCHIP_PIC_MASTER] = 8,
    [KVM_IRQCHIP_PIC_SLAVE] = 8,
    [KVM_IRQCHIP_IOAPIC] = IOAPIC_PINS,
};

static int route_parse(struct irq_routing *r, const struct kvm_irq_routing_entry *e)
{
	struct irq_route n = {.type = e->type};

	switch (e->type) {
	case KVM_IRQ_ROUTING_IRQCHIP:
		n.chip = e->u.irqchip.irqchip;
		n.pin = e->u.irqchip.pin;
		if (e->flags || n.chip >= ARRAY_SIZE(chip_pins) || n.pin >= chip_pins[n.chip])
			return -EINVAL;
		break;
	case KVM_IRQ_ROUTING_MSI:
		n.address = (u64)e->u.msi.address_hi << 32 | e->u.msi.address_lo;
		n.data = e->u.msi.data;
		if (e->flags & ~KVM_MSI_VALID_DEVID)
			return -EINVAL;
		break;
	default: /* Hyper-V SINTs and Xen event channels do not exist here */
		return -EINVAL;
	}
	return route_add(r, e->gsi, n);
}

int irqchip_set_routing(struct vm *vm, const struct kvm_irq_routing *r)
{
	struct irqchip *c = vm->irqchip;
	struct irq_routing *new = NULL;
	int err = 0;

	if (!c || r->flags || r->nr > IRQ_MAX_ROUTES)
		return -EINVAL;
	new = c->spare; /* only this thread uses the spare one */
	memset(new, 0, sizeof(*new));
	for (u32 i = 0; i < r->nr && !err; i++)
		err = route_parse(new, &r->entries[i]);
	if (err)
		return err;
	eng_lock(&c->lock);
	c->spare = c->routing;
	c->routing = new;
	eng_unlock(&c->lock);
	return 0;
}

static struct irq_msg msi_decode(u64 address, u32 data)
{
	return (struct irq_msg){
	    .dest = (u32)(address >> 12) & 0xff,
	    .redirect = address & BIT(3),
	    .logical = address & BIT(2),
	    .vector = (u8)data,
	    .mode = data >> 8 & 7,
	    .assert_ = data & BIT(14),
	    .level = data & BIT(15),
	};
}

static int msi_deliver(struct vm *vm, u64 address, u32 data)
{
	const struct irq_msg m = msi_decode(address, data);

	return lapic_deliver(vm, NULL, &m);
}

int irq_send_msi(struct vm *vm, u64 address, u32 data)
{
	return msi_deliver(vm, address, data);
}

static int route_set_locked(struct irqchip *c, const struct irq_route *e, enum irq_source src, bool level)
{
	if (e->type == KVM_IRQ_ROUTING_MSI)
		return level ? msi_deliver(c->vm, e->address, e->data) : -1;
	if (e->chip == KVM_IRQCHIP_IOAPIC)
		return ioapic_set_pin_locked(c, e->pin, src, level);
	return pic_set_pin_locked(c, e->chip * 8 + e->pin, src, level);
}

int irq_set_gsi_locked(struct irqchip *c, u32 gsi, enum irq_source src, bool level)
{
	int ret = -1;

	if (gsi >= IRQ_MAX_GSI)
		return -1;
	for (u32 i = c->routing->head[gsi]; i; i = c->routing->route[i - 1].next) {
		int r = route_set_locked(c, &c->routing->route[i - 1], src, level);

		if (r >= 0)
			ret = MAX(ret, 0) + r;
	}
	return ret;
}

int irq_target_locked(struct irqchip *c, u32 gsi)
{
	for (u32 i = c->routing->head[gsi]; i; i = c->routing->route[i - 1].next) {
		const struct irq_route *e = &c->routing->route[i - 1];
		const struct irq_msg m = msi_decode(e->address, e->data);

		if (e->type == KVM_IRQ_ROUTING_MSI)
			return lapic_find(c->vm, &m);
	}
	return -1;
}

int irq_set_gsi(struct vm *vm, u32 gsi, bool level)
{
	struct irqchip *c = __atomic_load_n(&vm->irqchip, __ATOMIC_ACQUIRE);
	int ret = -1;

	if (!c)
		return -1;
	eng_lock(&c->lock);
	ret = irq_set_gsi_locked(c, gsi, SRC_USER, level);
	eng_unlock(&c->lock);
	return ret;
}
