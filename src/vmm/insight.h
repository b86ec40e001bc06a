/*
 * Looking into the guest of a machine: symbols, stacks, tasks. What was found is kept until the guest restarts. Main thread only, vCPUs
 * held where a function looks at one.
 */
#ifndef VMM_INSIGHT_H
#define VMM_INSIGHT_H

#include <cjson/cJSON.h>
#include "debug/linux.h"
#include "debug/symbols.h"
#include "debug/unwind.h"
#include "vmm/machine.h"

struct profile;
struct insight {
	struct symbols *symbols;  /* NULL: not looked for, or none */
	struct err why;           /* none: why */
	struct orc *orc;
	struct linux_tasks tasks;
	u64 retry_ns;             /* none: not looked for again before */
	struct profile *profile;
	u32 record;               /* DOPPEL_RECORD_* that are on */
};

/* A vCPU's state, and its view of memory. */
struct insight_vcpu {
	struct kvm_regs regs;
	struct inspect in;
	u64 kernel_gs;
	bool halted;
};

int insight_create(struct machine *m);
void insight_free(struct machine *m);
void insight_forget(struct machine *m); /* the guest restarts */

/* Whether the vCPUs had to be stopped; to be given to insight_release(). */
bool insight_hold(struct machine *m);
void insight_release(struct machine *m, bool held);

int insight_vcpu(struct vcpu_thread *v, struct insight_vcpu *out);
/* NULL: none; why tells. Looks for them if need be, through that vCPU. */
const struct symbols *insight_symbols(struct machine *m, const struct insight_vcpu *v);
/* Looks anew, through whichever vCPU has the kernel mapped, that one first. */
void insight_find(struct machine *m, int first);
u32 insight_stack(struct machine *m, const struct insight_vcpu *v, struct unwind_frame *out, u32 max);

/* ---- autopsy.c ---- */
/* cpu: the one to be told of in full; -1: all. */
cJSON *machine_autopsy(struct machine *m, const char *reason, int cpu);
void machine_autopsy_report(struct machine *m, const char *reason); /* of the vCPU that crashed: to stderr and the file */
bool machine_panicking(struct machine *m); /* the vCPU that asked for a reset did so from Linux' panic() */
int machine_record(struct machine *m, u32 set, u32 clear); /* DOPPEL_RECORD_*, on all vCPUs, which are held */

/* ---- coverage.c ---- */
struct coverage_piece {
	u32 next, count, total, lost;
};
int coverage_switch(struct machine *m, bool on); /* -ENOTTY: this KVM cannot */
int coverage_read(struct machine *m, struct coverage_piece *c, char *buf, size_t size); /* from c->next on, which moves */

#endif
