/*
 * struct vm: what the vCPUs of the virtual machine share. One VM per engine process.
 *
 * Lock order: vm->lock, then icache lock, then vm->irq.lock, then a lapic's atomics. A vCPU thread that waits for
 * vm->lock must be at a safe point itself: use vm_lock_guest() there.
 */
#ifndef ENGINE_VM_H
#define ENGINE_VM_H

#include <linux/kvm.h>
#include "base/types.h"
#include "engine/layout.h"
#include "engine/mmu/window.h"
#include "engine/vcpu.h"

#define VM_MAX_SLOTS 64
#define VM_MAX_IOEVENTFDS 128

struct vm_slot {
	bool used;
	u32 flags; /* KVM_MEM_* */
	gpa_t gpa;
	u64 size, user_addr;
	int fd; /* kept so that a move can map it again */
	u64 fd_offset;
};

struct vm_ioeventfd {
	bool used, pio, has_match;
	u64 addr, match;
	u32 len; /* 0: any */
	int fd;
};

struct irqchip; /* irqchip/irqchip.h */
struct sampler; /* trace/sample.c */
struct wake_page; /* base/wake.h */

struct vm {
	u32 lock; /* futex lock: eng_lock() */
	u32 nvcpus;
	struct vcpu *vcpus[ENG_MAX_VCPUS]; /* by index of creation; any thread reads */
	struct vm_slot slots[VM_MAX_SLOTS];
	struct vm_ioeventfd ioeventfds[VM_MAX_IOEVENTFDS];
	u32 nioeventfds;          /* entries below this may be used; written under a safe point */
	bool one_cpu;             /* DOPPEL_ONE_CPU */
	u64 open_ports[0x10000 / 64]; /* nobody outside decodes them; vCPU threads read while the main thread writes */
	struct irqchip *irqchip;  /* NULL until KVM_CREATE_IRQCHIP */
	u32 tsc_khz;
	s64 kvmclock_offset;      /* guest kvmclock ns = host monotonic ns + offset */
	u64 boot_ns;
	u32 clock_lock;           /* futex lock of the next two, cpu/pvclock.c */
	u64 clock_ref_tsc, clock_ref_ns; /* kvmclock's reference: host TSC and monotonic ns at one moment */
	u32 split_lock;           /* futex lock of crossing atomics */
	u32 tss_addr, identity_map_addr;
	/* safe point machinery (engine/safepoint.c) */
	u32 safe_lock, safe_wanted; /* futexes */
	u64 memory_changes;         /* made at safe points: vCPUs forget translations before they go on */
	struct wake_page *wake;     /* NULL: interrupts come by irqfd only */
	struct mmu_window window[MMU_WINDOWS];
	u32 nwindows;
	bool patient;               /* vCPUs that halt may look for a while before they sleep */
	struct sampler *sampler;    /* NULL: nobody has asked yet */
};

static inline struct vm *the_vm(void) { return (struct vm *)ENG_VM_BASE; }

/*
 * Stops all other vCPUs outside guest execution (between instructions, or already out), runs fn, lets them go. The caller
 * is a vCPU thread (cpu) or the main thread (cpu NULL). fn may flush TLBs, change slots, free code. Nested calls by
 * several threads queue up.
 */
void vm_safepoint(struct vm *vm, struct vcpu *cpu, void (*fn)(struct vm *vm, void *arg), void *arg);

/* Makes the vCPU look at its attention word soon; wakes it from HLT. Any thread. */
void vcpu_kick(struct vcpu *cpu, unsigned attention);

void vm_split_lock(struct vm *vm);
void vm_split_unlock(struct vm *vm);

/* Device-side entry points of the in-kernel buses; true if something in the engine took it. */
bool vm_ioeventfd_write(struct vcpu *cpu, bool pio, u64 addr, unsigned len, u64 value);

#endif
