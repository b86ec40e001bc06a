/*
 * The translator as the rest of the engine sees it: tier 1, same-ISA binary translation (docs/architecture.md).
 */
#ifndef ENGINE_TRANSLATE_TR_H
#define ENGINE_TRANSLATE_TR_H

#include "base/types.h"

struct vcpu;

/* ---- set-up ---- */
/* Whether this host can run translated code (BMI2, code cache mapped). Once at start, before the sandbox closes. */
bool tr_init(void);
bool tr_available(void);
/* A new vCPU: its tables. False: the vCPU stays with the interpreter (no address space left). Called by its own thread, which gets
 * its GS base and alternate signal stack. */
bool tr_vcpu_start(struct vcpu *cpu);

/* ---- running ---- */
/* Executes translated code, interpreting what is cold, until something needs the run loop. Unwinds on faults and exits. */
void tr_run(struct vcpu *cpu);
/* A synchronous signal whose context is in the code cache: arranges that the vCPU goes on in tr_run(). False: not ours. */
bool tr_handle_fault(struct vcpu *cpu, void *ucontext);

/* ---- the software TLB changed: mmu/tlb.c and interp/run.c say so; own thread or at a safe point ---- */
void tr_tlb_reset(struct vcpu *cpu);                 /* everything */
void tr_tlb_low_changed(struct vcpu *cpu);           /* tlb.ctx[0] is another number */
void tr_tlb_high_changed(struct vcpu *cpu);          /* tlb.ctx[1] is a new number */
void tr_tlb_drop_range(struct vcpu *cpu);            /* a large page: all of the current address space */
void tr_tlb_drop_page(struct vcpu *cpu, u64 a);
void tr_tlb_drop_writes(struct vcpu *cpu, u64 gpa);  /* gpa ~0: all */
void tr_forget_targets(struct vcpu *cpu);            /* code mappings changed: jump caches */

void tr_forget_page(struct vcpu *cpu, u64 a);        /* of one page, cheap if no code of it was entered */

#endif
