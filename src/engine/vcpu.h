/*
 * struct vcpu: the whole state of one virtual CPU. It lives at a fixed address (layout.h); one engine thread
 * runs it. Vector and x87 state of the guest is *live in the host's registers* while the vCPU runs (between
 * vcpu_fpu_load and vcpu_fpu_save): engine code is built -mgeneral-regs-only, and on that path nothing of libc
 * may be called except what engine/lib provides (mem*, raw system calls).
 *
 * Fields are written by the owning vCPU thread only, except where marked "any thread" (then atomic).
 */
#ifndef ENGINE_VCPU_H
#define ENGINE_VCPU_H

#include <linux/kvm.h>
#include "base/patience.h"
#include "base/types.h"
#include "engine/layout.h"
#include "engine/isa/insn.h"
#include "engine/mmu/tlb.h"
#include "engine/trace/state.h"
#include "engine/translate/state.h"
#include "kvm/chan.h"
#include "kvm/stats.h"

struct vm;
struct vcpu_chan;
struct lapic;
struct iblock;

enum { R_AX, R_CX, R_DX, R_BX, R_SP, R_BP, R_SI, R_DI, R_8, R_9, R_10, R_11, R_12, R_13, R_14, R_15 };

/* RFLAGS */
#define FL_CF   0x0001u
#define FL_ONE  0x0002u
#define FL_PF   0x0004u
#define FL_AF   0x0010u
#define FL_ZF   0x0040u
#define FL_SF   0x0080u
#define FL_TF   0x0100u
#define FL_IF   0x0200u
#define FL_DF   0x0400u
#define FL_OF   0x0800u
#define FL_IOPL 0x3000u
#define FL_NT   0x4000u
#define FL_RF   0x10000u
#define FL_VM   0x20000u
#define FL_AC   0x40000u
#define FL_VIF  0x80000u
#define FL_VIP  0x100000u
#define FL_ID   0x200000u
#define FL_ARITH (FL_CF | FL_PF | FL_AF | FL_ZF | FL_SF | FL_OF)

struct segment {
	u64 base;
	u32 limit;  /* in bytes, granularity applied */
	u16 sel;
	u8 type;    /* 4 bits of the descriptor */
	u8 dpl;
	bool s, present, avl, l, db, g;
	bool unusable; /* null selector loaded */
};

#define VCPU_MAX_CPUID 100

struct dtable {
	u64 base;
	u16 limit;
};

enum { MP_RUNNABLE, MP_UNINITIALIZED, MP_INIT_RECEIVED, MP_HALTED, MP_SIPI_RECEIVED }; /* = KVM_MP_STATE_* 0..4 */

/* Why the run loop must look up: bits of chan->attention (any thread sets, owner clears). See engine/cpu/run.h */
enum attention {
	ATT_CANCEL = 0x01, /* VMM wants KVM_RUN to return (signal, immediate_exit) */
	ATT_IRQ = 0x02,    /* LAPIC/PIC/injected event state changed: re-evaluate interrupts */
	ATT_TIMER = 0x04,  /* a timer of this vCPU is due */
	ATT_SAFE = 0x08,   /* another thread waits for this vCPU at a safe point: vm_safepoint() */
	ATT_FLUSH = 0x10,  /* flush the whole TLB */
	ATT_EVENT = 0x20,  /* INIT/SIPI/NMI pending */
	ATT_TRACE = 0x40,  /* what is traced has changed: cpu->trace */
};

/* A pending or just-raised exception. */
struct exception {
	u8 vector;
	bool has_error;
	bool pending;
	u32 error;
	u64 cr2; /* #PF: loaded on delivery */
	u64 dr6; /* #DB: bits to set on delivery */
};

enum intr_shadow { SHADOW_NONE, SHADOW_STI, SHADOW_MOVSS };

/* What the interpreter and decoder key on: enough to say how bytes at CS:RIP execute. cpu_update_mode() keeps it. */
struct cpu_mode {
	u8 code;     /* enum insn_mode of CS */
	u8 stack;    /* stack width in bytes: 2 4 8 */
	u8 cpl;
	bool pe, vm86, lma, long64; /* long64: LMA and CS.L */
	bool fpu_ok;  /* x87 usable: !CR0.EM && !CR0.TS */
	bool sse_ok;  /* SSE usable: !EM && CR4.OSFXSR && !TS */
	bool avx_ok;  /* AVX usable: CR4.OSXSAVE && XCR0[2:1]==3 && !TS */
	bool flat;    /* ES CS SS DS have base 0, limit 4G, writable: no segment checks (always in long64 but FS/GS base) */
	u8 mmu_idx;   /* enum mmu_idx of explicit data accesses now */
	u32 key;      /* 24 bits: all of the above that matters to decoded code, packed; equal key = same decoded code valid */
};

