/*
 * kvmclock (Documentation/virt/kvm/x86/msr.rst). Time is one function of the host's TSC for the whole VM, fixed by a
 * pair (TSC, ns) taken once: pages of different vCPUs then agree to the nanosecond, which PVCLOCK_TSC_STABLE_BIT
 * promises the guest.
 */
#include <errno.h>
#include "engine/cpu/cpu_int.h"
#include "engine/cpu/pvclock.h"
#include "engine/lib/lib.h"
#include "engine/vm.h"

struct time_info { /* pvclock_vcpu_time_info */
	u32 version, pad;
	u64 tsc_timestamp, system_time;
	u32 mul;
	s8 shift;
	u8 flags, pad2[2];
};
_Static_assert(sizeof(struct time_info) == 32, "the guest's layout");

struct wall_clock {
	u32 version, sec, nsec;
};

#define TSC_STABLE  BIT(0)
#define NSEC_PER_S  1000000000ull

/* ns = (ticks << shift) * mul >> 32, or >> -shift first: mul scaled into [2^31, 2^32). */
static void tsc_scale(u32 khz, u32 *mul, s8 *shift)
{
	u64 hz = (u64)khz * 1000, ns = NSEC_PER_S;
	s8 s = 0;

	while (hz > ns * 2 || hz >> 32) {
		hz >>= 1;
		s--;
	}
	while (hz <= ns) {
		if (hz & BIT64(31))
			ns >>= 1;
		else
			hz <<= 1;
		s++;
	}
	*shift = s;
	*mul = (ns << 32) / hz;
}

static u64 ticks_to_ns(u64 ticks, u32 mul, s8 shift)
{
	ticks = shift < 0 ? ticks >> -shift : ticks << shift;
	return (unsigned __int128)ticks * mul >> 32;
}

/* The VM's reference pair. */
static void reference(struct vm *vm, u64 *tsc, u64 *ns)
{
	eng_lock(&vm->clock_lock);
	if (!vm->clock_ref_tsc) {
		vm->clock_ref_ns = eng_now_ns();
		vm->clock_ref_tsc = eng_rdtsc();
	}
	*tsc = vm->clock_ref_tsc;
	*ns = vm->clock_ref_ns + vm->kvmclock_offset;
	eng_unlock(&vm->clock_lock);
}

u64 pvclock_now_ns(struct vm *vm)
{
	u64 tsc = 0, ns = 0;
	u32 mul = 0;
	s8 shift = 0;

	reference(vm, &tsc, &ns);
	tsc_scale(vm->tsc_khz, &mul, &shift);
	return ns + ticks_to_ns(eng_rdtsc() - tsc, mul, shift);
}

void pvclock_set_ns(struct vm *vm, u64 ns)
{
	s64 delta = ns - pvclock_now_ns(vm);

	eng_lock(&vm->clock_lock);
	vm->kvmclock_offset += delta;
	eng_unlock(&vm->clock_lock);
}

void pvclock_refresh(struct vcpu *cpu)
{
	u64 msr = cpu->msr_kvm_system_time, ref = 0, ns = 0;
	gpa_t a = msr & ~1ull;
	struct time_info t = {0};
	u32 old = 0;

	if (!(msr & 1) || !phys_read(a, &old, sizeof(old)))
		return;
	reference(cpu->vm, &ref, &ns);
	tsc_scale(cpu->vm->tsc_khz, &t.mul, &t.shift);
	t.tsc_timestamp = ref + cpu->tsc_offset;
	t.system_time = ns;
	t.flags = TSC_STABLE;
	/* Odd version: being written (the reader retries). x86 keeps the order of stores. */
	t.version = (old & ~1u) + 1;
	phys_write(a, &t.version, sizeof(t.version));
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	phys_write(a, &t, sizeof(t));
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	t.version++;
	phys_write(a, &t.version, sizeof(t.version));
}

bool pvclock_set_system_time(struct vcpu *cpu, u32 index, u64 v, bool host)
{
	cpu->msr_kvm_system_time = v;
	pvclock_refresh(cpu);
	return true;
}

/* Wall-clock time at which kvmclock was 0. */
bool pvclock_set_wall_clock(struct vcpu *cpu, u32 index, u64 v, bool host)
{
	u64 boot = eng_realtime_ns() - pvclock_now_ns(cpu->vm);
	struct wall_clock w = {.sec = boot / NSEC_PER_S, .nsec = boot % NSEC_PER_S};
	u32 old = 0;

	cpu->msr_kvm_wall_clock = v;
	if (!v || host || !phys_read(v, &old, sizeof(old)))
		return true;
	w.version = (old & ~1u) + 1;
	phys_write(v, &w, sizeof(w));
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	w.version++;
	phys_write(v, &w.version, sizeof(w.version));
	return true;
}
