/*
 * One host timer per vCPU thread: a POSIX timer on CLOCK_MONOTONIC whose signal goes to that very thread, so
 * it interrupts guest execution and a sleep alike. The handler (run loop) sets ATT_TIMER.
 */
#ifndef ENGINE_IRQCHIP_TIMER_H
#define ENGINE_IRQCHIP_TIMER_H

#include "engine/vcpu.h"
#include "kvm/chan.h"

#define ENG_SIG_TIMER CHAN_KICK_SIGNAL /* first real-time signal of the kernel's numbering that glibc's threads leave alone */

int vtimer_init(struct vcpu *cpu);                  /* on the vCPU's thread, once; 0 or -errno */
void vtimer_arm(struct vcpu *cpu, u64 deadline_ns); /* absolute; 0 disarms */

#endif
