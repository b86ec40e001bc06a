/* System and VM requests that create things and tell what there is. */
#include <errno.h>

#include "engine/api/api.h"
#include "engine/cpu/cpu.h"
#include "engine/cpu/fpu.h"
#include "engine/lib/lib.h"

/* Value of each capability; those not named are 0. Only what works. */
static const struct {
	u32 cap;
	u32 value;
} caps[] = {
	{KVM_CAP_IRQCHIP, 1}, {KVM_CAP_HLT, 1}, {KVM_CAP_USER_MEMORY, 1}, {KVM_CAP_SET_TSS_ADDR, 1},
	{KVM_CAP_EXT_CPUID, 1}, {KVM_CAP_CLOCKSOURCE, 1}, {KVM_CAP_NR_VCPUS, 8}, {KVM_CAP_MAX_VCPUS, ENG_MAX_VCPUS},
	{KVM_CAP_MAX_VCPU_ID, ENG_MAX_VCPUS}, {KVM_CAP_NR_MEMSLOTS, VM_MAX_SLOTS}, {KVM_CAP_PIT, 1}, {KVM_CAP_PIT2, 1},
	{KVM_CAP_PIT_STATE2, 1}, {KVM_CAP_NOP_IO_DELAY, 1}, {KVM_CAP_MP_STATE, 1}, {KVM_CAP_SYNC_MMU, 1},
	{KVM_CAP_DESTROY_MEMORY_REGION_WORKS, 1}, {KVM_CAP_JOIN_MEMORY_REGIONS_WORKS, 1}, {KVM_CAP_USER_NMI, 1},
	{KVM_CAP_SET_GUEST_DEBUG, 1}, {KVM_CAP_IRQ_ROUTING, 1024}, {KVM_CAP_IRQ_INJECT_STATUS, 1}, {KVM_CAP_IRQFD, 1},
	{KVM_CAP_IRQFD_RESAMPLE, 1}, {KVM_CAP_IOEVENTFD, 1}, {KVM_CAP_IOEVENTFD_ANY_LENGTH, 1},
	{KVM_CAP_SET_IDENTITY_MAP_ADDR, 1}, {KVM_CAP_ADJUST_CLOCK, KVM_CLOCK_TSC_STABLE}, {KVM_CAP_VCPU_EVENTS, 1},
	{KVM_CAP_DEBUGREGS, 1}, {KVM_CAP_XSAVE, 1}, {KVM_CAP_XCRS, 1}, {KVM_CAP_TSC_CONTROL, 0}, {KVM_CAP_GET_TSC_KHZ, 1},
	{KVM_CAP_TSC_DEADLINE_TIMER, 1}, {KVM_CAP_SIGNAL_MSI, 1}, {KVM_CAP_READONLY_MEM, 1}, {KVM_CAP_KVMCLOCK_CTRL, 0},
	{KVM_CAP_ENABLE_CAP_VM, 1}, {KVM_CAP_CHECK_EXTENSION_VM, 1}, {KVM_CAP_IMMEDIATE_EXIT, 1}, {KVM_CAP_EXT_EMUL_CPUID, 0},
	{KVM_CAP_GUEST_DEBUG_HW_BPS, 4}, {KVM_CAP_SET_GUEST_DEBUG2, GUEST_DEBUG_FLAGS}, {KVM_CAP_COALESCED_MMIO, 0}, {KVM_CAP_XSAVE2, 4096}, {KVM_CAP_SREGS2, 1},
	{KVM_CAP_SET_BOOT_CPU_ID, 0}, {KVM_CAP_INTERNAL_ERROR_DATA, 1}, {KVM_CAP_VCPU_ATTRIBUTES, 0},
};

long api_check_extension(u64 cap)
{
	for (unsigned i = 0; i < ARRAY_SIZE(caps); i++)
		if (caps[i].cap == cap)
			return caps[i].value;
	return 0;
}

static s64 sys_api_version(struct api_call *c)
{
	return KVM_API_VERSION;
}

static s64 sys_check_extension(struct api_call *c)
{
	return api_check_extension(c->arg);
}

static s64 sys_mmap_size(struct api_call *c)
{
	return KVMW_MMAP_SIZE;
}

static s64 sys_create_vm(struct api_call *c)
{
	struct vm *vm = c->vm;

	if (vm->boot_ns)
		return -EBUSY; /* one VM per engine process */
	vm->boot_ns = eng_now_ns();
	vm->tsc_khz = (u32)eng_tsc_khz();
	vm->kvmclock_offset = -(s64)vm->boot_ns;
	c->reply_fd = api_attr_fd();
	c->size = 0;
	return 0;
}

static s64 sys_msr_list(struct api_call *c)
{
	struct kvm_msr_list *l = (void *)c->buf;
	unsigned n;
	const u32 *list = msr_index_list(&n);
	u32 room = l->nmsrs;

	l->nmsrs = n;
	if (room < n) {
		c->size = sizeof(*l);
		return -E2BIG;
	}
	memcpy(l->indices, list, n * sizeof(u32));
	c->size = (u32)(sizeof(*l) + n * sizeof(u32));
	return 0;
}

static s64 sys_msr_feature_list(struct api_call *c)
{
	struct kvm_msr_list *l = (void *)c->buf;

	l->nmsrs = 0;
	c->size = sizeof(*l);
	return 0;
}

static s64 sys_supported_cpuid(struct api_call *c)
{
	struct kvm_cpuid2 *q = (void *)c->buf;
	u32 room = MIN(q->nent, (c->room - (u32)sizeof(*q)) / (u32)sizeof(struct kvm_cpuid_entry2));
	unsigned n = cpuid_supported(q->entries, room);

	q->nent = n;
	if (n > room) {
		c->size = sizeof(*q);
		return -E2BIG;
	}
	c->size = (u32)(sizeof(*q) + n * sizeof(struct kvm_cpuid_entry2));
	return 0;
}

const struct api_row api_system_rows[] = {
	API_ROW(KVM_GET_API_VERSION, sys_api_version),
	API_ROW(KVM_CHECK_EXTENSION, sys_check_extension),
	API_ROW(KVM_GET_VCPU_MMAP_SIZE, sys_mmap_size),
	API_ROW(KVM_CREATE_VM, sys_create_vm),
	API_ROW(KVM_GET_MSR_INDEX_LIST, sys_msr_list),
	API_ROW(KVM_GET_MSR_FEATURE_INDEX_LIST, sys_msr_feature_list),
	API_ROW(KVM_GET_SUPPORTED_CPUID, sys_supported_cpuid),
};
const unsigned api_system_count = ARRAY_SIZE(api_system_rows);
