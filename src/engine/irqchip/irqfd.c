/*
 * irqfd: an eventfd that raises a GSI, watched by the main thread. The plain kind is an edge. The resample
 * kind holds a level line until the guest's EOI, then writes its second eventfd so that the device may raise
 * it again.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/syscall.h>
#include "engine/irqchip/irqchip_int.h"

static void irqfd_fired(void *arg)
{
	struct irq_fd *f = arg;
	struct irqchip *c = the_vm()->irqchip;
	u64 n = 0;

	if (sys_call(SYS_read, f->fd, &n, sizeof(n)) != sizeof(n))
		return;
	eng_lock(&c->lock);
	if (f->resample_fd >= 0) {
		f->asserted = true;
		irq_set_gsi_locked(c, f->gsi, SRC_RESAMPLE, true);
	} else {
		irq_set_gsi_locked(c, f->gsi, SRC_USER, true);
		irq_set_gsi_locked(c, f->gsi, SRC_USER, false);
		wake_note_locked(c, f->gsi);
	}
	eng_unlock(&c->lock);
}

static bool gsi_reaches(const struct irqchip *c, u32 gsi, unsigned chip, unsigned pin)
{
	for (u32 i = c->routing->head[gsi]; i; i = c->routing->route[i - 1].next) {
		const struct irq_route *e = &c->routing->route[i - 1];

		if (e->type == KVM_IRQ_ROUTING_IRQCHIP && e->chip == chip && e->pin == pin)
			return true;
	}
	return false;
}

/* One line may be shared by several: all are told. */
void irqfd_eoi_locked(struct irqchip *c, unsigned chip, unsigned pin)
{
	u64 one = 1;

	for (unsigned i = 0; i < IRQ_MAX_FDS; i++) {
		struct irq_fd *f = &c->fds[i];

		if (!f->used || f->resample_fd < 0 || !gsi_reaches(c, f->gsi, chip, pin))
			continue;
		if (f->asserted) {
			f->asserted = false;
			irq_set_gsi_locked(c, f->gsi, SRC_RESAMPLE, false);
		}
		sys_call(SYS_write, f->resample_fd, &one, sizeof(one));
	}
}

/*
 * Two descriptors of one eventfd? It came over the socket as a fresh number, and kcmp(2) is not for a
 * sandbox. The signal number of asynchronous I/O belongs to the open file and means nothing while O_ASYNC is
 * off: set on one descriptor, it shows on the other if they are the same file.
 */
static bool same_file(int a, int b)
{
	long old = sys_call(SYS_fcntl, a, F_GETSIG);
	long mark = old == SIGIO ? SIGURG : SIGIO;
	bool same = false;

	if (old < 0 || sys_call(SYS_fcntl, b, F_GETSIG) != old || sys_call(SYS_fcntl, a, F_SETSIG, mark) < 0)
		return false;
	same = sys_call(SYS_fcntl, b, F_GETSIG) == mark;
	sys_call(SYS_fcntl, a, F_SETSIG, old);
	return same;
}

static void fd_close(int fd)
{
	if (fd >= 0)
		sys_call(SYS_close, fd);
}

static int irqfd_deassign(struct irqchip *c, u32 gsi, int fd)
{
	for (unsigned i = 0; i < IRQ_MAX_FDS; i++) {
		struct irq_fd *f = &c->fds[i];

		if (!f->used || f->gsi != gsi || !same_file(f->fd, fd))
			continue;
		loop_del(f->fd);
		eng_lock(&c->lock);
		if (f->asserted)
			irq_set_gsi_locked(c, gsi, SRC_RESAMPLE, false);
		c->nresample -= f->resample_fd >= 0;
		f->used = false;
		eng_unlock(&c->lock);
		fd_close(f->fd);
		fd_close(f->resample_fd);
	}
	return 0; /* KVM does not mind if there was none */
}

static int irqfd_assign(struct irqchip *c, u32 gsi, int fd, int resample_fd)
{
	struct irq_fd *f = c->fds;
	int r = 0;

	while (f < c->fds + IRQ_MAX_FDS && f->used)
		f++;
	if (f == c->fds + IRQ_MAX_FDS)
		return -ENOSPC;
	eng_lock(&c->lock);
	*f = (struct irq_fd){.used = true, .fd = fd, .resample_fd = resample_fd, .gsi = gsi};
	c->nresample += resample_fd >= 0;
	eng_unlock(&c->lock);
	r = loop_add(fd, irqfd_fired, f);
	if (!r)
		return 0;
	eng_lock(&c->lock);
	f->used = false;
	c->nresample -= resample_fd >= 0;
	eng_unlock(&c->lock);
	return r;
}

int irqchip_irqfd(struct vm *vm, const struct kvm_irqfd *f, int fd, int resample_fd)
{
	struct irqchip *c = vm->irqchip;
	bool resample = f->flags & KVM_IRQFD_FLAG_RESAMPLE, deassign = f->flags & KVM_IRQFD_FLAG_DEASSIGN;
	int r = -EINVAL;

	if (!c || f->gsi >= IRQ_MAX_GSI || (f->flags & ~(KVM_IRQFD_FLAG_RESAMPLE | KVM_IRQFD_FLAG_DEASSIGN)))
		goto drop;
	if (fd < 0) {
		r = -EBADF;
		goto drop;
	}
	if (deassign) {
		r = irqfd_deassign(c, f->gsi, fd);
		goto drop;
	}
	if (!resample) {
		fd_close(resample_fd);
		resample_fd = -1;
	} else if (resample_fd < 0) {
		r = -EBADF;
		goto drop;
	}
	r = irqfd_assign(c, f->gsi, fd, resample_fd);
	if (!r)
		return 0;
drop:
	fd_close(fd);
	fd_close(resample_fd);
	return r;
}
