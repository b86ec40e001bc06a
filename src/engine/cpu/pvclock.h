/* The KVM paravirtual clock. Owning vCPU thread, except where said. */
#ifndef ENGINE_CPU_PVCLOCK_H
#define ENGINE_CPU_PVCLOCK_H

#include "engine/vcpu.h"

struct vm;

/* Guest's kvmclock, nanoseconds: KVM_GET_CLOCK, KVM_SET_CLOCK. Any thread. After setting, every vCPU refreshes its page. */
u64 pvclock_now_ns(struct vm *vm);
void pvclock_set_ns(struct vm *vm, u64 ns);
/* Rewrites the vCPU's time page if it has one: after the TSC or the clock was changed, or state was restored. */
void pvclock_refresh(struct vcpu *cpu);
/* MSR writes; false: #GP. */
bool pvclock_set_wall_clock(struct vcpu *cpu, u32 index, u64 v, bool host);
bool pvclock_set_system_time(struct vcpu *cpu, u32 index, u64 v, bool host);

#endif
