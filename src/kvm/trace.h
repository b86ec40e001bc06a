/*
 * The trace of a VM: rings of events in a memfd that engine, VMM and a reader share. The engine writes, one reader reads; both
 * sides take the other's words for hostile: indices are masked, counts are clamped, records are copied before they are looked at.
 *
 * Layout: struct trace_header in a page, then for each vCPU, by order of creation, a struct trace_ring.
 */
#ifndef KVM_TRACE_H
#define KVM_TRACE_H

#include "base/types.h"

#define TRACE_MAGIC   0x65636172746c7064ull /* "dpltrace" */
#define TRACE_VERSION 1
#define TRACE_SLOTS   65536u /* events per ring */
#define TRACE_CPUS    64

/* Kinds of events: X(NAME, word of --events, what they are) */
#define TRACE_KINDS(X)                                                                                           \
	X(INSN, "insn", "sensitive instructions")                                                                \
	X(EXIT, "exit", "exits to the VMM, with the time until the guest goes on")                               \
	X(EXC, "exception", "exceptions delivered to the guest")                                                 \
	X(IRQ, "irq", "interrupts and NMIs delivered to the guest")                                              \
	X(PT, "pt", "page tables: stores to them, A and D bits, CR3 loads, INVLPG")                              \
	X(MMIO, "mmio", "memory-mapped I/O")                                                                     \
	X(PIO, "pio", "port I/O")                                                                                \
	X(HALT, "halt", "time asleep in HLT")                                                                    \
	X(CODE, "code", "stores to pages that hold decoded or translated code")

enum trace_kind {
#define X(name, word, text) TRACE_##name,
	TRACE_KINDS(X)
#undef X
	TRACE_KIND_COUNT
};
#define TRACE_ALL ((1u << TRACE_KIND_COUNT) - 1)

/*
 * Sensitive instructions: X(NAME, mnemonic, what data[0] holds, what data[2] holds). data[1] and data[3] are RFLAGS before and
 * after; CPUID has EBX:EAX in data[2] and EDX:ECX in data[3].
 */
#define TRACE_INSNS(X)                                                                                           \
	X(CLI, "cli", NONE, NONE)                                                                                \
	X(STI, "sti", NONE, NONE)                                                                                \
	X(PUSHF, "pushf", NONE, FLAGS)                                                                           \
	X(POPF, "popf", NONE, NONE)                                                                              \
	X(IRET, "iret", NONE, RIP)                                                                               \
	X(MOV_TO_CR, "mov-to-cr", REGNO, CR)                                                                     \
	X(MOV_FROM_CR, "mov-from-cr", REGNO, CR)                                                                 \
	X(MOV_TO_DR, "mov-to-dr", REGNO, DR)                                                                     \
	X(MOV_FROM_DR, "mov-from-dr", REGNO, DR)                                                                 \
	X(CLTS, "clts", NONE, CR0)                                                                               \
	X(LMSW, "lmsw", NONE, CR0)                                                                               \
	X(SMSW, "smsw", NONE, CR0)                                                                               \
	X(LGDT, "lgdt", EA, GDT)                                                                                 \
	X(SGDT, "sgdt", EA, GDT)                                                                                 \
	X(LIDT, "lidt", EA, IDT)                                                                                 \
	X(SIDT, "sidt", EA, IDT)                                                                                 \
	X(LLDT, "lldt", NONE, LDTR)                                                                              \
	X(SLDT, "sldt", NONE, LDTR)                                                                              \
	X(LTR, "ltr", NONE, TR)                                                                                  \
	X(STR, "str", NONE, TR)                                                                                  \
	X(LAR, "lar", NONE, DST)                                                                                 \
	X(LSL, "lsl", NONE, DST)                                                                                 \
	X(VERR, "verr", NONE, NONE)                                                                              \
	X(VERW, "verw", NONE, NONE)                                                                              \
	X(MOV_TO_SREG, "mov-to-sreg", REGNO, SREG)                                                               \
	X(MOV_FROM_SREG, "mov-from-sreg", REGNO, SREG)                                                           \
	X(PUSH_SREG, "push-sreg", REGNO, SREG)                                                                   \
	X(POP_SREG, "pop-sreg", REGNO, SREG)                                                                     \
	X(CALL_FAR, "call-far", NONE, RIP)                                                                       \
	X(JMP_FAR, "jmp-far", NONE, RIP)                                                                         \
	X(RET_FAR, "ret-far", NONE, RIP)                                                                         \
	X(INT, "int", IMM, RIP)                                                                                  \
	X(INT3, "int3", NONE, RIP)                                                                               \
	X(INTO, "into", NONE, RIP)                                                                               \
	X(INT1, "int1", NONE, RIP)                                                                               \
	X(SYSCALL, "syscall", AX, RIP)                                                                           \
	X(SYSRET, "sysret", AX, RIP)                                                                             \
	X(SYSENTER, "sysenter", AX, RIP)                                                                         \
	X(SYSEXIT, "sysexit", AX, RIP)                                                                           \
	X(SWAPGS, "swapgs", NONE, GSBASE)                                                                        \
	X(RDFSBASE, "rdfsbase", NONE, FSBASE)                                                                    \
	X(RDGSBASE, "rdgsbase", NONE, GSBASE)                                                                    \
	X(WRFSBASE, "wrfsbase", NONE, FSBASE)                                                                    \
	X(WRGSBASE, "wrgsbase", NONE, GSBASE)                                                                    \
	X(STAC, "stac", NONE, NONE)                                                                              \
	X(CLAC, "clac", NONE, NONE)                                                                              \
	X(RDMSR, "rdmsr", CX, DXAX)                                                                              \
	X(WRMSR, "wrmsr", CX, DXAX)                                                                              \
	X(XGETBV, "xgetbv", CX, DXAX)                                                                            \
	X(XSETBV, "xsetbv", CX, DXAX)                                                                            \
	X(CPUID, "cpuid", LEAF, CPUID)                                                                           \
	X(RDTSC, "rdtsc", NONE, DXAX)                                                                            \
	X(RDTSCP, "rdtscp", NONE, DXAX)                                                                          \
	X(RDPMC, "rdpmc", CX, DXAX)                                                                              \
	X(RDPID, "rdpid", NONE, DST)                                                                             \
	X(HLT, "hlt", NONE, NONE)                                                                                \
	X(IN, "in", PORT, AX)                                                                                    \
	X(OUT, "out", PORT, AX)                                                                                  \
	X(INS, "ins", PORT, CX)                                                                                  \
	X(OUTS, "outs", PORT, CX)                                                                                \
	X(INVLPG, "invlpg", EA, NONE)                                                                            \
	X(INVPCID, "invpcid", EA, NONE)                                                                          \
	X(INVD, "invd", NONE, NONE)                                                                              \
	X(WBINVD, "wbinvd", NONE, NONE)                                                                          \
	X(MONITOR, "monitor", NONE, NONE)                                                                        \
	X(MWAIT, "mwait", NONE, NONE)                                                                            \
	X(VMCALL, "vmcall", AX, AX)                                                                              \
	X(VMMCALL, "vmmcall", AX, AX)

