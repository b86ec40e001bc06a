/*
 * gdb's remote serial protocol (GDB manual, appendix E): everything between bytes from gdb and a machine that can be stopped, looked
 * into and stepped. Knows neither sockets (gdb_server.c) nor the machine (struct gdb_target), so that a fuzzer can drive it.
 *
 * One debugger at a time, all-stop: while it is told "stopped" no vCPU runs. vCPU n is thread n + 1. Main thread only.
 */
#ifndef DEBUG_GDB_H
#define DEBUG_GDB_H

#include "debug/cpu_state.h"
#include "devices/guestmem.h"

#define GDB_CPUS_MAX 64

/* The machine. Functions that return int: 0 or -errno. */
struct gdb_target {
	void *arg;
	u32 ncpus;
	const struct guestmem *ram;
	u32 debug_flags;                        /* KVM_GUESTDBG_* that the KVM knows */
	void (*stop)(void *arg);                /* until no vCPU is in the guest; it stays so until go() */
	void (*go)(void *arg, u64 cpus);        /* those of the mask run */
	void (*kill)(void *arg);                /* ends the VM, soon */
	int (*get)(void *arg, u32 cpu, struct cpu_state *c);
	int (*set)(void *arg, u32 cpu, const struct cpu_state *c, u32 parts);
	int (*set_debug)(void *arg, u32 cpu, const struct kvm_guest_debug *d);
	bool (*symbol)(void *arg, u32 cpu, const char *name, u64 *addr); /* of the guest's kernel; NULL: none known */
	/* `monitor WHAT`: prints; false: no such thing */
	bool (*monitor)(void *arg, u32 cpu, const char *what, FILE *out);
};

/* A vCPU's KVM_EXIT_DEBUG. */
struct gdb_exit {
	bool valid;
	struct kvm_debug_exit_arch a;
};

struct gdb;
struct gdb *gdb_new(const struct gdb_target *t);
void gdb_free(struct gdb *g);

/* ---- the connection ---- */
void gdb_attach(struct gdb *g);                       /* a debugger is there: the machine stops */
void gdb_detach(struct gdb *g);                       /* it is gone: breakpoints go, the machine runs */
void gdb_input(struct gdb *g, const u8 *p, size_t n);
const char *gdb_output(const struct gdb *g, size_t *n); /* what is to be sent */
void gdb_output_taken(struct gdb *g, size_t n);
bool gdb_wants_close(const struct gdb *g);            /* when the output is out */

/* ---- the machine ---- */
/* All vCPUs are out of the guest because some have met breakpoints: exits[cpu]. Reports, or lets them go on. */
void gdb_exits(struct gdb *g, const struct gdb_exit *exits);
void gdb_was_reset(struct gdb *g); /* the guest starts anew, stopped before its first instruction; its memory is new */
/* The guest has crashed, in words, on that vCPU: told as a stop; true if there is somebody to tell. */
bool gdb_crashed(struct gdb *g, u32 cpu, const char *text);
void gdb_ended(struct gdb *g, int status);

#endif
