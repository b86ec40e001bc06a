/*
 * The seam. A struct kvm_obj is a KVM file descriptor in all but name: system (/dev/kvm), VM or vCPU, of the kernel's KVM or
 * of the engine. kvm_ioctl() takes the KVM request numbers and structs of <linux/kvm.h> and answers as the kernel does.
 */
#ifndef KVM_KVM_H
#define KVM_KVM_H

#include <linux/kvm.h>
#include "base/types.h"

enum kvm_kind { KVM_KIND_DEVICE, KVM_KIND_ENGINE };

struct kvm_obj;

/* What `--engine` may say. */
enum kvm_choice { KVM_CHOICE_AUTO, KVM_CHOICE_KVM, KVM_CHOICE_INTERP, KVM_CHOICE_TRANSLATE, KVM_CHOICE_DIRECT, KVM_CHOICE_CHECK };

struct kvm_open_result {
	enum kvm_kind kind;
	char why[200]; /* one line: why this one */
};

/* Opens a KVM. The engine is started as a child process (doppel-engine beside the executable, or $DOPPEL_ENGINE). Returns 0
 * or -errno with why[] saying what failed. */
int kvm_open(enum kvm_choice choice, struct kvm_obj **sys, struct kvm_open_result *res);
/* The same with a size for the translator's code cache, 0: its default. */
int kvm_open_sized(enum kvm_choice choice, u64 code_cache, struct kvm_obj **sys, struct kvm_open_result *res);
void kvm_close(struct kvm_obj *o); /* any object; NULL is fine */

/* Like ioctl(2): result >= 0, or -errno (not -1). For requests that create an object use kvm_create_*. */
long kvm_ioctl(struct kvm_obj *o, unsigned long request, ...);
int kvm_create_vm(struct kvm_obj *sys, unsigned long type, struct kvm_obj **vm);
int kvm_create_vcpu(struct kvm_obj *vm, unsigned long id, struct kvm_obj **vcpu);
/* The vCPU's mmap area (struct kvm_run first; size by KVM_GET_VCPU_MMAP_SIZE). Owned by the vcpu object. */
struct kvm_run *kvm_vcpu_run_area(struct kvm_obj *vcpu);

/* Guest RAM must be shareable: allocate it here (memfd, MAP_SHARED) before KVM_SET_USER_MEMORY_REGION, whose
 * userspace_addr may point anywhere inside such a mapping; other memory cannot be shared with the engine: -EOPNOTSUPP.
 * NULL + errno on failure. */
void *kvm_ram_alloc(u64 size, int *fd_out);
void kvm_ram_free(void *p, u64 size);

/* The VMM wrote guest memory (DMA): lets the engine drop translations of it. Free with a kernel KVM; with the engine it costs a
 * look at the page's attribute byte. Any thread. Call after the write, before the interrupt. */
void kvm_dma_written(struct kvm_obj *vm, gpa_t gpa, u64 size);

/* For processes that write guest memory themselves: the engine's notes on each page, a byte each, and the bits that say that
 * kvm_dma_written() is needed. A descriptor for reading, the caller's; -1: this KVM has none. */
int kvm_page_attr(const struct kvm_obj *vm, u64 *bytes, u8 *code);

/* Makes a KVM_RUN in progress on another thread return -EINTR (as a signal plus immediate_exit would). Any thread. */
void kvm_vcpu_kick(struct kvm_obj *vcpu);

enum kvm_kind kvm_kind(const struct kvm_obj *o);
/* What executes the guest: "kvm", "direct" (which translates too), "translate" or "interp". */
const char *kvm_engine_name(const struct kvm_obj *o);
/* True once the engine process has died; then every request answers -EIO. exit_text describes how. */
bool kvm_engine_dead(struct kvm_obj *o, char *text, size_t size);
/* An fd that becomes readable when the engine dies (-1 for the device). */
int kvm_death_fd(struct kvm_obj *sys);
/* The engine's process ID; 0 for the device. */
int kvm_engine_pid(struct kvm_obj *sys);

#endif
