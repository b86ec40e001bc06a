/* Tells the engine which I/O ports nobody decodes, so that it answers for them itself: guests write to port 0x80 to wait. */
#include "devices/bus.h"
#include "kvm/chan.h"
#include "vmm/machine.h"

/*
 * The map follows the bus: whoever claims ports returns from bus_add() when the engine knows. A map is made and sent under one
 * lock, so that the last one sent is never older than one that was sent before. A request fails only if the engine is dead.
 */
static void ports_changed(void *machine)
{
	struct machine *m = machine;
	struct doppel_ports p;

	pthread_mutex_lock(&m->ports_lock);
	bus_free_map(m->pio, p.open, DOPPEL_PORTS);
	kvm_ioctl(m->vm, DOPPEL_SET_OPEN_PORTS, &p);
	pthread_mutex_unlock(&m->ports_lock);
}

void ports_follow(struct machine *m)
{
	if (kvm_kind(m->vm) != KVM_KIND_ENGINE)
		return; /* the kernel's KVM knows no such request */
	bus_watch(m->pio, ports_changed, m);
	ports_changed(m);
}