/* Further bits of cpu_mode.key: what translated code relies on. */
#define MODE_KEY_SMAP     0x4000u
#define MODE_KEY_FSGSBASE 0x8000u
#define MODE_KEY_TSD      0x10000u /* RDTSC faults outside CPL 0 */
#define MODE_KEY_ONE_CPU  0x20000u /* user mode programs need no LOCK: cpu/exit.c */
#define MODE_KEY_COUNT    0x400000u /* translated code counts instructions: translate/gen_count.c */
#define MODE_KEY_TRACE    0x800000u /* sensitive instructions are traced: each goes to its handler */
#define MODE_KEY_ARRIVALS 0x100000u /* jumps are recorded: cpu/record.h */
#define MODE_KEY_COVERAGE 0x200000u /* blocks end at each jump */
/* Jump caches are apart by these; a change of any other bit empties them. */
#define MODE_KEY_CLASS    (0xffu | 0x100u | 1u << 13)

#define MMIO_FRAGS 128 /* XSAVE of 832 bytes, in pieces of 8 */
/*
 * Accesses that leave to the VMM. An instruction that touches MMIO is *restarted* when the VMM has answered: the accesses
 * done so far are replayed from this log, in order, and the instruction commits once it needs none that is not here. (The
 * KVM API allows it: state is complete only after KVM_RUN has been entered again.) An instruction that commits in steps (REP)
 * calls mmio_commit() after each.
 */
struct mmio_replay {
	u8 n;   /* accesses answered */
	u8 pos; /* next to replay; 0 at the start of each attempt */
	bool waiting; /* the last one (index n) is with the VMM now */
	struct mmio_frag {
		gpa_t gpa;
		u8 len;
		bool write;
		u8 data[8];
	} frag[MMIO_FRAGS];
};

struct vcpu {
	/* ---- hot: first cache lines ---- */
	u64 gpr[16];
	u64 rip;     /* of the instruction being executed (offset in CS, not linear) */
	u64 rflags;  /* always materialised; bit 1 set */
	struct cpu_mode mode;
	struct vcpu_chan *chan; /* chan->attention is the word that stops execution */
	u64 insn_count;         /* guest instructions retired (interpreter counts per block) */
	void *unwind[8];        /* __builtin_setjmp buffer (5 words) of the run loop: cpu_raise() & co. jump here */

	/* ---- translation of addresses ---- */
	struct tlb tlb;

	/* ---- translated code: translate/ ---- */
	struct tr_state tr;

	/* ---- architectural ---- */
	struct segment seg[SEG_COUNT];
	struct dtable gdt, idt;
	u64 cr0, cr2, cr3, cr4, cr8_unused, efer, xcr0, xss;
	u64 pdpte[4];           /* PAE: loaded with CR3 */
	u64 dr[4], dr6, dr7;
	u64 star, lstar, cstar, sfmask, kernel_gs_base, tsc_aux;
	u64 sysenter_cs, sysenter_esp, sysenter_eip;
	u64 pat, apic_base, misc_enable, smi_count, spec_ctrl, debugctl;
	u64 mtrr_def_type, mtrr_fixed[11], mtrr_var[16];
	u64 mcg_status, mcg_cap, mcg_ctl, mce_banks[4 * 10];
	u64 tsc_offset, tsc_adjust, tsc_deadline; /* guest TSC = host TSC + tsc_offset (+ scaled: not supported) */
	/* KVM paravirtual MSRs (raw values; cpu/pvclock.c acts on them) */
	u64 msr_kvm_wall_clock, msr_kvm_system_time, msr_kvm_async_pf_en, msr_kvm_async_pf_int, msr_kvm_async_pf_ack,
	    msr_kvm_steal_time, msr_kvm_eoi_en, msr_kvm_poll_control, msr_kvm_migration;

