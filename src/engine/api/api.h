/*
 * The KVM API of the engine: requests of <linux/kvm.h> as they come over the VM socket (system and VM objects; main thread) and
 * over a vCPU's channel (vCPU thread). One table row and one static function per request.
 */
#ifndef ENGINE_API_API_H
#define ENGINE_API_API_H

#include "engine/vm.h"
#include "kvm/chan.h"

/* What a handler gets and gives. buf holds the request's payload and takes the answer's. */
struct api_call {
	struct vm *vm;
	struct vcpu *cpu;   /* vCPU requests */
	u64 arg;            /* by-value argument */
	u8 *buf;
	u32 size;           /* bytes in; the handler (or the table) sets the bytes out */
	u32 room;           /* capacity of buf */
	int fds[KVMW_FDS_MAX]; /* given to the handler; those left >= 0 are closed afterwards */
	u32 nfds;
	int reply_fd;       /* >= 0: goes with the answer, not closed */
};

typedef s64 api_fn(struct api_call *c);

struct api_row {
	u32 request;
	api_fn *fn;
	const char *name;
};
#define API_ROW(req, f) {(u32)(req), f, #req}

/* Looks the request up, checks the payload's size against the number's, calls. -ENOTTY: unknown. */
s64 api_dispatch(const struct api_row *rows, unsigned nrows, u32 request, struct api_call *c);

extern const struct api_row api_system_rows[], api_vm_rows[], api_vcpu_rows[], api_state_rows[];
extern const unsigned api_system_count, api_vm_count, api_vcpu_count, api_state_count;

int api_init(int sock);   /* keeps the socket; makes the attribute memfd */
void api_serve(void);     /* puts the socket into the main loop */
int api_attr_fd(void);

/* vcpu_thread.c: makes the vCPU and its thread; its channel's memfd in *chan_fd. 0 or -errno. */
int vcpu_create(struct vm *vm, u32 id, int *chan_fd);

long api_check_extension(u64 cap);


/* What KVM_SET_GUEST_DEBUG takes. */
#define GUEST_DEBUG_FLAGS                                                                                        \
	(KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP | KVM_GUESTDBG_USE_SW_BP | KVM_GUESTDBG_USE_HW_BP |        \
	 KVM_GUESTDBG_INJECT_DB | KVM_GUESTDBG_INJECT_BP | KVM_GUESTDBG_BLOCKIRQ)

#endif
