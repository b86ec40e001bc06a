/* Inside the kvm room: the object, and the two implementations behind it. */
#ifndef KVM_KVM_INT_H
#define KVM_KVM_INT_H

#include <pthread.h>
#include "kvm/chan.h"
#include "kvm/kvm.h"

struct engine; /* one engine process: engine_client.c */

struct kvm_obj {
	enum kvm_kind kind;
	enum kvmw_object type;
	int fd;                   /* device: the KVM fd. engine: vCPU: its channel's memfd; VM: page attributes */
	struct engine *engine;    /* engine only; counted */
	struct vcpu_chan *chan;   /* engine vCPU */
	struct kvm_run *run;      /* vCPU: mmap area */
	size_t run_size;
	pthread_mutex_t lock;     /* engine vCPU: one request at a time */
	u32 short_runs;           /* spin budget of KVM_RUN: recent runs that came back at once */
	pthread_t runner;         /* device vCPU: thread in KVM_RUN, for kicks */
	u32 running;
	struct {                  /* engine vCPU, KVM_SET_SIGNAL_MASK: sigmask.c */
		bool on;
		u64 mask, outside;
		int bell, fd;     /* eventfd that the engine rings when it has answered; signalfd */
	} sig;
	unsigned long id;         /* engine vCPU */
	u8 *attr;                 /* engine VM: page attributes, shared */
};

/* device.c */
int device_open(struct kvm_obj **sys, struct kvm_open_result *res);
int open_device_node(void); /* fd of /dev/kvm or -errno */
bool device_hardware_backed(void); /* vmx or svm in this machine's CPU flags */

/* engine_client.c */
int engine_open(enum kvm_choice choice, u64 code_cache, struct kvm_obj **sys, struct kvm_open_result *res);
long engine_ioctl(struct kvm_obj *o, unsigned long request, void *arg);
int engine_create_vm(struct kvm_obj *sys, struct kvm_obj **vm);
int engine_create_vcpu(struct kvm_obj *vm, unsigned long id, struct kvm_obj **vcpu);
const char *engine_tier(const struct kvm_obj *o);
void engine_close(struct kvm_obj *o);
int engine_attr_fd(const struct kvm_obj *vm);
void engine_dma_written(struct kvm_obj *vm, gpa_t gpa, u64 size);
bool engine_dead(struct engine *e, char *text, size_t size);
int engine_death_fd(struct engine *e);
int engine_pid(struct engine *e);
int engine_pidfd(struct engine *e);
int engine_set_bell(struct kvm_obj *vcpu, int fd); /* eventfd to ring beside the futex; 0 or -errno */

/* channel.c */
long channel_request(struct kvm_obj *vcpu, unsigned long request, void *arg);
void channel_cancel(struct kvm_obj *vcpu);

/* sigmask.c: around the wait of a KVM_RUN, if sig.on */
int sigmask_set(struct kvm_obj *vcpu, const struct kvm_signal_mask *m);
int sigmask_enter(struct kvm_obj *vcpu);
void sigmask_leave(struct kvm_obj *vcpu);
void sigmask_wait(struct kvm_obj *vcpu);
void sigmask_close(struct kvm_obj *o);

/* ram.c: which memfd lies behind an address; -1: none of ours */
int ram_lookup(u64 addr, u64 size, u64 *offset);

#endif
