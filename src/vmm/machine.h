/*
 * The machine: assembled by machine_create(), run by machine_run(). Nothing here ends the process.
 *
 * Threads: the main thread runs the event loop and all of the lifecycle; each vCPU has a thread that sits in KVM_RUN and calls
 * device handlers. Lock order: run_lock, then irq_lock, then a device's lock, then
 * ports_lock.
 */
#ifndef VMM_MACHINE_H
#define VMM_MACHINE_H

#include <pthread.h>
#include <stdio.h>
#include <linux/kvm.h>
#include "backends/disk.h"
#include "backends/net.h"
#include "base/base.h"
#include "devices/guestmem.h"
#include "devices/virtio_vsock.h"
#include "kvm/kvm.h"
#include "vmm/loader.h"
#include "vmm/memmap.h"
#include "vmm/share.h"

#define MACHINE_CPUS_MAX  64
#define MACHINE_DISKS_MAX 8
#define MACHINE_PORTS_MAX 4
#define MACHINE_NETS_MAX  4
#define MACHINE_EXITS     48

/* Exit statuses of a VM that is not powered off by its guest. */
enum { STATUS_PANIC = 120, STATUS_TRIPLE_FAULT = 121, STATUS_FAILED = 125 };

struct chardev;
struct symbols; /* debug/symbols.h */
struct machine_disk {
	struct disk_config disk;
	char serial[21];
};
struct machine_port { /* a named stream: /dev/virtio-ports/NAME in a Linux guest */
	const char *name;
	struct chardev *chardev; /* not owned */
};
struct machine_config {
	const char *name;
	const char *append;
	int kernel_fd, initrd_fd; /* initrd_fd -1: none. Kept open: a reset loads again */
	const char *kernel_name, *initrd_name;
	u64 memory;
	u32 cpus;
	enum kvm_choice engine;
	u64 code_cache; /* of the translator, bytes; 0: its default */
	struct machine_disk disk[MACHINE_DISKS_MAX];
	u32 ndisks;
	struct net_options net[MACHINE_NETS_MAX];
	u32 nnets;
	struct machine_share share[SHARES_MAX];
	u32 nshares;
	bool stop_on_enospc; /* a full host disk pauses the VM; else the guest sees an I/O error */
	bool no_reboot;
	u16 debug_exit_port; /* 0: none */
	struct machine_port port[MACHINE_PORTS_MAX];
	u32 nports;
	struct chardev *serial, *virtio_console; /* NULL: no one listens; no such device */
	int autopsy_fd;        /* where the report on a crash goes as JSON; 0: nowhere */
	bool autopsy_on_panic; /* a report then too */
	const struct symbols *symbols; /* of the kernel's file; NULL: none given. Not owned */
	struct virtio_vsock_options vsock;       /* cid 0: none; owned by the machine once it is created */
};

enum machine_state { MACHINE_STOPPED, MACHINE_RUNNING, MACHINE_PAUSED, MACHINE_ENDED };
enum machine_notice { NOTICE_STOP, NOTICE_RESUME, NOTICE_SHUTDOWN, NOTICE_RESET, NOTICE_POWERDOWN, NOTICE_PANIC };

struct power_on; /* vmm/reset.c */
struct vcpu_thread {
	struct machine *m;
	struct kvm_obj *kvm;
	struct kvm_run *run;
	u32 index;
	pthread_t thread;
	bool started;
	bool inside; /* under run_lock: may be in KVM_RUN or a handler */
	int tid;
	u64 exits[MACHINE_EXITS]; /* by exit reason; written by the owner only */
	bool debug_exit;          /* under run_lock: left with KVM_EXIT_DEBUG, which says debug */
	struct kvm_debug_exit_arch debug;
	struct power_on *power_on;
};

struct virtio_disk;
struct virtio_net;
struct debugger;  /* vmm/debugger.c */
struct insight;  /* vmm/insight.h */
struct msi_table; /* vmm/irq.c */
struct wake;      /* vmm/wake.h */
struct acpi_pm;
struct machine {
	struct machine_config cfg;
	struct kvm_obj *sys, *vm;
	struct kvm_open_result opened;
	struct loop *loop;
	struct bus *pio, *mmio;
	struct memmap map;
	struct guestmem ram;
	void *ram_base;
	int ram_fd;
	struct vcpu_thread cpu[MACHINE_CPUS_MAX];
	u32 ncpus;
	struct device *devices, **devices_tail;
	struct virtio_disk *disk[MACHINE_DISKS_MAX]; /* in the list too */
	u32 ndisks;
	struct virtio_net *net[MACHINE_NETS_MAX]; /* NULL: of another kind */
	pid_t share_pid[SHARES_MAX]; /* 0: none */
	struct acpi_pm *pm;
	struct power_on *power_on; /* interrupt controllers and PIT */

