/*
 * The wire between a KVM client (VMM) and the engine. Both sides include this file; it must stay small.
 *
 * VM socket: SOCK_SEQPACKET. Each request is one message: struct kvmw_req + payload (+ fds by SCM_RIGHTS); each gets one
 * struct kvmw_rep + payload (+ fds). One request at a time (the client locks). The engine exits when the socket closes.
 *
 * vCPU channel: a memfd per vCPU, KVMW_CHAN_SIZE bytes: struct vcpu_chan. The first three pages are KVM's own mmap area of
 * a vCPU (kvm_run, PIO data, coalesced ring). Requests on a vCPU (KVM_RUN and all vCPU ioctls) go through it: the client
 * fills req/payload, stores turn = TURN_ENGINE and wakes; the engine answers and stores turn = TURN_CLIENT.
 */
#ifndef KVM_CHAN_H
#define KVM_CHAN_H

#include <linux/kvm.h>
#include "base/types.h"

#define KVMW_VERSION   1
#define KVMW_MMAP_SIZE (3 * 4096)
#define KVMW_CHAN_SIZE (32 * 4096)
#define KVMW_PAYLOAD   (24 * 4096)
#define KVMW_MSG_MAX   65536
#define KVMW_FDS_MAX   4

/* Requests that KVM does not have: doppel's own, numbers outside KVMIO. */
#define DOPPELIO             0xD0
#define DOPPEL_INVALIDATE    _IOW(DOPPELIO, 1, struct doppel_range)  /* the VMM wrote guest RAM where PA_CODE was set */
#define DOPPEL_GET_ATTR_FD   _IO(DOPPELIO, 2)                        /* reply carries the page-attribute memfd */
#define DOPPEL_GET_STATS     _IOR(DOPPELIO, 3, struct doppel_stats)  /* on a vCPU */
#define DOPPEL_DUMP_CODE     _IOWR(DOPPELIO, 5, struct doppel_dump)  /* on a vCPU that does not run */
#define DOPPEL_SET_OPEN_PORTS _IOW(DOPPELIO, 6, struct doppel_ports) /* on the VM */
#define DOPPEL_SET_BELL      _IO(DOPPELIO, 4)  /* on the VM: vCPU ID, and an eventfd to ring with each answer */

#define DOPPEL_SET_WAKE_PAGE _IO(DOPPELIO, 7)  /* on the VM, with the memfd of base/wake.h; once, before vCPUs run. ENOSYS: the kernel is too old */

/* On the VM, which has no more than one vCPU and will have no other: nothing outside of the guest takes part in what its user mode
 * programs do to memory, but for devices that such a program has reached by I/O itself. So they need no atomic operations. */
#define DOPPEL_ONE_CPU       _IO(DOPPELIO, 8)

/* Windows onto files (base/window.h), on the VM: their number is the answer; and where they are, ~0: nowhere. */
struct doppel_window {
	u64 size;
	s32 fd; /* the engine's end */
	u32 padding;
};
struct doppel_place {
	u64 gpa;
	u32 window, padding;
};
#define DOPPEL_ADD_WINDOW    _IOW(DOPPELIO, 9, struct doppel_window)
#define DOPPEL_PLACE_WINDOW  _IOW(DOPPELIO, 10, struct doppel_place)

#define DOPPEL_TRACE_START   _IOW(DOPPELIO, 24, struct doppel_trace) /* on the VM, with the memfd of kvm/trace.h */
#define DOPPEL_TRACE_STOP    _IO(DOPPELIO, 25)
#define DOPPEL_GET_SAMPLES   _IOR(DOPPELIO, 26, struct doppel_samples) /* on the VM; starts sampling, which ends by itself */
#define DOPPEL_COUNT_INSNS   _IO(DOPPELIO, 27) /* on the VM: while it is sampled, translated code counts its instructions */
/* I/O ports that the client does not decode, a bit each: the engine answers reads of them with ones and drops writes, unless an
 * interrupt controller of its own or an ioeventfd is there. At first none is open. */
#define DOPPEL_PORTS 0x10000
struct doppel_ports {
	u8 open[DOPPEL_PORTS / 8];
};

/* A page's attribute byte, in the memfd of DOPPEL_GET_ATTR_FD: it holds decoded code. */
#define KVMW_ATTR_CODE 0x04
#define DOPPEL_GET_RECORD    _IOR(DOPPELIO, 16, struct doppel_record) /* on a vCPU that does not run */
#define DOPPEL_SET_RECORD    _IO(DOPPELIO, 17) /* on a vCPU that does not run: DOPPEL_RECORD_* */
#define DOPPEL_CLEAR_COVERAGE _IO(DOPPELIO, 18) /* on a vCPU, while none runs */
#define DOPPEL_GET_COVERAGE  _IOWR(DOPPELIO, 19, struct doppel_coverage) /* on a vCPU, while none runs */