	struct {                    /* cpu/pvsched.c; ns */
		u64 wall, used;     /* clock and processor time when the vCPU began to run */
		u64 total, told;    /* stolen so far; what the guest's record says */
		bool open;
	} steal;
	u64 memory_seen;            /* of vm->memory_changes */
	struct patience patience;   /* in HLT */
	u32 pv_kicked;              /* KVM_HC_KICK_CPU came: any thread sets, atomic; HLT ends, or does not begin */

	/* ---- events ---- */
	struct {                    /* an event whose delivery touches MMIO: delivered again when the VMM has answered */
		bool pending, hard; /* hard: interrupt or NMI, not an exception */
		struct exception e;
	} redelivery;
	struct exception exc;       /* raised by the current instruction, to be delivered by the run loop */
	u8 shadow;                  /* enum intr_shadow: set by STI / MOV SS for the next instruction */
	bool nmi_pending, nmi_masked, smi_pending, init_pending;
	u8 sipi_vector;
	int sipi_pending;
	struct {                    /* KVM_INTERRUPT / KVM_SET_VCPU_EVENTS injection waiting for its delivery */
		bool pending, soft;
		u8 vector;
	} inject;
	u8 mp_state;
	struct lapic *lapic;        /* NULL without in-kernel irqchip */
	struct mmio_replay mmio;
	struct {                    /* IN/OUT/INS/OUTS at the VMM; data in the channel's PIO page */
		bool waiting, answered, in;
		u8 size;
		u32 count;
		u16 port;
	} pio;
	bool met_device;            /* a program in user mode has used a device by itself */
	bool exit_pending;          /* kvm_run is filled: leave KVM_RUN at the next chance */
	struct cells *cells;        /* cell/; NULL: none */
	bool cell_now;              /* the current address space is to run in one */
	bool cell_stop;             /* user mode was entered: translated code ends for it */
	bool irq_window;            /* an interrupt waits for IF (or the shadow) to allow it: block ends look */
	u32 pauses;                 /* PAUSE instructions: see interp/int_flags.c */
	bool halted_by_hlt;         /* cpu_hlt ran */
	gpa_t late_gpa;             /* code was written through a pointer: invalidate once more when the instruction is done */
	u32 late_size;
	u32 in_guest;               /* futex of the safe point: 1 while this thread may execute guest code */

	/* ---- guest debug (KVM_SET_GUEST_DEBUG) ---- */
	u32 guest_debug;            /* KVM_GUESTDBG_* */
	u64 guest_debug_dr[8];
	u64 dr6_pending;            /* data breakpoints hit by the current instruction */
	bool inject_bp;             /* the INT3 at RIP is the guest's own: KVM_GUESTDBG_INJECT_BP */
	bool restartable;           /* guest code runs at speed: an instruction that hits a data breakpoint is taken back ... */
	bool step_once;             /* ... and done again by itself */

	/* ---- identity ---- */
	struct vm *vm;
	u32 id;                     /* APIC ID */
	int bell;                   /* eventfd to write with each answer, + 1; 0: none. Any thread, atomic */
	int tid;                    /* host thread; 0 before it runs */
	bool is_bsp;
	u32 ncpuid;
	struct kvm_cpuid_entry2 cpuid[VCPU_MAX_CPUID];
	u64 feature_bits[4];        /* enum insn_feature set that the guest's CPUID allows (bitmap) */
	u64 cr4_guest_rsvd, xcr0_supported;

	/* ---- interpreter private (interp/) ---- */
	struct icache_vcpu *icache;
	void *vecexec;              /* interp/vec: private */

	/* ---- saved vector state while not running: XSAVE standard format ---- */
	u8 xsave[8192] __attribute__((aligned(64)));

	struct vcpu_stats stats;
	struct trace_state trace; /* trace/ */

	struct {                    /* cpu/record.h */
		u32 key;            /* of mode.key */
		u32 events;         /* so far */
		struct doppel_event event[DOPPEL_EVENTS];
		u8 next;            /* of at[]: wraps */
		u64 at[DOPPEL_ARRIVALS];
	} record;
};

static inline void mmio_commit(struct vcpu *cpu)
{
	cpu->mmio.n = cpu->mmio.pos = 0;
}

static inline bool cpu_has(const struct vcpu *cpu, unsigned feature)
{
	return cpu->feature_bits[feature >> 6] >> (feature & 63) & 1;
}

#endif
