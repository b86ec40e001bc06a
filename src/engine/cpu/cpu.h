/*
 * The processor: what instructions mean beyond moving data. Used by interpreter and translator alike; one
 * implementation of each semantic.
 *
 * Unwinding. A fault or an exit to the VMM in the middle of an instruction unwinds to the run loop with
 * __builtin_longjmp through cpu->unwind. cpu->rip is then still that of the faulting instruction, and the
 * instruction has changed nothing (or only what the SDM says it has, as for REP strings).
 */
#ifndef ENGINE_CPU_CPU_H
#define ENGINE_CPU_CPU_H

#include "engine/vcpu.h"

enum { EXC_DE, EXC_DB, EXC_NMI, EXC_BP, EXC_OF, EXC_BR, EXC_UD, EXC_NM, EXC_DF, EXC_TS = 10, EXC_NP, EXC_SS, EXC_GP,
       EXC_PF, EXC_MF = 16, EXC_AC, EXC_MC, EXC_XM };

/* ---- raising (cpu/exception.c) ---- */
_Noreturn void cpu_raise(struct vcpu *cpu, unsigned vector);              /* no error code */
_Noreturn void cpu_raise_err(struct vcpu *cpu, unsigned vector, u32 err); /* with error code */
_Noreturn void cpu_raise_gp(struct vcpu *cpu, u32 err);
_Noreturn void cpu_raise_pf(struct vcpu *cpu, gva_t a, u32 err);
_Noreturn void cpu_raise_db(struct vcpu *cpu, u64 dr6_bits); /* fault-like #DB */

/* ---- leaving to the VMM (cpu/exit.c): fill kvm_run, unwind with the given reason ---- */
_Noreturn void cpu_exit_to_vmm(struct vcpu *cpu, u32 reason); /* kvm_run->exit_reason; other fields already filled */
/* MMIO read: returns the data if this is the replay of an answered read; else exits. len 1 2 4 8. In-kernel devices (LAPIC,
 * IOAPIC) answer at once. Called by mmu/access.c, which splits larger accesses. */
void cpu_mmio_read(struct vcpu *cpu, gpa_t a, void *data, unsigned len);
/* MMIO write: in-kernel devices and ioeventfds at once; else queued, goes out when the instruction has committed. */
void cpu_mmio_write(struct vcpu *cpu, gpa_t a, const void *data, unsigned len);
_Noreturn void cpu_exit_emulation(struct vcpu *cpu); /* KVM_INTERNAL_ERROR_EMULATION with the bytes at RIP */

/* ---- reset, mode (cpu/reset.c, cpu/mode.c) ---- */
void cpu_reset(struct vcpu *cpu, bool init); /* power-on or INIT (SDM 3A table 10-1) */
/* Recomputes cpu->mode after CR0 CR4 EFER XCR0 CS SS CPL RFLAGS.VM/AC changed. Cheap; call it last. */
void cpu_update_mode(struct vcpu *cpu);
static inline unsigned cpu_cpl(const struct vcpu *cpu) { return cpu->mode.cpl; }

/* ---- segments (cpu/segment.c) ---- */
/* Linear address of seg:off for an access of size bytes: limit, type, canonical checks; raises #GP(0) or #SS(0).
 * off already truncated to the address size. */
gva_t seg_linear(struct vcpu *cpu, unsigned seg, u64 off, unsigned size, bool write);
void cpu_load_sreg(struct vcpu *cpu, unsigned seg, u16 sel);              /* MOV/POP/LxS to ES SS DS FS GS, all modes */
void seg_from_descriptor(struct segment *s, u16 sel, u64 desc);            /* unpacks, no checks */
void cpu_lldt(struct vcpu *cpu, u16 sel);
void cpu_ltr(struct vcpu *cpu, u16 sel);
/* LAR LSL VERR VERW: return true (ZF) and the value. */
bool cpu_lar(struct vcpu *cpu, u16 sel, u32 *value);
bool cpu_lsl(struct vcpu *cpu, u16 sel, u32 *value);
bool cpu_verify(struct vcpu *cpu, u16 sel, bool write);

/* ---- stack of the current mode (segment SS, width mode.stack) ---- */
void cpu_push(struct vcpu *cpu, u64 v, unsigned size); /* commits RSP after the write */
u64 cpu_pop(struct vcpu *cpu, unsigned size);          /* commits RSP after the read */

/* ---- control transfers (cpu/far.c, cpu/task.c, cpu/interrupt.c, cpu/syscall.c); all set cpu->rip ---- */
/* next: RIP of the following instruction (pushed or saved). size: operand size 2 4 8. */
void cpu_far_jump(struct vcpu *cpu, u16 sel, u64 off, unsigned size, u64 next);
void cpu_far_call(struct vcpu *cpu, u16 sel, u64 off, unsigned size, u64 next);
void cpu_far_ret(struct vcpu *cpu, unsigned size, unsigned pop_bytes);
void cpu_iret(struct vcpu *cpu, unsigned size);
enum int_kind { INT_HARD, INT_EXC, INT_SOFT, INT_INT3, INT_INTO, INT_ICEBP };
/* Delivers vector through the IDT. Software kinds save `next`; others the current RIP. May raise (the run loop handles
 * double and triple faults: see exception_deliver). V86 software INT: IOPL/VME rules inside. */
