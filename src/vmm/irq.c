/*
 * Interrupts into the in-kernel controllers: lines, MSIs, and the GSI table that binds eventfds to MSIs. The kernel takes the table
 * as a whole, so it is kept here and sent anew at each change.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include "vmm/machine.h"
#include "vmm/wake.h"

enum { GSI_LINES = 24, PIC_PINS = 8, MSI_ROUTES = 256, FIXED_MAX = 2 * GSI_LINES };

struct msi_table {
	struct {
		bool used;
		u64 addr;
		u32 data;
	} route[MSI_ROUTES]; /* GSI = GSI_LINES + index */
};

static void irqchip_entry(struct kvm_irq_routing *t, u32 gsi, u32 chip, u32 pin)
{
	t->entries[t->nr++] = (struct kvm_irq_routing_entry){
		.gsi = gsi, .type = KVM_IRQ_ROUTING_IRQCHIP, .u.irqchip = {.irqchip = chip, .pin = pin}};
}

/* ISA lines go to PIC and IOAPIC alike; the PIT's line 0 sits on IOAPIC pin 2, as on PCs (the MADT says so). */
static void fixed_entries(struct kvm_irq_routing *t)
{
	for (u32 gsi = 0; gsi < GSI_LINES; gsi++) {
		if (gsi < PIC_PINS)
			irqchip_entry(t, gsi, KVM_IRQCHIP_PIC_MASTER, gsi);
		else if (gsi < 2 * PIC_PINS)
			irqchip_entry(t, gsi, KVM_IRQCHIP_PIC_SLAVE, gsi - PIC_PINS);
		if (gsi == 0)
			irqchip_entry(t, gsi, KVM_IRQCHIP_IOAPIC, 2);
		else if (gsi != 2)
			irqchip_entry(t, gsi, KVM_IRQCHIP_IOAPIC, gsi);
	}
}

static int send_table_locked(struct machine *m)
{
	struct kvm_irq_routing *t = calloc(1, sizeof(*t) + (FIXED_MAX + MSI_ROUTES) * sizeof(t->entries[0]));
	long ret = 0;

	if (!t)
		return -ENOMEM;
	fixed_entries(t);
	for (u32 i = 0; i < MSI_ROUTES; i++)
		if (m->msi->route[i].used)
			t->entries[t->nr++] = (struct kvm_irq_routing_entry){
				.gsi = GSI_LINES + i, .type = KVM_IRQ_ROUTING_MSI,
				.u.msi = {.address_lo = (u32)m->msi->route[i].addr,
					  .address_hi = (u32)(m->msi->route[i].addr >> 32),
					  .data = m->msi->route[i].data}};
	ret = kvm_ioctl(m->vm, KVM_SET_GSI_ROUTING, t);
	free(t);
	return (int)MIN(ret, 0);
}

int irq_init(struct machine *m, struct err *e)
{
	int ret = 0;

	m->msi = calloc(1, sizeof(*m->msi));
	if (!m->msi)
		return err_set(e, ENOMEM, "machine: no memory");
	pthread_mutex_lock(&m->irq_lock);
	ret = send_table_locked(m);
	pthread_mutex_unlock(&m->irq_lock);
	return ret ? err_set(e, -ret, "KVM: cannot set interrupt routes: %s", strerror(-ret)) : 0;
}

void irq_free(struct machine *m)
{
	free(m->msi);
	m->msi = NULL;
}

void machine_irq(struct machine *m, u32 gsi, bool level)
{
	struct kvm_irq_level l = {.irq = gsi, .level = level};
	long ret = kvm_ioctl(m->vm, KVM_IRQ_LINE, &l);

	if (ret < 0)
		machine_fail(m, "interrupt line %u: %s", gsi, strerror((int)-ret));
}

int machine_msi(struct machine *m, u64 addr, u32 data)
{
	struct kvm_msi msi = {.address_lo = (u32)addr, .address_hi = (u32)(addr >> 32), .data = data};

	return (int)MIN(kvm_ioctl(m->vm, KVM_SIGNAL_MSI, &msi), 0);
}

static int irqfd(struct machine *m, const struct msi_route *r, u32 flags)
{
	struct kvm_irqfd k = {.fd = (u32)r->eventfd, .gsi = r->gsi, .flags = flags};

	return (int)MIN(kvm_ioctl(m->vm, KVM_IRQFD, &k), 0);
}

int machine_msi_route_add(struct machine *m, struct msi_route *r, u64 addr, u32 data)
{
	u32 i = 0;
	int ret = 0;

	r->eventfd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (r->eventfd < 0)
		return -errno;
	pthread_mutex_lock(&m->irq_lock);
	while (i < MSI_ROUTES && m->msi->route[i].used)
		i++;
	if (i == MSI_ROUTES) {
		ret = -ENOSPC;
		goto out;
	}
	r->gsi = GSI_LINES + i;
	m->msi->route[i].used = true;
	m->msi->route[i].addr = addr;
	m->msi->route[i].data = data;
	ret = send_table_locked(m);
	if (!ret)
		ret = irqfd(m, r, 0);
	if (ret) {
		m->msi->route[i].used = false;
	} else {
		r->wake = wake_source(m, r->eventfd);
		wake_bound(m, r->eventfd, r->gsi);
	}
out:
	pthread_mutex_unlock(&m->irq_lock);
	if (ret)
		close(r->eventfd);
	return ret;
}

int machine_msi_route_set(struct machine *m, struct msi_route *r, u64 addr, u32 data)
{
	u32 i = r->gsi - GSI_LINES;
	int ret = 0;

	pthread_mutex_lock(&m->irq_lock);
	m->msi->route[i].addr = addr;
	m->msi->route[i].data = data;
	ret = send_table_locked(m);
	pthread_mutex_unlock(&m->irq_lock);
	return ret;
}

int machine_msi_route_bind(struct machine *m, const struct msi_route *r, int fd, bool on)
{
	const struct msi_route other = {.gsi = r->gsi, .eventfd = fd};

	int ret = 0;

	if (!on)
		wake_unbind(m, fd);
	ret = irqfd(m, &other, on ? 0 : KVM_IRQFD_FLAG_DEASSIGN);
	if (on && !ret)
		wake_bound(m, fd, r->gsi);
	return ret;
}

bool machine_msi_route_fire(struct machine *m, const struct msi_route *r)
{
	const u64 one = 1;

	return wake_by(m, r->wake) || write(r->eventfd, &one, sizeof(one)) == sizeof(one);
}

void machine_msi_route_del(struct machine *m, struct msi_route *r)
{
	wake_forget(m, r->wake);
	pthread_mutex_lock(&m->irq_lock);
	irqfd(m, r, KVM_IRQFD_FLAG_DEASSIGN);
	m->msi->route[r->gsi - GSI_LINES].used = false;
	send_table_locked(m);
	pthread_mutex_unlock(&m->irq_lock);
	close(r->eventfd);
	r->eventfd = -1;
}

int machine_ioeventfd(struct machine *m, bool pio, u64 addr, u32 len, int eventfd, bool add)
{
	struct kvm_ioeventfd k = {.addr = addr, .len = len, .fd = eventfd,
				  .flags = (pio ? KVM_IOEVENTFD_FLAG_PIO : 0) | (add ? 0 : KVM_IOEVENTFD_FLAG_DEASSIGN)};

	return (int)MIN(kvm_ioctl(m->vm, KVM_IOEVENTFD, &k), 0);
}
