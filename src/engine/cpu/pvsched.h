/*
 * What a paravirtual guest is told about the scheduling of its vCPUs, and asks of it: steal time, the
 * preempted flag, kicks. Documentation/virt/kvm/x86/msr.rst, cpuid.rst, hypercalls.rst. Owning vCPU thread,
 * except where said.
 */
#ifndef ENGINE_CPU_PVSCHED_H
#define ENGINE_CPU_PVSCHED_H

#include "engine/vcpu.h"

/* The vCPU begins, ends to be runnable on its host thread: around KVM_RUN, and around the sleep of HLT.
 * Between safe points. */
void steal_begin(struct vcpu *cpu);
void steal_end(struct vcpu *cpu);
/* Brings the guest's record up to date while the vCPU runs. */
void steal_update(struct vcpu *cpu);
/* MSR_KVM_STEAL_TIME; false: #GP. */
bool steal_set(struct vcpu *cpu, u32 index, u64 v, bool host);

/* VMCALL / VMMCALL: number in RAX, arguments in RBX RCX RDX RSI, result in RAX. */
void cpu_hypercall(struct vcpu *cpu);

#endif
