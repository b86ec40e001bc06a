/* VM requests. Main thread. */
#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include "engine/api/api.h"
#include "engine/cpu/cpu.h"
#include "engine/cpu/pvclock.h"
#include "engine/interp/interp.h"
#include "engine/ioeventfd.h"
#include "engine/irqchip/irqchip.h"
#include "engine/lib/lib.h"
#include "engine/mmu/mmu.h"
#include "engine/trace/trace.h"
#include "engine/translate/check.h"

static int take_fd(struct api_call *c, unsigned i)
{
	int fd = i < c->nfds ? c->fds[i] : -1;

	if (i < c->nfds)
		c->fds[i] = -1;
	return fd;
}

static s64 vm_check_extension(struct api_call *c)
{
	return api_check_extension(c->arg);
}

static s64 vm_create_vcpu(struct api_call *c)
{
	int fd = -1, r;

	if (!c->vm->boot_ns || ((c->vm->one_cpu || tr_checking()) && c->vm->nvcpus)) /* a second one would write between the turns */
		return -EINVAL;
	r = vcpu_create(c->vm, (u32)MIN(c->arg, 0xffffffffull), &fd);
	c->size = 0;
	c->reply_fd = fd;
	return r;
}

struct region_change {
	const struct kvm_userspace_memory_region *r;
	int fd, ret;
	u64 offset;
};

static void change_region(struct vm *vm, void *arg)
{
	struct region_change *q = arg;

	q->ret = mmu_set_region(vm, q->r, q->fd, q->offset);
}

static s64 vm_memory_region(struct api_call *c)
{
	struct region_change q = {.r = (void *)c->buf, .fd = take_fd(c, 0), .offset = c->arg};

	vm_safepoint(c->vm, NULL, change_region, &q);
	if (q.ret < 0 && q.fd >= 0)
		close(q.fd);
	return q.ret;
}

/* A bitmap of one bit per page can be 128 MiB: mapped for the request. */
static u64 *calloc_bitmap(u64 bytes)
{
	void *p = mmap((void *)ENG_BITMAP_BASE, bytes, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);

	return p == (void *)ENG_BITMAP_BASE ? p : NULL;
}

static void free_bitmap(u64 *p, u64 bytes)
{
	munmap(p, bytes);
}

struct log_query {
	u32 slot;
	u64 *bitmap, bytes;
	int ret;
};

static void read_log(struct vm *vm, void *arg)
{
	struct log_query *q = arg;

	q->ret = mmu_get_dirty_log(vm, q->slot, q->bitmap, q->bytes);
}

static s64 vm_dirty_log(struct api_call *c)
{
	const struct kvm_dirty_log *l = (void *)c->buf;
	struct log_query q = {.slot = l->slot};
	int fd = take_fd(c, 0);

	if (fd < 0)
		return -EINVAL;
	if (l->slot < VM_MAX_SLOTS && c->vm->slots[l->slot].used) {
		q.bytes = ALIGN_UP(c->vm->slots[l->slot].size >> PAGE_SHIFT, 64) / 8;
		q.bitmap = calloc_bitmap(q.bytes);
		if (!q.bitmap) {
			close(fd);
			return -ENOMEM;
		}
		vm_safepoint(c->vm, NULL, read_log, &q);
		if (q.ret >= 0 && pwrite(fd, q.bitmap, q.bytes, 0) != (ssize_t)q.bytes)
			q.ret = -ENOMEM;
		free_bitmap(q.bitmap, q.bytes);
	} else {
		q.ret = -ENOENT;
	}
	close(fd);
	return q.ret < 0 ? q.ret : (s64)q.bytes;
}

static s64 vm_create_irqchip(struct api_call *c)
{
	if (c->vm->irqchip)
		return -EEXIST;
	if (c->vm->nvcpus)
		return -EINVAL;
	return irqchip_create(c->vm);
}

static s64 vm_get_irqchip(struct api_call *c)
{
	return c->vm->irqchip ? irqchip_get(c->vm, (void *)c->buf) : -ENXIO;
}

static s64 vm_set_irqchip(struct api_call *c)
{
	return c->vm->irqchip ? irqchip_set(c->vm, (void *)c->buf) : -ENXIO;
}

static s64 vm_irq_line(struct api_call *c)
{
	const struct kvm_irq_level *l = (void *)c->buf;

	if (!c->vm->irqchip)
		return -ENXIO;
	irq_set_gsi(c->vm, l->irq, l->level);
	return 0;
}