	pthread_mutex_t ports_lock;
	pthread_mutex_t irq_lock;
	struct msi_table *msi;
	struct wake *wake; /* vmm/wake.c; NULL: this KVM has none */

	pthread_mutex_t run_lock;
	pthread_cond_t run_cond;
	bool hold;           /* vCPU threads stay out of KVM_RUN */
	bool quit;           /* vCPU threads end */
	bool debugger_holds; /* hold stays, whoever releases */
	bool debug_queued;
	u64 traces;          /* begun so far */
	u64 may_run;         /* mask of vCPUs: the debugger lets some go, others not */
	u32 ninside;
	bool event_pending;
	enum machine_event event;
	int event_code;
	int event_cpu;       /* whose thread asked; -1: none */
	char failure[300];   /* why the machine cannot go on; first cause */

	/* main thread */
	enum machine_state state;
	bool user_paused;
	u32 resets;
	struct debugger *debugger; /* NULL: no gdb server */
	u64 start_ns;
	void (*notify)(void *arg, enum machine_notice n, const char *reason);
	void *notify_arg;
	struct insight *insight;
};

/* ---- main thread ---- */
int machine_create(const struct machine_config *cfg, struct loop *loop, struct machine **out, struct err *e);
void machine_destroy(struct machine *m);
int machine_start(struct machine *m, struct err *e); /* loads the kernel; the vCPUs are there, held */
int machine_run(struct machine *m);                  /* lets them go; until the VM ends: the status to exit with */
void machine_pause(struct machine *m);
void machine_resume(struct machine *m);
void machine_powerdown(struct machine *m); /* presses the power button */
void machine_end(struct machine *m, int status, const char *reason);
const char *machine_state_name(const struct machine *m);
struct doppel_trace;
/* Begins a trace (trace.c); the memfd of its rings (kvm/trace.h), or -errno. */
int machine_trace_start(struct machine *m, struct doppel_trace *t, struct err *e);
void machine_trace_stop(struct machine *m);
void machine_dump_code(struct machine *m, u64 pc, FILE *out); /* dump.c; the vCPUs stay out of the guest */

/* ---- any thread ---- */
/* The machine cannot go on: it ends with STATUS_FAILED and this text. */
void machine_fail(struct machine *m, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* ---- inside vmm ---- */
struct pci_host;
int machine_add_nets(struct machine *m, struct pci_host *pci, struct err *e);
int irq_init(struct machine *m, struct err *e);
void irq_free(struct machine *m);
void ports_follow(struct machine *m); /* ports.c: from here on the engine knows which ports nobody decodes */
int cpuid_set(struct machine *m, struct vcpu_thread *v, struct err *e);
int vcpu_create(struct machine *m, u32 index, struct err *e);
void vcpu_destroy(struct vcpu_thread *v);
int vcpu_start(struct vcpu_thread *v);
int vcpu_set_boot_state(struct vcpu_thread *v, const struct boot_state *b, struct err *e);
void vcpus_hold(struct machine *m);    /* main thread: returns when no vCPU is in the guest or a handler */
void vcpus_release(struct machine *m);
void vcpus_quit(struct machine *m);
int power_on_save(struct machine *m, struct err *e);
int power_on_restore(struct machine *m, struct err *e);
void power_on_free(struct machine *m);
int machine_load(struct machine *m, struct err *e);
void lifecycle_event(void *machine); /* runs on the loop when event_pending */
/* debugger.c; the first on vCPU threads */
void debugger_exit(struct vcpu_thread *v); /* it left with KVM_EXIT_DEBUG */
void debugger_was_reset(struct machine *m);
bool debugger_crashed(struct machine *m, const char *text); /* it is stopped for a debugger: not yet the end */
void debugger_ended(struct machine *m, int status);
void debugger_free(struct machine *m);

#endif
