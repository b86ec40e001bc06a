/* A VM of one vCPU and 1 MiB for tests of the KVM API: in real mode at 0:1000, SP 8000. */
#ifndef TESTS_KVM_VM_H
#define TESTS_KVM_VM_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "kvm/chan.h"
#include "kvm/kvm.h"

#define RAM_SIZE (1 << 20)

struct vm {
	struct kvm_obj *sys, *vm, *vcpu;
	struct kvm_run *run;
	u8 *ram;
};
static enum kvm_choice choice = KVM_CHOICE_INTERP; /* which KVM */

static bool one_cpu; /* with DOPPEL_ONE_CPU */

/* A test that hangs ends by SIGALRM. */
static void start_with(struct vm *v, const u8 *code, size_t n, bool irqchip)
{
	struct kvm_open_result res;
	struct kvm_userspace_memory_region r = {.memory_size = RAM_SIZE};
	struct kvm_sregs s;
	struct kvm_regs regs = {.rflags = 2, .rip = 0x1000, .rsp = 0x8000};

	alarm(60);
	if (kvm_open(choice, &v->sys, &res) < 0)
		fail_msg("%s", res.why);
	assert_int_equal(kvm_create_vm(v->sys, 0, &v->vm), 0);
	kvm_ioctl(v->vm, KVM_SET_TSS_ADDR, 0xfffbd000ul);
	if (irqchip)
		assert_int_equal(kvm_ioctl(v->vm, KVM_CREATE_IRQCHIP, 0ul), 0);
	v->ram = kvm_ram_alloc(RAM_SIZE, NULL);
	assert_non_null(v->ram);
	r.userspace_addr = (u64)v->ram;
	assert_int_equal(kvm_ioctl(v->vm, KVM_SET_USER_MEMORY_REGION, &r), 0);
	if (one_cpu)
		assert_int_equal(kvm_ioctl(v->vm, DOPPEL_ONE_CPU, 0ul), 0);
	assert_int_equal(kvm_create_vcpu(v->vm, 0, &v->vcpu), 0);
	v->run = kvm_vcpu_run_area(v->vcpu);
	memcpy(v->ram + 0x1000, code, n);
	assert_int_equal(kvm_ioctl(v->vcpu, KVM_GET_SREGS, &s), 0);
	s.cs.base = 0;
	s.cs.selector = 0;
	assert_int_equal(kvm_ioctl(v->vcpu, KVM_SET_SREGS, &s), 0);
	assert_int_equal(kvm_ioctl(v->vcpu, KVM_SET_REGS, &regs), 0);
}
static void stop(struct vm *v)
{
	kvm_close(v->vcpu);
	kvm_close(v->vm);
	kvm_close(v->sys);
	kvm_ram_free(v->ram, RAM_SIZE);
	alarm(0);
}

#endif