static s64 vm_irq_line_status(struct api_call *c)
{
	struct kvm_irq_level *l = (void *)c->buf;

	if (!c->vm->irqchip)
		return -ENXIO;
	l->status = irq_set_gsi(c->vm, l->irq, l->level);
	return 0;
}

static s64 vm_signal_msi(struct api_call *c)
{
	const struct kvm_msi *m = (void *)c->buf;

	if (!c->vm->irqchip || m->flags)
		return -EINVAL;
	return irq_send_msi(c->vm, (u64)m->address_hi << 32 | m->address_lo, m->data);
}

static s64 vm_gsi_routing(struct api_call *c)
{
	const struct kvm_irq_routing *r = (void *)c->buf;

	if (!c->vm->irqchip || r->flags || r->nr > 1024 ||
	    c->size < sizeof(*r) + r->nr * sizeof(struct kvm_irq_routing_entry))
		return -EINVAL;
	return irqchip_set_routing(c->vm, r);
}

static s64 vm_irqfd(struct api_call *c)
{
	int fd = take_fd(c, 0), resample = take_fd(c, 1);

	if (!c->vm->irqchip || fd < 0) {
		if (fd >= 0)
			close(fd);
		if (resample >= 0)
			close(resample);
		return -EINVAL;
	}
	return irqchip_irqfd(c->vm, (void *)c->buf, fd, resample);
}

static s64 vm_ioeventfd_request(struct api_call *c)
{
	return vm_ioeventfd(c->vm, (void *)c->buf, take_fd(c, 0));
}

/* Once for a vCPU. */
static s64 vm_set_bell(struct api_call *c)
{
	struct vm *vm = c->vm;
	int fd = take_fd(c, 0);
	u32 i = 0;

	while (i < vm->nvcpus && vm->vcpus[i]->id != c->arg)
		i++;
	if (fd >= 0 && i < vm->nvcpus && !vm->vcpus[i]->bell) {
		__atomic_store_n(&vm->vcpus[i]->bell, fd + 1, __ATOMIC_RELEASE);
		return 0;
	}
	if (fd >= 0)
		close(fd);
	return -EINVAL;
}

static s64 vm_create_pit2(struct api_call *c)
{
	return c->vm->irqchip ? pit_create(c->vm, (void *)c->buf) : -ENOENT;
}

static s64 vm_get_pit2(struct api_call *c)
{
	return pit_get(c->vm, (void *)c->buf);
}

static s64 vm_set_pit2(struct api_call *c)
{
	return pit_set(c->vm, (void *)c->buf);
}

static s64 vm_get_clock(struct api_call *c)
{
	struct kvm_clock_data *d = (void *)c->buf;

	memset(d, 0, sizeof(*d));
	d->clock = pvclock_now_ns(c->vm);
	d->flags = KVM_CLOCK_TSC_STABLE;
	return 0;
}

/* The guest's time pages are made anew while no vCPU reads them. */
static void move_clock(struct vm *vm, void *arg)
{
	u64 ns = 0;

	memcpy(&ns, arg, sizeof(ns));
	pvclock_set_ns(vm, ns);
	for (u32 i = 0; i < vm->nvcpus; i++)
		pvclock_refresh(vm->vcpus[i]);
}

static s64 vm_set_clock(struct api_call *c)
{
	const struct kvm_clock_data *d = (void *)c->buf;

	if (d->flags & ~(u32)(KVM_CLOCK_REALTIME | KVM_CLOCK_TSC_STABLE))
		return -EINVAL;
	vm_safepoint(c->vm, NULL, move_clock, (void *)&d->clock);
	return 0;
}

/* Where the kernel's KVM puts helper pages on old Intel CPUs: accepted, of no use here. */
static s64 vm_tss_addr(struct api_call *c)
{
	c->vm->tss_addr = (u32)c->arg;
	return 0;
}

static s64 vm_identity_map(struct api_call *c)
{
	if (c->vm->nvcpus)
		return -EINVAL;
	memcpy(&c->vm->identity_map_addr, c->buf, sizeof(c->vm->identity_map_addr));
	return 0;
}

static s64 vm_enable_cap(struct api_call *c)
{
	return -EINVAL; /* none can be enabled */
}

static s64 vm_invalidate(struct api_call *c)
{
	const struct doppel_range *r = (void *)c->buf;

	if (r->gpa >= ENG_GPA_LIMIT || r->size > ENG_GPA_LIMIT - r->gpa)
		return -EINVAL;
	code_invalidate(r->gpa, r->size);
	return 0;
}

