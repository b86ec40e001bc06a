/* The run loop: KVM_RUN on the vCPU's own thread. */
#ifndef ENGINE_CPU_RUN_H
#define ENGINE_CPU_RUN_H

#include "engine/vcpu.h"

/*
 * Executes the guest until something must go to the VMM; kvm_run is filled. Returns 0 or -errno (as the ioctl).
 * Loads the guest's vector state into the host registers and saves it again.
 */
int vcpu_run(struct vcpu *cpu);

/* interp/run.c: executes blocks until chan->attention is non-zero, or an event needs the run loop (halt, mode with pending
 * trap, queued MMIO write, cpu->shadow). Unwinds on faults and exits. */
void interp_run(struct vcpu *cpu);
/* Executes exactly one instruction (single step, MMIO replay, interrupt shadow, block-less modes). */
void interp_step(struct vcpu *cpu);
/* The same until RIP leaves its page; 1000 at most. */
void interp_page(struct vcpu *cpu);

/* Vector state <-> host registers (engine/cpu/fpu.c). */
void vcpu_fpu_load(struct vcpu *cpu);
void vcpu_fpu_save(struct vcpu *cpu);

#endif
