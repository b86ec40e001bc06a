/*
 * Reset: every vCPU and interrupt controller gets the state back that it had at power-on, which is read once, right after creation.
 * That way reset needs no knowledge of the reset values and covers all the state this KVM has.
 */
#include <stdlib.h>
#include <string.h>
#include "vmm/machine.h"

enum { MSRS_MAX = 512 };
struct power_on {
	union {
		struct { /* of a vCPU */
			struct kvm_sregs sregs;
			struct kvm_regs regs;
			struct kvm_fpu fpu;
			struct kvm_xsave xsave;
			struct kvm_xcrs xcrs;
			struct kvm_vcpu_events events;
			struct kvm_debugregs debugregs;
			struct kvm_lapic_state lapic;
			struct kvm_mp_state mp;
		};
		struct { /* of the VM */
			struct kvm_irqchip chip[3];
			struct kvm_pit_state2 pit;
		};
	};
	u32 nmsrs;
	struct kvm_msr_entry msr[MSRS_MAX];
};

#define PART(get, set, field) {KVM_GET_##get, KVM_SET_##set, offsetof(struct power_on, field)}
/* In the order in which they may be written: APIC base before APIC, MP state after it. */
static const struct part {
	unsigned long get, set;
	size_t offset;
} vcpu_parts[] = {
	PART(SREGS, SREGS, sregs),
	PART(REGS, REGS, regs),
	PART(FPU, FPU, fpu),
	PART(XSAVE, XSAVE, xsave),
	PART(XCRS, XCRS, xcrs),
	PART(LAPIC, LAPIC, lapic),
	PART(MP_STATE, MP_STATE, mp),
	PART(VCPU_EVENTS, VCPU_EVENTS, events),
	PART(DEBUGREGS, DEBUGREGS, debugregs),
}, vm_parts[] = {
	PART(IRQCHIP, IRQCHIP, chip[0]),
	PART(IRQCHIP, IRQCHIP, chip[1]),
	PART(IRQCHIP, IRQCHIP, chip[2]),
	PART(PIT2, PIT2, pit),
};

/* Time goes on over a reset; the rest of the counters is not reset state. */
static bool msr_kept(u32 index)
{
	static const u32 kept[] = {0x10 /* TSC */, 0x3b /* TSC_ADJUST */, 0xc3 /* .. */, 0xe7, 0xe8 /* MPERF, APERF */};

	for (u32 i = 0; i < ARRAY_SIZE(kept); i++)
		if (kept[i] == index)
			return true;
	return false;
}

static int list_msrs(struct machine *m, u32 *index, u32 *n)
{
	struct kvm_msr_list *l = calloc(1, sizeof(*l) + MSRS_MAX * sizeof(l->indices[0]));
	long ret = 0;

	if (!l)
		return -ENOMEM;
	l->nmsrs = MSRS_MAX;
	ret = kvm_ioctl(m->sys, KVM_GET_MSR_INDEX_LIST, l);
	*n = 0;
	for (u32 i = 0; ret >= 0 && i < l->nmsrs; i++)
		if (!msr_kept(l->indices[i]))
			index[(*n)++] = l->indices[i];
	free(l);
	return (int)MIN(ret, 0);
}

/* One at a time: KVM may list MSRs that this vCPU's CPUID does not give it. */
static long one_msr(struct vcpu_thread *v, unsigned long request, struct kvm_msr_entry *entry)
{
	struct {
		struct kvm_msrs h;
		struct kvm_msr_entry e;
	} s = {.h.nmsrs = 1, .e = *entry};
	long ret = kvm_ioctl(v->kvm, request, &s);

	*entry = s.e;
	return ret;
}

static int save_parts(struct kvm_obj *o, struct power_on *p, const struct part *parts, u32 n)
{
	for (u32 i = 0; i < n; i++) {
		long ret = kvm_ioctl(o, parts[i].get, (char *)p + parts[i].offset);

		if (ret < 0)
			return (int)ret;
	}
	return 0;
}

static int save_vcpu(struct machine *m, struct vcpu_thread *v, const u32 *msrs, u32 n)
{
	v->power_on = calloc(1, sizeof(*v->power_on));
	if (!v->power_on)
		return -ENOMEM;
	for (u32 i = 0; i < n; i++) {
		struct kvm_msr_entry e = {.index = msrs[i]};

		if (one_msr(v, KVM_GET_MSRS, &e) == 1)
			v->power_on->msr[v->power_on->nmsrs++] = e;
	}
	return save_parts(v->kvm, v->power_on, vcpu_parts, ARRAY_SIZE(vcpu_parts));
}

int power_on_save(struct machine *m, struct err *e)
{
	u32 index[MSRS_MAX], n = 0;
	int ret = list_msrs(m, index, &n);

	for (u32 i = 0; i < m->ncpus && !ret; i++)
		ret = save_vcpu(m, &m->cpu[i], index, n);
	if (!ret)
		m->power_on = calloc(1, sizeof(*m->power_on));
	if (!ret && !m->power_on)
		ret = -ENOMEM;
	if (!ret) {
		for (u32 i = 0; i < ARRAY_SIZE(m->power_on->chip); i++)
			m->power_on->chip[i].chip_id = i;
		ret = save_parts(m->vm, m->power_on, vm_parts, ARRAY_SIZE(vm_parts));
	}
	return ret ? err_set(e, -ret, "KVM: cannot read the power-on state: %s", strerror(-ret)) : 0;
}

static int restore_parts(struct kvm_obj *o, struct power_on *p, const struct part *parts, u32 n)
{
	for (u32 i = 0; i < n; i++) {
		long ret = kvm_ioctl(o, parts[i].set, (char *)p + parts[i].offset);

		if (ret < 0)
			return (int)ret;
	}
	return 0;
}

int power_on_restore(struct machine *m, struct err *e)
{
	int ret = restore_parts(m->vm, m->power_on, vm_parts, ARRAY_SIZE(vm_parts));

	for (u32 i = 0; i < m->ncpus && !ret; i++) {
		struct power_on *p = m->cpu[i].power_on;

		for (u32 k = 0; k < p->nmsrs; k++) {
			struct kvm_msr_entry entry = p->msr[k];

			/* read-only ones refuse, and hold no state to reset */
			one_msr(&m->cpu[i], KVM_SET_MSRS, &entry);
		}
		ret = restore_parts(m->cpu[i].kvm, p, vcpu_parts, ARRAY_SIZE(vcpu_parts));
	}
	return ret ? err_set(e, -ret, "KVM: cannot reset: %s", strerror(-ret)) : 0;
}

void power_on_free(struct machine *m)
{
	for (u32 i = 0; i < m->ncpus; i++)
		free(m->cpu[i].power_on);
	free(m->power_on);
}
