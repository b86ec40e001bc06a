/* What a vCPU holds, as debuggers and people want it: KVM's structs, read while the vCPU is outside the guest. */
#ifndef DEBUG_CPU_STATE_H
#define DEBUG_CPU_STATE_H

#include <linux/kvm.h>
#include <stdio.h>
#include "base/types.h"

struct cpu_state {
	struct kvm_regs r;
	struct kvm_sregs s;
	struct kvm_xsave x;      /* XSAVE's standard format (SDM 1 13.4) */
	u64 kernel_gs_base;
	u32 mp_state;            /* KVM_MP_STATE_* */
};

/* Which parts are to be written back. */
enum { CPU_STATE_REGS = 1, CPU_STATE_SREGS = 2, CPU_STATE_XSAVE = 4, CPU_STATE_KERNEL_GS = 8 };

/* CS:RIP as a linear address. */
u64 cpu_state_pc(const struct cpu_state *c);
/* "64-bit", "32-bit", "16-bit", "real mode", "V86" */
const char *cpu_state_mode(const struct cpu_state *c);
const char *cpu_state_activity(const struct cpu_state *c); /* "running", "halted", "waits for INIT" ... */
/* All of it but vectors as text, several lines. */
void cpu_state_print(const struct cpu_state *c, FILE *out);

/* An address as people write it: a number, or a register: "pc" (CS:RIP, linear), "rsp", "cr2" ...; 0 or -EINVAL. */
int cpu_state_address(const struct cpu_state *c, const char *text, u64 *v);
/* General registers, RIP, RFLAGS and control registers by name; false: there is no nth. */
bool cpu_state_register(const struct cpu_state *c, u32 n, const char **name, u64 *v);
bool cpu_state_segment(const struct cpu_state *c, u32 n, const char **name, const struct kvm_segment **s);

#endif
