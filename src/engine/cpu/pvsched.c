/*
 * Steal time: how long the vCPU could have run and did not. The sandbox lets nothing be read from /proc, so
 * it is measured: of the time in which the vCPU's thread wants to run (not asleep in HLT, not outside
 * KVM_RUN), what its processor time does not account for. Work that the kernel does in the thread's name
 * counts as processor time; the way from a wake-up to the processor is missed.
 *
 * The preempted flag is set while the vCPU sleeps or is outside KVM_RUN. A guest that wants its TLB flushed
 * then sets a bit beside it and sends no interrupt (KVM_FEATURE_PV_TLB_FLUSH); the exchange on the way in
 * finds it.
 */
#include <errno.h>
#include <linux/kvm_para.h>
#include <sys/syscall.h>

#include "engine/cpu/cpu_int.h"
#include "engine/cpu/pvsched.h"
#include "engine/irqchip/irqchip.h"
#include "engine/lib/lib.h"
#include "engine/vm.h"

#define STEAL_RESERVED  0x3eu
#define STEAL_AREA(cpu) ((cpu)->msr_kvm_steal_time & ~63ull)
#define PREEMPTED       BIT(0)
#define PREEMPTED_FLUSH BIT(1)

struct steal_record { /* the guest's layout: <asm/kvm_para.h>, struct kvm_steal_time */
	u64 steal;
	u32 version, flags;
	u8 preempted, pad[47];
};
_Static_assert(sizeof(struct steal_record) == 64, "the guest's layout");

static bool enabled(const struct vcpu *cpu)
{
	return cpu->msr_kvm_steal_time & KVM_MSR_ENABLED;
}

static void window_open(struct vcpu *cpu)
{
	cpu->steal.wall = eng_tsc_ns(); /* no system call: this is on the way into and out of each HLT */
	cpu->steal.used = eng_thread_ns();
	cpu->steal.open = true;
}

static void window_close(struct vcpu *cpu)
{
	u64 wall = eng_tsc_ns() - cpu->steal.wall, used = eng_thread_ns() - cpu->steal.used;

	if (cpu->steal.open && wall > used)
		cpu->steal.total += wall - used;
	cpu->steal.open = false;
}

/* An odd version: being written (the reader retries). x86 keeps the order of stores. */
static void publish(struct vcpu *cpu)
{
	gpa_t a = STEAL_AREA(cpu);
	u32 version = 0;

	if (cpu->steal.total == cpu->steal.told ||
	    !phys_read(a + offsetof(struct steal_record, version), &version, sizeof(version)))
		return;
	version = (version + 1) | 1;
	phys_write(a + offsetof(struct steal_record, version), &version, sizeof(version));
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	phys_write(a, &cpu->steal.total, sizeof(cpu->steal.total));
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	version++;
	phys_write(a + offsetof(struct steal_record, version), &version, sizeof(version));
	cpu->steal.told = cpu->steal.total;
}

static void set_preempted(struct vcpu *cpu, u8 value)
{
	u8 old = 0;

	if (phys_exchange8(STEAL_AREA(cpu) + offsetof(struct steal_record, preempted), value, &old) &&
	    old & PREEMPTED_FLUSH)
		mmu_flush_all(cpu);
}

void steal_begin(struct vcpu *cpu)
{
	if (!enabled(cpu))
		return;
	set_preempted(cpu, 0);
	window_open(cpu);
}

void steal_end(struct vcpu *cpu)
{
	if (!enabled(cpu))
		return;
	window_close(cpu);
	publish(cpu);
	set_preempted(cpu, PREEMPTED);
}

void steal_update(struct vcpu *cpu)
{
	if (!enabled(cpu))
		return;
	window_close(cpu);
	publish(cpu);
	window_open(cpu);
}

bool steal_set(struct vcpu *cpu, u32 index, u64 v, bool host)
{
	static const struct steal_record none;

	if (v & STEAL_RESERVED)
		return false;
	cpu->msr_kvm_steal_time = v;
	cpu->steal.told = 0;
	if (!enabled(cpu)) {
		cpu->steal.open = false;
		return true;
	}
	if (host) /* state restored: what is in the record stays, KVM_RUN goes on from it */
		phys_read(STEAL_AREA(cpu), &cpu->steal.total, sizeof(cpu->steal.total));
	else
		phys_write(STEAL_AREA(cpu), &none, offsetof(struct steal_record, pad));
	if (!host)
		window_open(cpu);
	return true;
}

/* ---- hypercalls ---- */

static struct vcpu *vcpu_of_apic(struct vm *vm, u64 id)
{
	u32 n = __atomic_load_n(&vm->nvcpus, __ATOMIC_ACQUIRE);

	for (u32 i = 0; i < n; i++)
		if (vm->vcpus[i]->id == id)
			return vm->vcpus[i];
	return NULL;
}

/* Wakes a vCPU from HLT, or keeps it out of its next one, interrupts enabled or not. */
static s64 hc_kick(struct vcpu *cpu, const u64 *a)
{
	struct vcpu *to = vcpu_of_apic(cpu->vm, a[1]);

	if (to) {
		__atomic_store_n(&to->pv_kicked, 1, __ATOMIC_SEQ_CST);
		vcpu_kick(to, ATT_IRQ);
	}
	return 0;
}

static s64 hc_send_ipi(struct vcpu *cpu, const u64 *a)
{
	const u64 dest_and_shorthand = 0xc0800;

	if (!cpu->lapic || a[3] & dest_and_shorthand || a[2] >> 32)
		return -KVM_EINVAL;
	return lapic_send_set(cpu, a[0], a[1], (u32)a[2], cpu->mode.long64 ? 64 : 32, (u32)a[3]);
}

/* The vCPU that is waited for has been woken, or waits for a processor of the host: give it ours. */
static s64 hc_yield(struct vcpu *cpu, const u64 *a)
{
	sys_call(SYS_sched_yield);
	return 0;
}

static s64 hc_nothing(struct vcpu *cpu, const u64 *a)
{
	return 0;
}

static s64 (*const hypercalls[])(struct vcpu *cpu, const u64 *a) = {
    [KVM_HC_VAPIC_POLL_IRQ] = hc_nothing,
    [KVM_HC_KICK_CPU] = hc_kick,
    [KVM_HC_SEND_IPI] = hc_send_ipi,
    [KVM_HC_SCHED_YIELD] = hc_yield,
};

void cpu_hypercall(struct vcpu *cpu)
{
	u64 mask = cpu->mode.long64 ? ~0ull : 0xffffffffull, nr = cpu->gpr[R_AX] & mask;
	const u64 a[4] = {cpu->gpr[R_BX] & mask, cpu->gpr[R_CX] & mask, cpu->gpr[R_DX] & mask,
			  cpu->gpr[R_SI] & mask};
	s64 ret = -KVM_ENOSYS;

	if (cpu_cpl(cpu) != 0)
		ret = -KVM_EPERM;
	else if (nr < ARRAY_SIZE(hypercalls) && hypercalls[nr])
		ret = hypercalls[nr](cpu, a);
	cpu->gpr[R_AX] = (u64)ret & mask;
}
