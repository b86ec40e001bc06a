/*
 * Sizes of KVM request payloads. The request number encodes size and direction of the fixed part (asm-generic/ioctl.h);
 * requests with a counted array behind the header are listed here, as are those that take their argument by value.
 */
#include <linux/kvm.h>
#include <asm/ioctl.h>

#include "kvm/payload.h"

/* Header with a u32 count at its start, entries of entry_size behind `header` bytes. */
struct counted {
	unsigned long request;
	u32 header, entry_size, max;
};

static const struct counted counted[] = {
	{KVM_GET_MSR_INDEX_LIST, sizeof(struct kvm_msr_list), 4, 4096},
	{KVM_GET_MSR_FEATURE_INDEX_LIST, sizeof(struct kvm_msr_list), 4, 4096},
	{KVM_GET_SUPPORTED_CPUID, sizeof(struct kvm_cpuid2), sizeof(struct kvm_cpuid_entry2), 256},
	{KVM_SET_CPUID2, sizeof(struct kvm_cpuid2), sizeof(struct kvm_cpuid_entry2), 256},
	{KVM_GET_CPUID2, sizeof(struct kvm_cpuid2), sizeof(struct kvm_cpuid_entry2), 256},
	{KVM_GET_MSRS, sizeof(struct kvm_msrs), sizeof(struct kvm_msr_entry), 1024},
	{KVM_SET_MSRS, sizeof(struct kvm_msrs), sizeof(struct kvm_msr_entry), 1024},
	{KVM_SET_GSI_ROUTING, sizeof(struct kvm_irq_routing), sizeof(struct kvm_irq_routing_entry), 1024},
};

static u32 counted_size(unsigned long request, const void *arg)
{
	for (unsigned i = 0; i < ARRAY_SIZE(counted); i++) {
		const struct counted *c = &counted[i];

		if (c->request == request) {
			u32 n = *(const u32 *)arg;

			return c->header + MIN(n, c->max) * c->entry_size;
		}
	}
	return 0;
}

u32 kvm_payload_in(unsigned long request, const void *arg, bool *by_value)
{
	u32 n;

	*by_value = _IOC_DIR(request) == _IOC_NONE || request == KVM_SET_TSS_ADDR;
	if (*by_value)
		return 0;
	n = counted_size(request, arg);
	if (n)
		return n;
	/* KVM_SET_IRQCHIP is encoded as a read but is a write */
	return _IOC_DIR(request) & _IOC_WRITE || request == KVM_SET_IRQCHIP ? _IOC_SIZE(request) : 0;
}

u32 kvm_payload_out(unsigned long request, const void *arg)
{
	u32 n;

	if (!(_IOC_DIR(request) & _IOC_READ) || request == KVM_SET_IRQCHIP)
		return 0;
	n = counted_size(request, arg);
	return n ? n : _IOC_SIZE(request);
}