void cpu_interrupt(struct vcpu *cpu, unsigned vector, enum int_kind kind, bool has_error, u32 error, u64 next);
void cpu_syscall(struct vcpu *cpu, u64 next);
void cpu_sysret(struct vcpu *cpu, unsigned size);
void cpu_sysenter(struct vcpu *cpu);
void cpu_sysexit(struct vcpu *cpu, unsigned size);
/* Delivers cpu->exc (set by a raise) with the double-fault rules of SDM 3A 6.15. Returns false on triple fault. */
bool exception_deliver(struct vcpu *cpu);
/* Delivers an external interrupt or NMI between instructions. Returns false on triple fault. */
bool interrupt_deliver(struct vcpu *cpu, unsigned vector, bool nmi);
/* Goes on with cpu->redelivery after an access of the delivery has been answered. Returns false on triple fault. */
bool event_redeliver(struct vcpu *cpu);

/* ---- flags (cpu/flags.c) ---- */
void cpu_pushf(struct vcpu *cpu, unsigned size);
void cpu_popf(struct vcpu *cpu, unsigned size);
void cpu_cli(struct vcpu *cpu);
void cpu_sti(struct vcpu *cpu); /* sets the STI shadow if IF was clear */

/* ---- control and debug registers, MSRs, CPUID (cpu/cr.c, dr.c, msr.c, cpuid.c, xstate.c) ---- */
u64 cpu_get_cr(struct vcpu *cpu, unsigned n);
void cpu_set_cr(struct vcpu *cpu, unsigned n, u64 v); /* all checks; raises #GP/#UD */
u64 cpu_get_dr(struct vcpu *cpu, unsigned n);
void cpu_set_dr(struct vcpu *cpu, unsigned n, u64 v);
void cpu_lmsw(struct vcpu *cpu, u16 v);
void cpu_clts(struct vcpu *cpu);
/* host: access by the VMM (KVM_GET/SET_MSRS), with its wider rights. Return false: #GP. */
bool msr_read(struct vcpu *cpu, u32 index, u64 *value, bool host);
bool msr_write(struct vcpu *cpu, u32 index, u64 value, bool host);
const u32 *msr_index_list(unsigned *count);
void cpu_cpuid(struct vcpu *cpu); /* the instruction: EAX.. EDX from cpu->cpuid, XSAVE size and OSXSAVE/APIC bits live */
unsigned cpuid_supported(struct kvm_cpuid_entry2 *e, unsigned max); /* KVM_GET_SUPPORTED_CPUID; count needed */
int cpuid_set(struct vcpu *cpu, const struct kvm_cpuid_entry2 *e, unsigned n); /* 0 or -errno; sets feature_bits */
void cpu_xsetbv(struct vcpu *cpu, u32 index, u64 v);
u64 cpu_xgetbv(struct vcpu *cpu, u32 index);
void cpu_set_efer(struct vcpu *cpu, u64 v);
u64 cpu_rdtsc(struct vcpu *cpu); /* guest TSC now */

/* I/O permission (CPL/IOPL, TSS bitmap): raises #GP(0). */
void cpu_check_io(struct vcpu *cpu, u16 port, unsigned size);
/* IN: in-kernel PIC/PIT or replay, else exits to the VMM. OUT: in-kernel, ioeventfd, or exits after commit. */
u32 cpu_in(struct vcpu *cpu, u16 port, unsigned size);
void cpu_out(struct vcpu *cpu, u16 port, unsigned size, u32 v);
/* String I/O of up to count items of `size` bytes to/from host buffer; at most 1024 bytes are handled: returns items
 * done. cpu_in_string unwinds to the VMM when it must, and is called again on restart. */
u32 cpu_in_string(struct vcpu *cpu, u16 port, unsigned size, u32 count, void *buf);
u32 cpu_out_string(struct vcpu *cpu, u16 port, unsigned size, u32 count, const void *buf);

/* VMCALL and VMMCALL: the KVM hypercalls (cpu/pvsched.c). */
void cpu_hypercall(struct vcpu *cpu);

/* HLT: marks the vCPU halted; the run loop acts when the instruction has committed. */
void cpu_hlt(struct vcpu *cpu);

/* SGDT & co. in IC_SYS handlers check UMIP by themselves with this: */
static inline bool cpu_umip_blocks(const struct vcpu *cpu)
{
	return (cpu->cr4 & BIT(11)) && cpu->mode.cpl != 0 && cpu->mode.pe;
}

#endif
