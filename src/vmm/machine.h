/*
 * The machine: assembled by machine_create(), run by machine_run(). Nothing here ends the process.
 *
 * Threads: the main thread runs the event loop and all of the lifecycle; each vCPU has a thread that sits in KVM_RUN and calls
 * device handlers. Lock order: run_lock, then irq_lock, then a device's lock.
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
	struct power_on *power_on;
};

struct msi_table; /* vmm/irq.c */
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
	pid_t share_pid[SHARES_MAX]; /* 0: none */
	struct acpi_pm *pm;
	struct power_on *power_on; /* interrupt controllers and PIT */

	pthread_mutex_t irq_lock;
	struct msi_table *msi;

	pthread_mutex_t run_lock;
	pthread_cond_t run_cond;
	bool hold;           /* vCPU threads stay out of KVM_RUN */
	bool quit;           /* vCPU threads end */
	u32 ninside;
	bool event_pending;
	enum machine_event event;
	int event_code;
	char failure[300];   /* why the machine cannot go on; first cause */

	/* main thread */
	enum machine_state state;
	bool user_paused;
	u32 resets;
	u64 start_ns;
	void (*notify)(void *arg, enum machine_notice n, const char *reason);
	void *notify_arg;
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

#endif
