/* ioeventfd: guest writes that signal an eventfd instead of leaving to the VMM. */
#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine/ioeventfd.h"
#include "engine/lib/lib.h"
#include "engine/safepoint.h"

bool vm_ioeventfd_write(struct vcpu *cpu, bool pio, u64 addr, unsigned len, u64 value)
{
	struct vm *vm = cpu->vm;

	for (u32 i = 0; i < vm->nioeventfds; i++) {
		const struct vm_ioeventfd *e = &vm->ioeventfds[i];
		u64 one = 1;

		if (!e->used || e->pio != pio || e->addr != addr || (e->len && e->len != len))
			continue;
		if (e->has_match && e->match != value)
			continue;
		sys_call(SYS_write, e->fd, &one, sizeof(one));
		cpu->stats.ioeventfds++;
		return true;
	}
	return false;
}

static bool same(const struct vm_ioeventfd *a, const struct vm_ioeventfd *b)
{
	return a->used && a->pio == b->pio && a->addr == b->addr && a->len == b->len && a->has_match == b->has_match &&
	       (!a->has_match || a->match == b->match);
}

struct change {
	struct vm_ioeventfd e;
	bool add;
	int ret;
};

static void apply(struct vm *vm, void *arg)
{
	struct change *c = arg;
	struct vm_ioeventfd *free_slot = NULL;

	for (u32 i = 0; i < VM_MAX_IOEVENTFDS; i++) {
		struct vm_ioeventfd *e = &vm->ioeventfds[i];

		if (!e->used) {
			free_slot = free_slot ? free_slot : e;
			continue;
		}
		if (!same(e, &c->e))
			continue;
		if (c->add) {
			c->ret = -EEXIST;
			return;
		}
		close(e->fd);
		e->used = false;
		c->ret = 0;
		return;
	}
	if (!c->add || !free_slot) {
		c->ret = c->add ? -ENOSPC : -ENOENT;
		return;
	}
	*free_slot = c->e;
	free_slot->used = true;
	vm->nioeventfds = MAX(vm->nioeventfds, (u32)(free_slot - vm->ioeventfds) + 1);
	c->ret = 0;
}

int vm_ioeventfd(struct vm *vm, const struct kvm_ioeventfd *q, int fd)
{
	struct change c = {
		.e = {.pio = q->flags & KVM_IOEVENTFD_FLAG_PIO,
		      .has_match = q->flags & KVM_IOEVENTFD_FLAG_DATAMATCH,
		      .addr = q->addr,
		      .match = q->datamatch,
		      .len = q->len,
		      .fd = fd},
		.add = !(q->flags & KVM_IOEVENTFD_FLAG_DEASSIGN),
	};

	if (fd < 0 || q->flags & ~KVM_IOEVENTFD_VALID_FLAG_MASK ||
	    (q->len != 0 && q->len != 1 && q->len != 2 && q->len != 4 && q->len != 8) ||
	    q->addr + q->len < q->addr || (!q->len && c.e.has_match)) {
		if (fd >= 0)
			close(fd);
		return -EINVAL;
	}
	vm_safepoint(vm, NULL, apply, &c);
	if (!c.add || c.ret < 0)
		close(fd);
	return c.ret;
}
