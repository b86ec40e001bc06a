/*
 * The seam end to end: starts an engine, makes a VM, runs a few instructions, and checks exits and state as any KVM client would.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "kvm_vm.h"

static void start(struct vm *v, const u8 *code, size_t n)
{
	start_with(v, code, n, false);
}

static void out_and_hlt(void **state)
{
	static const u8 code[] = {0xb0, 'A', 0xe6, 0xe9,	 /* mov al,'A'; out 0xe9,al */
				  0x40, 0xa3, 0x00, 0x20,	 /* inc ax; mov [0x2000],ax */
				  0xe4, 0x10, 0x88, 0xc3, 0xf4}; /* in al,0x10; mov bl,al; hlt */
	struct vm v;
	struct kvm_regs r;

	(void)state;
	start(&v, code, sizeof(code));
	assert_int_equal(kvm_ioctl(v.vcpu, KVM_RUN, 0), 0);
	assert_int_equal(v.run->exit_reason, KVM_EXIT_IO);
	assert_int_equal(v.run->io.port, 0xe9);
	assert_int_equal(((u8 *)v.run)[v.run->io.data_offset], 'A');
	assert_int_equal(kvm_ioctl(v.vcpu, KVM_RUN, 0), 0);
	assert_int_equal(v.run->exit_reason, KVM_EXIT_IO);
	assert_int_equal(v.run->io.direction, KVM_EXIT_IO_IN);
	((u8 *)v.run)[v.run->io.data_offset] = 0x5a;
	assert_int_equal(kvm_ioctl(v.vcpu, KVM_RUN, 0), 0);
	assert_int_equal(v.run->exit_reason, KVM_EXIT_HLT);
	assert_int_equal(v.ram[0x2000], 'B');
	assert_int_equal(kvm_ioctl(v.vcpu, KVM_GET_REGS, &r), 0);
	assert_int_equal(r.rip, 0x1000 + sizeof(code));
	assert_int_equal(r.rbx & 0xff, 0x5a);
	stop(&v);
}

static void mmio(void **state)
{
	/* mov ax,0xf000; mov ds,ax; mov bx,0; mov byte [bx],7 ; add [bx+0x100],... ; hlt — RAM ends at 1 MiB - use hole */
	static const u8 code[] = {0xb8, 0xff, 0xff, 0x8e, 0xd8,	  /* mov ax,0xffff; mov ds,ax */
				  0xc6, 0x06, 0x10, 0x00, 7,	  /* mov byte [0x10],7 -> 0x100000 */
				  0x83, 0x06, 0x14, 0x00, 5, 0xf4}; /* add word [0x14],5 */
	struct vm v;

	(void)state;
	start(&v, code, sizeof(code));
	assert_int_equal(kvm_ioctl(v.vcpu, KVM_RUN, 0), 0);
	assert_int_equal(v.run->exit_reason, KVM_EXIT_MMIO);
	assert_int_equal(v.run->mmio.phys_addr, 0x100000);
	assert_true(v.run->mmio.is_write);
	assert_int_equal(v.run->mmio.data[0], 7);
	assert_int_equal(kvm_ioctl(v.vcpu, KVM_RUN, 0), 0);
	assert_int_equal(v.run->exit_reason, KVM_EXIT_MMIO);
	assert_int_equal(v.run->mmio.phys_addr, 0x100004);
	assert_false(v.run->mmio.is_write);
	assert_int_equal(v.run->mmio.len, 2);
	v.run->mmio.data[0] = 0x30;
	v.run->mmio.data[1] = 0x01;
	assert_int_equal(kvm_ioctl(v.vcpu, KVM_RUN, 0), 0);
	assert_int_equal(v.run->exit_reason, KVM_EXIT_MMIO);
	assert_true(v.run->mmio.is_write);
	assert_int_equal(v.run->mmio.data[0], 0x35);
	assert_int_equal(v.run->mmio.data[1], 0x01);
	assert_int_equal(kvm_ioctl(v.vcpu, KVM_RUN, 0), 0);
	assert_int_equal(v.run->exit_reason, KVM_EXIT_HLT);
	stop(&v);
}

static void immediate_exit(void **state)
{
	static const u8 code[] = {0xeb, 0xfe};
	struct vm v;

	(void)state;
	start(&v, code, sizeof(code));
	v.run->immediate_exit = 1;
	assert_int_equal(kvm_ioctl(v.vcpu, KVM_RUN, 0), -EINTR);
	v.run->immediate_exit = 0;
	kvm_vcpu_kick(v.vcpu);
	assert_int_equal(kvm_ioctl(v.vcpu, KVM_RUN, 0), -EINTR);
	assert_int_equal(v.run->exit_reason, KVM_EXIT_INTR);
	stop(&v);
}

static void bad_requests(void **state)
{
	static const u8 code[] = {0xf4};
	struct vm v;
	struct kvm_userspace_memory_region r = {.slot = 1, .guest_phys_addr = 0x800, .memory_size = 0x1000};
	struct kvm_obj *again;

	(void)state;
	start(&v, code, sizeof(code));
	r.userspace_addr = (u64)v.ram;
	assert_int_equal(kvm_ioctl(v.vm, KVM_SET_USER_MEMORY_REGION, &r), -EINVAL);
	r.guest_phys_addr = 0x1000;
	assert_int_equal(kvm_ioctl(v.vm, KVM_SET_USER_MEMORY_REGION, &r), -EEXIST);
	r.slot = 5000;
	assert_int_equal(kvm_ioctl(v.vm, KVM_SET_USER_MEMORY_REGION, &r), -EINVAL);
	assert_int_equal(kvm_create_vcpu(v.vm, 0, &again), -EEXIST);
	assert_int_equal(kvm_create_vcpu(v.vm, 10000, &again), -EINVAL);
	assert_int_equal(kvm_ioctl(v.vm, 0xae7777ul, 0), -ENOTTY);
	stop(&v);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(out_and_hlt),
		cmocka_unit_test(mmio),
		cmocka_unit_test(immediate_exit),
		cmocka_unit_test(bad_requests),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
