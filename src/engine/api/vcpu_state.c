/* vCPU requests: floating point and extended state, events, LAPIC, MP state, TSC. On the vCPU's thread, not running. */
#include <errno.h>

#include "engine/api/api.h"
#include "engine/cpu/cpu.h"
#include "engine/cpu/fpu.h"
#include "engine/irqchip/irqchip.h"
#include "engine/lib/lib.h"
#include "engine/safepoint.h"

static s64 get_fpu(struct api_call *c)
{
	fpu_get(c->cpu, (void *)c->buf);
	return 0;
}

static s64 set_fpu(struct api_call *c)
{
	return fpu_set(c->cpu, (void *)c->buf);
}

static s64 get_xsave(struct api_call *c)
{
	memset(c->buf, 0, sizeof(struct kvm_xsave));
	xsave_get(c->cpu, c->buf, sizeof(struct kvm_xsave));
	return 0;
}

static s64 set_xsave(struct api_call *c)
{
	return xsave_set(c->cpu, c->buf, sizeof(struct kvm_xsave));
}

static s64 get_xcrs(struct api_call *c)
{
	struct kvm_xcrs *x = (void *)c->buf;

	memset(x, 0, sizeof(*x));
	x->nr_xcrs = 1;
	x->xcrs[0].xcr = 0;
	x->xcrs[0].value = c->cpu->xcr0;
	return 0;
}

static s64 set_xcrs(struct api_call *c)
{
	const struct kvm_xcrs *x = (void *)c->buf;

	if (x->nr_xcrs > KVM_MAX_XCRS || x->flags)
		return -EINVAL;
	for (u32 i = 0; i < x->nr_xcrs; i++) {
		u64 v = x->xcrs[i].value;

		if (x->xcrs[i].xcr != 0)
			continue;
		if (!(v & 1) || (v & 4 && !(v & 2)) || v & ~xstate_supported())
			return -EINVAL;
		c->cpu->xcr0 = v;
		cpu_update_mode(c->cpu);
	}
	return 0;
}

static s64 get_events(struct api_call *c)
{
	struct vcpu *cpu = c->cpu;
	struct kvm_vcpu_events *e = (void *)c->buf;

	const bool again = cpu->redelivery.pending, hard = again && cpu->redelivery.hard;
	const struct exception *exc = again && !hard ? &cpu->redelivery.e : &cpu->exc;
	bool nmi = hard && cpu->redelivery.e.vector == EXC_NMI;

	memset(e, 0, sizeof(*e));
	e->exception.injected = cpu->exc.pending || (again && !hard);
	e->exception.nr = exc->vector;
	e->exception.has_error_code = exc->has_error;
	e->exception.error_code = exc->error;
	e->interrupt.injected = cpu->inject.pending || (hard && !nmi);
	e->interrupt.nr = hard && !nmi ? cpu->redelivery.e.vector : cpu->inject.vector;
	e->interrupt.soft = cpu->inject.soft;
	e->interrupt.shadow = cpu->shadow == SHADOW_STI	    ? KVM_X86_SHADOW_INT_STI
			      : cpu->shadow == SHADOW_MOVSS ? KVM_X86_SHADOW_INT_MOV_SS
							    : 0;
	e->nmi.pending = cpu->nmi_pending || nmi;
	e->nmi.masked = cpu->nmi_masked && !nmi;
	e->sipi_vector = cpu->sipi_vector;
	e->flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW | KVM_VCPUEVENT_VALID_SIPI_VECTOR;
	return 0;
}

static s64 set_events(struct api_call *c)
{
	struct vcpu *cpu = c->cpu;
	const struct kvm_vcpu_events *e = (void *)c->buf;

	if (e->flags & ~(u32)(KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SIPI_VECTOR |
			      KVM_VCPUEVENT_VALID_SHADOW | KVM_VCPUEVENT_VALID_SMM))
		return -EINVAL;
	if (e->exception.injected && (e->exception.nr > 31 || e->exception.nr == EXC_NMI))
		return -EINVAL;
	cpu->redelivery.pending = false;
	cpu->exc.pending = e->exception.injected;
	cpu->exc.vector = e->exception.nr;
	cpu->exc.has_error = e->exception.has_error_code;
	cpu->exc.error = e->exception.error_code;
	cpu->exc.cr2 = cpu->cr2;
	cpu->exc.dr6 = 0;
	cpu->inject.pending = e->interrupt.injected;
	cpu->inject.vector = e->interrupt.nr;
	cpu->inject.soft = e->interrupt.soft;
	if (e->flags & KVM_VCPUEVENT_VALID_SHADOW)
		cpu->shadow = e->interrupt.shadow & KVM_X86_SHADOW_INT_MOV_SS ? SHADOW_MOVSS
			      : e->interrupt.shadow & KVM_X86_SHADOW_INT_STI  ? SHADOW_STI
									       : SHADOW_NONE;
	if (e->flags & KVM_VCPUEVENT_VALID_NMI_PENDING)
		cpu->nmi_pending = e->nmi.pending;
	cpu->nmi_masked = e->nmi.masked;
	if (e->flags & KVM_VCPUEVENT_VALID_SIPI_VECTOR)
		cpu->sipi_vector = (u8)e->sipi_vector;
	return 0;
}

