/*
 * A VM whose client says that it has one vCPU: its programs' LOCK prefixes are left out of translated code until one of them uses a device.
 * What the code is, the engine's dump tells.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/base.h"
#include "kvm_vm.h"

#define LOOP 0x1007

/* 32 bits, CPL as said, no paging: (LOCK INC, LOCK XADD) 2000 times, OUT, and again */
static void start_loop(struct vm *v, unsigned cpl)
{
	static const u8 code[] = {
		0xb9, 0xd0, 0x07, 0, 0, 0x31, 0xc0,		/* mov ecx, 2000; xor eax, eax */
		0xf0, 0xff, 0x05, 0, 0x30, 0, 0,		/* 1: lock inc dword [0x3000] */
		0xf0, 0x0f, 0xc1, 0x05, 4, 0x30, 0, 0,		/* lock xadd [0x3004], eax */
		0x31, 0xc0, 0x49, 0x75, 0xec, 0xe6, 0x10,	/* xor eax, eax; dec ecx; jnz 1b; out 0x10, al */
		0xeb, 0xe1,					/* jmp to the beginning */
	};
	struct kvm_sregs s;
	struct kvm_regs r = {.rflags = 0x3002, .rip = 0x1000, .rsp = 0x8000}; /* IOPL 3 */
	struct kvm_segment flat = {.limit = 0xffffffff, .g = 1, .db = 1, .s = 1, .present = 1, .dpl = (u8)cpl};

	start_with(v, code, sizeof(code), false);
	assert_int_equal(kvm_ioctl(v->vcpu, KVM_GET_SREGS, &s), 0);
	s.cr0 |= 1;
	flat.type = 11;
	flat.selector = (u16)(8 | cpl);
	s.cs = flat;
	flat.type = 3;
	flat.selector = (u16)(16 | cpl);
	s.ds = s.es = s.ss = flat;
	assert_int_equal(kvm_ioctl(v->vcpu, KVM_SET_SREGS, &s), 0);
	assert_int_equal(kvm_ioctl(v->vcpu, KVM_SET_REGS, &r), 0);
}

static void run_to_out(struct vm *v)
{
	assert_int_equal(kvm_ioctl(v->vcpu, KVM_RUN, 0), 0);
	assert_int_equal(v->run->exit_reason, KVM_EXIT_IO);
	assert_int_equal(v->run->io.port, 0x10);
}

static unsigned count(const char *text, const char *what)
{
	unsigned n = 0;

	for (const char *p = text; (p = strstr(p, what)); p++)
		n++;
	return n;
}

/* LOCK INC in the host code of all blocks that hold the loop. */
static unsigned host_locks(struct vm *v)
{
	struct doppel_dump *d = calloc(1, sizeof(*d));
	unsigned blocks = 0, locks = 0;

	assert_non_null(d);
	d->pc = LOOP;
	assert_int_equal(kvm_ioctl(v->vcpu, DOPPEL_DUMP_CODE, d), 0);
	assert_true(d->size < sizeof(d->text));
	d->text[d->size] = 0;
	blocks = count(d->text, "host code, entered");
	locks = count(d->text, "lock inc");
	assert_true(blocks > 0);
	assert_true(locks >= blocks); /* the guest's own */
	free(d);
	return locks - blocks;
}

static void programs(void **state)
{
	struct vm v;

	(void)state;
	one_cpu = true;
	start_loop(&v, 3);
	run_to_out(&v);
	assert_int_equal(host_locks(&v), 0);
	run_to_out(&v); /* it has met a device */
	assert_int_equal(host_locks(&v), 1);
	assert_int_equal(*(u32 *)(void *)(v.ram + 0x3000), 4000);
	stop(&v);
}

static void kernels(void **state)
{
	struct vm v;

	(void)state;
	one_cpu = true;
	start_loop(&v, 0);
	run_to_out(&v);
	assert_int_equal(host_locks(&v), 1);
	stop(&v);
}

static void without(void **state)
{
	struct vm v;

	(void)state;
	one_cpu = false;
	start_loop(&v, 3);
	run_to_out(&v);
	assert_int_equal(host_locks(&v), 1);
	assert_int_equal(kvm_ioctl(v.vm, DOPPEL_ONE_CPU, 0ul), -EINVAL); /* too late */
	stop(&v);
}

static void second(void **state)
{
	struct kvm_obj *cpu = NULL;
	struct vm v;

	(void)state;
	one_cpu = true;
	start_loop(&v, 3);
	assert_int_equal(kvm_create_vcpu(v.vm, 1, &cpu), -EINVAL);
	run_to_out(&v);
	stop(&v);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(programs), cmocka_unit_test(kernels), cmocka_unit_test(without), cmocka_unit_test(second),
	};

	choice = KVM_CHOICE_TRANSLATE;
	return cmocka_run_group_tests_name("one vCPU", tests, NULL, NULL);
}