enum trace_insn {
	TI_NONE,
#define X(name, word, arg, res) TI_##name,
	TRACE_INSNS(X)
#undef X
	TI_COUNT
};

/* what: of TRACE_INSN an enum trace_insn, of TRACE_EXC and TRACE_IRQ the vector, of TRACE_EXIT KVM's exit reason, else: */
enum trace_pt { TPT_STORE, TPT_WALKER, TPT_CR3, TPT_INVLPG, TPT_COUNT };
enum trace_io { TIO_READ, TIO_WRITE, TIO_COUNT };

/* Who answered an access, who sent an interrupt. */
enum trace_who { TWHO_VMM, TWHO_IRQCHIP, TWHO_IOEVENTFD, TWHO_TIMER, TWHO_NMI, TWHO_INJECTED, TWHO_NOBODY, TWHO_COUNT };

#define TEV_FAULT   0x01 /* TRACE_INSN: it faulted; data[2] is the vector, data[3] the error code */
#define TEV_REPEATS 0x02 /* TRACE_INSN: a REP that goes on */

/*
 * data by kind:
 *  INSN  see above                                EXC   error code, CR2 (#PF) or DR6 bits (#DB), -, -
 *  EXIT  TSC of the return, port or address, size, is write     IRQ   enum trace_who, -, -, -
 *  PT    STORE, WALKER: guest physical address, old, new, size; CR3: old, new; INVLPG: address
 *  MMIO  guest physical address, value, size, enum trace_who    PIO   port, value, size | items << 8, enum trace_who
 *  HALT  TSC of the end                           CODE  guest physical address, size
 */
struct trace_event {
	u64 tsc;      /* of the host */
	u64 rip;
	u16 kind, what;
	u8 cpl, bits; /* of the code: 16, 32, 64 */
	u8 flags, pad;
	u64 data[4];
	u64 number;   /* in its ring, from 1 on */
};
_Static_assert(sizeof(struct trace_event) == 64, "a cache line");

struct trace_ring {
	u64 head __attribute__((aligned(64))); /* events written; the engine's */
	u64 lost;                              /* events for which there was no room; the engine's */
	u64 tail __attribute__((aligned(64))); /* events read; the reader's */
	struct trace_event event[TRACE_SLOTS] __attribute__((aligned(4096)));
};

struct trace_header {
	u64 magic;
	u32 version, ncpus;
	u64 tsc_khz;
	u64 start_tsc;
};

#define TRACE_HEADER_SIZE 4096u
#define TRACE_SIZE(ncpus) (TRACE_HEADER_SIZE + (u64)(ncpus) * sizeof(struct trace_ring))

#endif