static s64 vm_trace_start(struct api_call *c)
{
	struct doppel_trace t;

	memcpy(&t, c->buf, sizeof(t));
	return trace_start(c->vm, &t, take_fd(c, 0));
}

static s64 vm_set_wake_page(struct api_call *c)
{
	return c->nfds == 1 ? wake_set_page(c->vm, c->fds[0]) : -EINVAL;
}

static s64 vm_add_window(struct api_call *c)
{
	const struct doppel_window *w = (void *)c->buf;
	int fd = take_fd(c, 0), ret = fd >= 0 ? window_add(c->vm, w->size, fd) : -EINVAL;

	if (ret < 0 && fd >= 0)
		close(fd);
	return ret;
}

static s64 vm_place_window(struct api_call *c)
{
	const struct doppel_place *p = (void *)c->buf;

	return window_place(c->vm, p->window, p->gpa);
}

static s64 vm_trace_stop(struct api_call *c)
{
	return trace_stop(c->vm);
}

static s64 vm_count_insns(struct api_call *c)
{
	sample_count(c->vm);
	return 0;
}

static s64 vm_get_samples(struct api_call *c)
{
	sample_get(c->vm, (void *)c->buf);
	return 0;
}

static s64 vm_set_open_ports(struct api_call *c)
{
	const struct doppel_ports *p = (void *)c->buf;

	for (unsigned i = 0; i < ARRAY_SIZE(c->vm->open_ports); i++) {
		u64 v = 0;

		memcpy(&v, p->open + i * sizeof(v), sizeof(v));
		__atomic_store_n(&c->vm->open_ports[i], v, __ATOMIC_RELEASE);
	}
	return 0;
}

static s64 vm_one_cpu(struct api_call *c)
{
	if (c->vm->nvcpus)
		return -EINVAL; /* it may have translated code already */
	c->vm->one_cpu = true;
	return 0;
}

const struct api_row api_vm_rows[] = {
	API_ROW(KVM_CHECK_EXTENSION, vm_check_extension),
	API_ROW(KVM_CREATE_VCPU, vm_create_vcpu),
	API_ROW(KVM_SET_USER_MEMORY_REGION, vm_memory_region),
	API_ROW(KVM_GET_DIRTY_LOG, vm_dirty_log),
	API_ROW(KVM_CREATE_IRQCHIP, vm_create_irqchip),
	API_ROW(KVM_GET_IRQCHIP, vm_get_irqchip),
	API_ROW(KVM_SET_IRQCHIP, vm_set_irqchip),
	API_ROW(KVM_IRQ_LINE, vm_irq_line),
	API_ROW(KVM_IRQ_LINE_STATUS, vm_irq_line_status),
	API_ROW(KVM_SIGNAL_MSI, vm_signal_msi),
	API_ROW(KVM_SET_GSI_ROUTING, vm_gsi_routing),
	API_ROW(KVM_IRQFD, vm_irqfd),
	API_ROW(KVM_IOEVENTFD, vm_ioeventfd_request),
	API_ROW(KVM_CREATE_PIT2, vm_create_pit2),
	API_ROW(KVM_GET_PIT2, vm_get_pit2),
	API_ROW(KVM_SET_PIT2, vm_set_pit2),
	API_ROW(KVM_GET_CLOCK, vm_get_clock),
	API_ROW(KVM_SET_CLOCK, vm_set_clock),
	API_ROW(KVM_SET_TSS_ADDR, vm_tss_addr),
	API_ROW(KVM_SET_IDENTITY_MAP_ADDR, vm_identity_map),
	API_ROW(KVM_ENABLE_CAP, vm_enable_cap),
	API_ROW(DOPPEL_INVALIDATE, vm_invalidate),
	API_ROW(DOPPEL_SET_BELL, vm_set_bell),
	API_ROW(DOPPEL_SET_WAKE_PAGE, vm_set_wake_page),
	API_ROW(DOPPEL_ADD_WINDOW, vm_add_window),
	API_ROW(DOPPEL_PLACE_WINDOW, vm_place_window),
	API_ROW(DOPPEL_TRACE_START, vm_trace_start),
	API_ROW(DOPPEL_TRACE_STOP, vm_trace_stop),
	API_ROW(DOPPEL_GET_SAMPLES, vm_get_samples),
	API_ROW(DOPPEL_COUNT_INSNS, vm_count_insns),
	API_ROW(DOPPEL_SET_OPEN_PORTS, vm_set_open_ports),
	API_ROW(DOPPEL_ONE_CPU, vm_one_cpu),
};
const unsigned api_vm_count = ARRAY_SIZE(api_vm_rows);
