/* The debugger's hold on the machine: the gdb server on one side, vCPU threads on the other. Main thread but where marked. */
#ifndef VMM_DEBUGGER_H
#define VMM_DEBUGGER_H

#include "debug/cpu_state.h"
#include "vmm/machine.h"

struct debugger;
/* A gdb server that listens on fd, which it owns from success on. wait: the guest does not start before a debugger says so. */
int debugger_start(struct machine *m, int fd, bool wait, struct err *e);
int debugger_listen(struct machine *m, int fd, struct err *e); /* there too */

/* All of a vCPU's registers; it is outside the guest. 0 or -errno. */
int vcpu_get_state(struct vcpu_thread *v, struct cpu_state *c);

/* A symbol of the guest's kernel, if symbols can be had; vCPUs are held. */
bool debugger_symbol(void *machine, u32 cpu, const char *name, u64 *addr);
/* debugger_monitor.c: `monitor irqs`, `monitor exits` */
bool debugger_monitor(void *machine, u32 cpu, const char *what, FILE *out);

#endif