struct doppel_range {
	u64 gpa, size;
};
#define DOPPEL_STATS_MAX 64
struct doppel_stats {
	u32 count;
	u32 pad;
	u64 value[DOPPEL_STATS_MAX]; /* in the order of kvm/stats.h */
};

/* Translated code of the guest address pc, as text, piece by piece: those of size bytes from offset on. ENOENT: pc is not mapped. */
struct doppel_dump {
	u64 pc;
	u32 offset, size;
	char text[16000];
};

/* What is traced. */
struct doppel_trace {
	s32 fd;
	u32 kinds;  /* bits by enum trace_kind */
	u64 cpus;   /* bits by order of creation */
	u64 lo, hi; /* RIP, both ends included */
	u32 cpls;   /* bits by CPL */
	u32 wait;   /* a full ring holds its vCPU instead of losing events */
};

/* Where each vCPU was found at the ticks of a clock. */
enum doppel_sample { SAMPLE_USER, SAMPLE_KERNEL, SAMPLE_MONITOR, SAMPLE_IDLE, SAMPLE_KINDS };
struct doppel_samples {
	u32 ncpus, hz;
	u64 count[64][SAMPLE_KINDS];
};

/* What a vCPU has done last, oldest first. */
#define DOPPEL_EVENTS   16
#define DOPPEL_ARRIVALS 256
#define DOPPEL_EVENT_ERROR     1u /* has an error code */
#define DOPPEL_EVENT_NESTED    2u /* raised while the one before it was being delivered */
#define DOPPEL_EVENT_SHUTDOWN  4u /* not delivered any more: the double fault's delivery failed */
#define DOPPEL_EVENT_INTERRUPT 8u /* an interrupt or NMI; recorded only if its delivery failed */
struct doppel_record {
	u32 nevents;
	u32 arrivals; /* at[] is being recorded */
	struct doppel_event {
		u64 rip, cr2;
		u32 error;
		u8 vector, cpl, flags, pad;
	} event[DOPPEL_EVENTS];
	u64 at[DOPPEL_ARRIVALS]; /* RIPs that jumps led to, or code simply came to; 0: none */
};

#define DOPPEL_RECORD_ARRIVALS 1u
#define DOPPEL_RECORD_COVERAGE 2u
#define DOPPEL_COVERAGE 1900
/* Pieces of kernel code that have run, each straight on to a jump or other end, in the order of their first time. */
struct doppel_coverage {
	u32 from, count, total, lost;
	u64 entry[DOPPEL_COVERAGE]; /* RIP in 48 bits, length in 16 */
};

enum kvmw_object { KVMW_SYSTEM, KVMW_VM, KVMW_VCPU };

struct kvmw_req {
	u32 object;  /* enum kvmw_object */
	u32 ioctl;   /* KVM_* request number */
	u64 arg;     /* by-value argument */
	u32 size;    /* payload bytes that follow */
	u32 nfds;
};
struct kvmw_rep {
	s64 ret;     /* >= 0 result, or -errno */
	u32 size;
	u32 nfds;
};

enum { TURN_CLIENT = 0, TURN_ENGINE = 1 };

struct vcpu_chan {
	union {
		struct kvm_run run;
		u8 run_page[4096];
	};
	u8 pio_page[4096];       /* kvm_run.io.data_offset = 4096 */
	u8 coalesced_page[4096];
	u32 turn __attribute__((aligned(64)));      /* futex: whose move it is */
	u32 client_waits, engine_waits;             /* somebody sleeps on turn */
	u32 attention __attribute__((aligned(64))); /* enum attention of engine/vcpu.h; futex of a halted vCPU */
	u32 sleeping;                               /* the vCPU sleeps on attention */
	s32 tid;                                    /* the vCPU's thread */
	u32 in_cell;                                /* the vCPU waits for user code that runs directly */
	u32 calm;                                   /* CHAN_CALM; 0 after attention was set: what translated code looks at */
	u32 ioctl __attribute__((aligned(64)));
	u32 size;                                   /* payload bytes, both ways */
	u64 arg;
	s64 ret;
	u8 payload[KVMW_PAYLOAD] __attribute__((aligned(64)));
};
#define CHAN_CALM   0x7fff8u /* the mask that makes an index of a jump's target: engine/translate/state.h */
#define CHAN_KICK_SIGNAL 34 /* to tid, after attention was set: ends the wait of a vCPU that is in_cell */
#define CHAN_CANCEL 0x01u /* attention bit a client may set: stop KVM_RUN (= ATT_CANCEL) */

_Static_assert(sizeof(struct vcpu_chan) <= KVMW_CHAN_SIZE, "channel fits");

#endif
