/*
 * Vector and x87 state of a vCPU: in cpu->xsave (XSAVE standard format) while it does not run, live in the
 * host's registers while it does. Guest components: x87, SSE, AVX.
 */
#ifndef ENGINE_CPU_FPU_H
#define ENGINE_CPU_FPU_H

#include <ucontext.h>
#include "engine/vcpu.h"

#define XS_X87 BIT64(0)
#define XS_SSE BIT64(1)
#define XS_AVX BIT64(2)

#define XSAVE_LEGACY 512u
#define XSAVE_HEADER 64u
#define XSAVE_AVX    576u /* offset of the AVX component in either format: it is the first */
#define XSAVE_SIZE   832u

#define MXCSR_DEFAULT 0x1f80u
#define FCW_DEFAULT   0x37fu

/* The legacy area (SDM 1 table 10-2). */
struct fx_area {
	u16 fcw, fsw;
	u8 ftw, rsvd;
	u16 fop;
	union {
		struct {
			u64 fip, fdp;
		};
		struct {
			u32 fip32;
			u16 fcs, pad0;
			u32 fdp32;
			u16 fds, pad1;
		};
	};
	u32 mxcsr, mxcsr_mask;
	u8 st[8][16];
	u8 xmm[16][16];
	u8 unused[96];
};

struct xsave_area {
	struct fx_area fx;
	u64 xstate_bv, xcomp_bv, header_rsvd[6];
	u8 ymm_high[16][16];
};

_Static_assert(sizeof(struct fx_area) == XSAVE_LEGACY, "layout");
_Static_assert(sizeof(struct xsave_area) == XSAVE_SIZE, "layout");

/*
 * Private to cpu/fpu.c and interp/vec: cpu->vecexec. The host's x87 instruction and data pointers are those
 * of the stubs, so the guest's are kept here while it runs.
 */
struct vec_state {
	union {
		u8 bounce[4096];
		struct xsave_area xs;
	} __attribute__((aligned(64)));
	u64 fip, fdp;
	u16 fcs, fds, fop;
	u32 mxcsr_mask;
	bool fx_pointers;     /* FXSAVE and XSAVE store the pointers always, not only while an exception is
				 pending (AMD) */
	bool saves_selectors; /* FCS and FDS exist (CPUID.7.EBX[13] clear) */
	bool has_avx;
	bool amd;
	const void *fwait; /* stub */
};

/* Made on first use: host facts, stubs. Panics where the host has no XSAVE. */
struct vec_state *vec_state(struct vcpu *cpu);

/* ---- owning vCPU thread, with the state not live ---- */
void vcpu_fpu_load(struct vcpu *cpu);
void vcpu_fpu_save(struct vcpu *cpu);

/* ---- vCPU not running ---- */
void fpu_reset(struct vcpu *cpu,
	       bool init); /* power-on, or INIT which keeps vector state (SDM 3A table 10-1) */
void fpu_get(struct vcpu *cpu, struct kvm_fpu *out);
int fpu_set(struct vcpu *cpu, const struct kvm_fpu *in);     /* 0 or -errno: nothing changed */
void xsave_get(struct vcpu *cpu, void *area, unsigned size); /* the rest of the area is zeroed */
int xsave_set(struct vcpu *cpu, const void *area, unsigned size);

/* ---- any time ---- */
u64 xstate_supported(void);                     /* components a guest may enable: host XCR0 & 7 */
unsigned xstate_size(u64 xcr0, bool compacted); /* CPUID.0DH: bytes of an area for these components */

/*
 * SIGFPE whose RIP is in a stub: arranges that the thread goes on in cpu_raise(#MF or #XM). False: not ours.
 * Called in the signal handler; the kernel gives the vector state back as it was at the fault.
 */
bool vec_handle_sigfpe(struct vcpu *cpu, ucontext_t *uc);

#endif