static s64 get_mp_state(struct api_call *c)
{
	((struct kvm_mp_state *)(void *)c->buf)->mp_state = c->cpu->mp_state;
	return 0;
}

static s64 set_mp_state(struct api_call *c)
{
	u32 s = ((const struct kvm_mp_state *)(void *)c->buf)->mp_state;

	if (s > KVM_MP_STATE_SIPI_RECEIVED || (!c->vm->irqchip && s != KVM_MP_STATE_RUNNABLE))
		return -EINVAL;
	if (s == KVM_MP_STATE_SIPI_RECEIVED) {
		c->cpu->mp_state = MP_INIT_RECEIVED;
		c->cpu->sipi_pending = 1;
	} else {
		c->cpu->mp_state = (u8)s;
	}
	return 0;
}

static s64 get_lapic(struct api_call *c)
{
	if (!c->cpu->lapic)
		return -EINVAL;
	lapic_get(c->cpu, (void *)c->buf);
	return 0;
}

static s64 set_lapic(struct api_call *c)
{
	return c->cpu->lapic ? lapic_set(c->cpu, (void *)c->buf) : -EINVAL;
}

static s64 interrupt(struct api_call *c)
{
	const struct kvm_interrupt *i = (void *)c->buf;

	if (i->irq > 255)
		return -EINVAL;
	if (c->vm->irqchip)
		return -ENXIO;
	if (c->cpu->inject.pending)
		return -EEXIST;
	c->cpu->inject.pending = true;
	c->cpu->inject.soft = false;
	c->cpu->inject.vector = (u8)i->irq;
	return 0;
}

static s64 nmi(struct api_call *c)
{
	c->cpu->nmi_pending = true;
	return 0;
}

static s64 get_tsc_khz(struct api_call *c)
{
	return c->vm->tsc_khz;
}

static s64 set_tsc_khz(struct api_call *c)
{
	return c->arg == 0 || c->arg == c->vm->tsc_khz ? 0 : -ENOTSUP; /* no scaling: the host's rate */
}

static s64 kvmclock_ctrl(struct api_call *c)
{
	return -EINVAL; /* the guest is not told of pauses */
}

const struct api_row api_state_rows[] = {
	API_ROW(KVM_GET_FPU, get_fpu),
	API_ROW(KVM_SET_FPU, set_fpu),
	API_ROW(KVM_GET_XSAVE, get_xsave),
	API_ROW(KVM_GET_XSAVE2, get_xsave),
	API_ROW(KVM_SET_XSAVE, set_xsave),
	API_ROW(KVM_GET_XCRS, get_xcrs),
	API_ROW(KVM_SET_XCRS, set_xcrs),
	API_ROW(KVM_GET_VCPU_EVENTS, get_events),
	API_ROW(KVM_SET_VCPU_EVENTS, set_events),
	API_ROW(KVM_GET_MP_STATE, get_mp_state),
	API_ROW(KVM_SET_MP_STATE, set_mp_state),
	API_ROW(KVM_GET_LAPIC, get_lapic),
	API_ROW(KVM_SET_LAPIC, set_lapic),
	API_ROW(KVM_INTERRUPT, interrupt),
	API_ROW(KVM_NMI, nmi),
	API_ROW(KVM_GET_TSC_KHZ, get_tsc_khz),
	API_ROW(KVM_SET_TSC_KHZ, set_tsc_khz),
	API_ROW(KVM_KVMCLOCK_CTRL, kvmclock_ctrl),
};
const unsigned api_state_count = ARRAY_SIZE(api_state_rows);
