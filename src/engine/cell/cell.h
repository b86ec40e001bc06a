/*
 * Direct execution: user code of the guest runs as it is in a *cell*, a host process of its own that a vCPU's thread traces. The cell
 * has the guest's memory and nothing else: its page table is a TLB of the vCPU that the host's MMU looks into. A system call, a fault, or a
 * signal stops it, and the engine goes on with the registers that it had.
 *
 * A stop costs 10 to 40 us where one of translated code costs 0.1, so everything begins in translated code. An address space whose
 * programs seldom enter the kernel is moved to a cell, and back when that has changed (policy.c).
 */
#ifndef ENGINE_CELL_CELL_H
#define ENGINE_CELL_CELL_H

#include "engine/vcpu.h"

/* Once, before the sandbox and other threads: what cells are made from. False: this host has no direct execution. */
bool cell_init(void);
/* The vCPU's thread, once: it may have cells from now on. */
void cell_start(struct vcpu *cpu);

/*
 * Runs user code of the current address space until something is to be done between instructions; the state is the vCPU's again
 * then, and the run loop goes on. False: nothing was run, and translated code is to take over until the kernel is entered.
 */
bool cell_run(struct vcpu *cpu);

/* The vCPU will run no user code in a cell for a while: its thread may run anywhere again. */
void cell_release(struct vcpu *cpu);

/* An interrupt comes while user code runs: whether the address space should have a cell. */
void cell_judge(struct vcpu *cpu);

/* ---- the TLB changed: the vCPU's thread, or another while the vCPU is at a safe point ---- */
void cell_space_changed(struct vcpu *cpu);              /* CR3, or the context of the low half */
void cell_drop_page(struct vcpu *cpu, gva_t a);         /* of the current address space */
void cell_drop_range(struct vcpu *cpu);                 /* any of it */
void cell_drop_writes(struct vcpu *cpu, gpa_t gpa);     /* ~0: all */
void cell_contexts_reset(struct vcpu *cpu);             /* context numbers begin anew */
void cell_end_all(struct vcpu *cpu);                    /* memory slots have changed: own thread only */

/* A signal of the vCPU's timer, or a kick: rip and what it becomes, so that none is lost just before a wait. */
void cell_signal(u64 *rip);
/* Any thread, after attention was set: stops the cell if the vCPU is in one. */
void cell_kick(struct vcpu *cpu);

#endif
