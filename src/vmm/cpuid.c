/*
 * CPUID of each vCPU: what this KVM supports, with the machine's topology (one package, one thread per core) and without what the
 * machine does not have. SDM 2A, CPUID; AMD64 APM 3, appendix E.
 */
#include <stdlib.h>
#include <string.h>
#include "vmm/machine.h"

enum { CPUID_ENTRIES = 256 };

static u32 bits_for(u32 n)
{
	u32 bits = 0;

	while ((1u << bits) < n)
		bits++;
	return bits;
}

static void leaf_1(struct machine *m, u32 apic_id, struct kvm_cpuid_entry2 *c)
{
	enum { ECX_PDCM = 1 << 15, ECX_DEADLINE = 1 << 24, ECX_HYPERVISOR = 1u << 31, EDX_HTT = 1 << 28 };

	c->ebx = (c->ebx & 0x0000ffff) | m->ncpus << 16 | apic_id << 24;
	c->ecx = (c->ecx | ECX_HYPERVISOR) & ~ECX_PDCM;
	if (kvm_ioctl(m->sys, KVM_CHECK_EXTENSION, (unsigned long)KVM_CAP_TSC_DEADLINE_TIMER) > 0)
		c->ecx |= ECX_DEADLINE;
	c->edx = m->ncpus > 1 ? c->edx | EDX_HTT : c->edx & ~EDX_HTT;
}

/* Caches: the last level is shared by the package, the others are each core's own. */
static void leaf_4(struct machine *m, u32 apic_id, struct kvm_cpuid_entry2 *c)
{
	u32 level = c->eax >> 5 & 7, cores = (1u << bits_for(m->ncpus)) - 1;

	if (!(c->eax & 31))
		return;
	c->eax = (c->eax & 0x3fff) | cores << 26 | (level >= 3 ? cores << 14 : 0);
}

/* Topology: level 0 threads (1 per core), level 1 cores. */
static void leaf_b(struct machine *m, u32 apic_id, struct kvm_cpuid_entry2 *c)
{
	c->ecx = c->index;
	c->edx = apic_id;
	c->eax = c->ebx = 0;
	if (c->index == 0) {
		c->ebx = 1;
		c->ecx |= 1 << 8;
	} else if (c->index == 1) {
		c->eax = bits_for(m->ncpus);
		c->ebx = m->ncpus;
		c->ecx |= 2 << 8;
	}
}

static void leaf_zero(struct machine *m, u32 apic_id, struct kvm_cpuid_entry2 *c)
{
	c->eax = c->ebx = c->ecx = c->edx = 0;
}

static void leaf_amd_8(struct machine *m, u32 apic_id, struct kvm_cpuid_entry2 *c)
{
	c->ecx = (c->ecx & ~0xf0ffu) | (m->ncpus - 1) | bits_for(m->ncpus) << 12;
}

static void leaf_amd_1e(struct machine *m, u32 apic_id, struct kvm_cpuid_entry2 *c)
{
	c->eax = apic_id;
	c->ebx = apic_id & 0xff; /* one thread per core */
	c->ecx = 0;
}

/* Leaf 0Ah is cleared: the machine has no performance counters, on either KVM. */
static const struct {
	u32 leaf;
	void (*patch)(struct machine *m, u32 apic_id, struct kvm_cpuid_entry2 *c);
} patches[] = {
	{0x1, leaf_1},
	{0x4, leaf_4},
	{0xa, leaf_zero},
	{0xb, leaf_b},
	{0x1f, leaf_b},
	{0x80000008, leaf_amd_8},
	{0x8000001e, leaf_amd_1e},
};

/* Leaf 0Bh needs its second level even where KVM lists only the first. */
static void add_missing_levels(struct kvm_cpuid2 *c)
{
	u32 levels = 0, max_basic = 0;

	for (u32 i = 0; i < c->nent; i++) {
		levels += c->entries[i].function == 0xb;
		if (!c->entries[i].function)
			max_basic = c->entries[i].eax;
	}
	for (; max_basic >= 0xb && levels < 3 && c->nent < CPUID_ENTRIES; levels++)
		c->entries[c->nent++] = (struct kvm_cpuid_entry2){
			.function = 0xb, .index = levels, .flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX};
}

int cpuid_set(struct machine *m, struct vcpu_thread *v, struct err *e)
{
	struct kvm_cpuid2 *c = calloc(1, sizeof(*c) + CPUID_ENTRIES * sizeof(c->entries[0]));
	long ret = 0;

	if (!c)
		return err_set(e, ENOMEM, "machine: no memory");
	c->nent = CPUID_ENTRIES;
	ret = kvm_ioctl(m->sys, KVM_GET_SUPPORTED_CPUID, c);
	if (ret >= 0) {
		add_missing_levels(c);
		for (u32 i = 0; i < c->nent; i++)
			for (u32 p = 0; p < ARRAY_SIZE(patches); p++)
				if (c->entries[i].function == patches[p].leaf)
					patches[p].patch(m, v->index, &c->entries[i]);
		ret = kvm_ioctl(v->kvm, KVM_SET_CPUID2, c);
	}
	free(c);
	return ret < 0 ? err_set(e, (int)-ret, "KVM: cannot set CPUID: %s", strerror((int)-ret)) : 0;
}
