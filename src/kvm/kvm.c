/* The seam: sends each request to the kernel's KVM or to the engine. */
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "engine/layout.h" /* only the size of the attribute table */
#include "kvm/chan.h"
#include "kvm/kvm_int.h"

int kvm_open(enum kvm_choice choice, struct kvm_obj **sys, struct kvm_open_result *res)
{
	return kvm_open_sized(choice, 0, sys, res);
}

int kvm_open_sized(enum kvm_choice choice, u64 code_cache, struct kvm_obj **sys, struct kvm_open_result *res)
{
	memset(res, 0, sizeof(*res));
	if (choice == KVM_CHOICE_KVM)
		return device_open(sys, res);
	if (choice == KVM_CHOICE_AUTO && device_hardware_backed() && device_open(sys, res) == 0)
		return 0;
	return engine_open(choice, code_cache, sys, res);
}

const char *kvm_engine_name(const struct kvm_obj *o)
{
	return o->kind == KVM_KIND_ENGINE ? engine_tier(o) : "kvm";
}

long kvm_ioctl(struct kvm_obj *o, unsigned long request, ...)
{
	va_list ap;
	void *arg;
	int r;

	va_start(ap, request);
	arg = va_arg(ap, void *);
	va_end(ap);
	if (o->kind == KVM_KIND_ENGINE)
		return engine_ioctl(o, request, arg);
	if (_IOC_TYPE(request) == DOPPELIO)
		return -ENOTTY; /* the sandbox would not let it pass */
	if (request == KVM_RUN) {
		o->runner = pthread_self();
		__atomic_store_n(&o->running, 1, __ATOMIC_SEQ_CST);
	}
	if (_IOC_TYPE(request) != KVMIO) /* doppel's own, which the sandbox would not let out */
		return -ENOTTY;
	r = ioctl(o->fd, request, arg);
	if (r < 0)
		r = -errno;
	if (request == KVM_RUN) {
		__atomic_store_n(&o->running, 0, __ATOMIC_SEQ_CST);
		o->run->immediate_exit = 0;
	}
	return r;
}

static struct kvm_obj *device_child(enum kvmw_object type, int fd)
{
	struct kvm_obj *o = calloc(1, sizeof(*o));

	if (!o) {
		close(fd);
		return NULL;
	}
	o->kind = KVM_KIND_DEVICE;
	o->type = type;
	o->fd = fd;
	return o;
}

int kvm_create_vm(struct kvm_obj *sys, unsigned long type, struct kvm_obj **vm)
{
	int fd;

	if (sys->kind == KVM_KIND_ENGINE)
		return type ? -EINVAL : engine_create_vm(sys, vm);
	fd = ioctl(sys->fd, KVM_CREATE_VM, type);
	if (fd < 0)
		return -errno;
	*vm = device_child(KVMW_VM, fd);
	return *vm ? 0 : -ENOMEM;
}

int kvm_create_vcpu(struct kvm_obj *vm, unsigned long id, struct kvm_obj **vcpu)
{
	int fd, size, probe;

	if (vm->kind == KVM_KIND_ENGINE)
		return engine_create_vcpu(vm, id, vcpu);
	fd = ioctl(vm->fd, KVM_CREATE_VCPU, id);
	if (fd < 0)
		return -errno;
	*vcpu = device_child(KVMW_VCPU, fd);
	if (!*vcpu)
		return -ENOMEM;
	probe = open_device_node();
	size = probe < 0 ? -1 : ioctl(probe, KVM_GET_VCPU_MMAP_SIZE, 0);
	if (probe >= 0)
		close(probe);
	if (size < (int)sizeof(struct kvm_run))
		size = 3 * 4096;
	(*vcpu)->run = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	(*vcpu)->run_size = size;
	if ((*vcpu)->run == MAP_FAILED) {
		(*vcpu)->run = NULL;
		kvm_close(*vcpu);
		*vcpu = NULL;
		return -ENOMEM;
	}
	return 0;
}

struct kvm_run *kvm_vcpu_run_area(struct kvm_obj *vcpu)
{
	return vcpu->run;
}

void kvm_close(struct kvm_obj *o)
{
	if (!o)
		return;
	if (o->kind == KVM_KIND_ENGINE) {
		engine_close(o);
		return;
	}
	if (o->run)
		munmap(o->run, o->run_size);
	close(o->fd);
	free(o);
}

void kvm_dma_written(struct kvm_obj *vm, gpa_t gpa, u64 size)
{
	if (vm->kind == KVM_KIND_ENGINE)
		engine_dma_written(vm, gpa, size);
}

int kvm_page_attr(const struct kvm_obj *vm, u64 *bytes, u8 *code)
{
	*bytes = ENG_ATTR_SIZE;
	*code = KVMW_ATTR_CODE;
	return vm->kind == KVM_KIND_ENGINE ? engine_attr_fd(vm) : -1;
}

void kvm_vcpu_kick(struct kvm_obj *vcpu)
{
	if (vcpu->kind == KVM_KIND_ENGINE) {
		channel_cancel(vcpu);
		return;
	}
	/* immediate_exit covers a KVM_RUN not yet in the kernel, the signal one that is there */
	__atomic_store_n(&vcpu->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
	if (__atomic_load_n(&vcpu->running, __ATOMIC_SEQ_CST))
		pthread_kill(vcpu->runner, SIGUSR1);
}

enum kvm_kind kvm_kind(const struct kvm_obj *o)
{
	return o->kind;
}

bool kvm_engine_dead(struct kvm_obj *o, char *text, size_t size)
{
	return o->kind == KVM_KIND_ENGINE && engine_dead(o->engine, text, size);
}

int kvm_death_fd(struct kvm_obj *sys)
{
	return sys->kind == KVM_KIND_ENGINE ? engine_death_fd(sys->engine) : -1;
}

int kvm_engine_pid(struct kvm_obj *sys)
{
	return sys->kind == KVM_KIND_ENGINE ? engine_pid(sys->engine) : 0;
}
