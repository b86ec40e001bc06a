/* Inside the CPU room: descriptors, stacks and the pieces control transfers share. Owning vCPU thread only. */
#ifndef ENGINE_CPU_CPU_INT_H
#define ENGINE_CPU_CPU_INT_H

#include "engine/cpu/cpu.h"
#include "engine/mmu/mmu.h"

#define CR0_PE BIT(0)
#define CR0_MP BIT(1)
#define CR0_EM BIT(2)
#define CR0_TS BIT(3)
#define CR0_ET BIT(4)
#define CR0_NE BIT(5)
#define CR0_WP BIT(16)
#define CR0_AM BIT(18)
#define CR0_NW BIT(29)
#define CR0_CD BIT(30)
#define CR0_PG BIT(31)

#define CR4_VME        BIT(0)
#define CR4_PVI        BIT(1)
#define CR4_TSD        BIT(2)
#define CR4_DE         BIT(3)
#define CR4_PSE        BIT(4)
#define CR4_PAE        BIT(5)
#define CR4_MCE        BIT(6)
#define CR4_PGE        BIT(7)
#define CR4_PCE        BIT(8)
#define CR4_OSFXSR     BIT(9)
#define CR4_OSXMMEXCPT BIT(10)
#define CR4_UMIP       BIT(11)
#define CR4_FSGSBASE   BIT(16)
#define CR4_PCIDE      BIT(17)
#define CR4_OSXSAVE    BIT(18)
#define CR4_SMEP       BIT(20)
#define CR4_SMAP       BIT(21)

#define EFER_SCE   BIT(0)
#define EFER_LME   BIT(8)
#define EFER_LMA   BIT(10)
#define EFER_NX    BIT(11)
#define EFER_FFXSR BIT(14)

#define DR6_FIXED 0xffff0ff0u
#define DR6_BD    BIT(13)
#define DR6_BS    BIT(14)
#define DR6_BT    BIT(15)
#define DR7_FIXED 0x400u
#define DR7_GD    BIT(13)

/* ---- descriptors as they lie in memory (SDM 3A 3.4.5) ---- */
#define DESC_TYPE(d)    ((unsigned)((d) >> 40) & 15)
#define DESC_S(d)       ((unsigned)((d) >> 44) & 1)
#define DESC_DPL(d)     ((unsigned)((d) >> 45) & 3)
#define DESC_P(d)       ((unsigned)((d) >> 47) & 1)
#define DESC_L(d)       ((unsigned)((d) >> 53) & 1)
#define DESC_DB(d)      ((unsigned)((d) >> 54) & 1)
#define DESC_CODE(d)    (DESC_S(d) && (DESC_TYPE(d) & 8))
#define DESC_CONF(d)    ((DESC_TYPE(d) & 0xc) == 0xc)        /* of a code segment */
#define DESC_WDATA(d)   (DESC_S(d) && (DESC_TYPE(d) & 0xa) == 2) /* writable data */
#define DESC_RDABLE(d)  (DESC_S(d) && (DESC_TYPE(d) & 0xa) != 8) /* data, or readable code */
#define GATE_SEL(d)     ((u16)((d) >> 16))
#define GATE_OFF32(d)   ((u32)((d) & 0xffff) | (u32)((d) >> 48) << 16)

enum { DT_TSS16 = 1, DT_LDT = 2, DT_TSS16_BUSY = 3, DT_CALL16 = 4, DT_TASK_GATE = 5, DT_INT16 = 6, DT_TRAP16 = 7,
       DT_TSS32 = 9, DT_TSS32_BUSY = 11, DT_CALL32 = 12, DT_INT32 = 14, DT_TRAP32 = 15, DT_BUSY_BIT = 2 };

#define SEL_RPL(s)  ((s) & 3u)
#define SEL_NULL(s) (((s) & 0xfffcu) == 0)
#define SEL_ERR(s)  ((s) & 0xfffcu)

static inline bool canonical(u64 a)
{
	return (u64)((s64)(a << 16) >> 16) == a;
}

u32 desc_limit(u64 d);
u64 desc_base(u64 d);
/* Linear address of the descriptor of `size` bytes; false: beyond its table. */
bool desc_locate(struct vcpu *cpu, u16 sel, unsigned size, gva_t *a);
/* Reads it; raises `vector` with the selector (| ext) if it lies beyond its table. */
u64 desc_read(struct vcpu *cpu, u16 sel, unsigned vector, u32 ext);
/* The upper half of a 16-byte system descriptor. */
u64 desc_read_high(struct vcpu *cpu, u16 sel, unsigned vector, u32 ext);
/* Sets type bits in memory, atomically, unless set: accessed (1) or busy (2). Returns the new descriptor. */
u64 desc_set_type_bits(struct vcpu *cpu, u16 sel, u64 d, unsigned bits);
void desc_clear_busy(struct vcpu *cpu, u16 sel);

/* cpu_update_mode() where 64-bit mode goes on in 64-bit mode and only CPL and flags have changed. */
void mode_stay_long(struct vcpu *cpu, unsigned cpl);

/* Marks a segment register as holding a null selector. */
void seg_set_null(struct segment *s, u16 sel, unsigned dpl);
/* Real-address mode: base from the selector, rest kept; V86: all attributes fixed. */
void seg_load_real(struct vcpu *cpu, unsigned seg, u16 sel);
void seg_load_v86(struct vcpu *cpu, unsigned seg, u16 sel);
/* After a return to outer privilege: data segments the new CPL may not use become null. */
void seg_drop_inaccessible(struct vcpu *cpu);

/* ---- stacks ---- */
/*
 * A stack being pushed to or popped from before anything is committed. A violation of the segment raises #SS(error).
 */
struct stack {
	struct segment ss;
	bool flat64; /* 64-bit mode: no segment, canonical check only */
	u64 sp, mask;
	enum mmu_idx idx;
	u32 error;
};

void stack_current(struct vcpu *cpu, struct stack *st);
/* The stack of privilege level cpl from the TSS, checked (SDM 3A 5.8.5, 6.12.1): #TS or #SS on a bad SS. Not long mode. */
void stack_from_tss(struct vcpu *cpu, struct stack *st, unsigned cpl, u32 ext);
/* Long mode: IST 1..7, or RSP0..2 for ist 0. */
u64 stack_rsp_from_tss(struct vcpu *cpu, unsigned cpl, unsigned ist, u32 ext);
void stack_push(struct vcpu *cpu, struct stack *st, u64 v, unsigned size);
u64 stack_pop(struct vcpu *cpu, struct stack *st, unsigned size);
/* RSP takes the value of st->sp under the mask of its width. */
void stack_commit(struct vcpu *cpu, const struct stack *st);
void cpu_set_sp(struct vcpu *cpu, u64 sp, u64 mask);

/* ---- code segments ---- */
/* off may be loaded into RIP under descriptor d: else #GP(0). */
void code_check_target(struct vcpu *cpu, u64 d, u64 off);
/* L and D together are reserved in long mode: #GP(sel). */
void code_check_long(struct vcpu *cpu, u16 sel, u64 d, u32 ext);
/* CS and RIP of a far return or IRET; raises as SDM 2 RET/IRET. Returns the descriptor. */
u64 code_check_return(struct vcpu *cpu, u16 sel);
/* SS of a return to privilege `rpl`: unpacks it into *ss. */
void stack_check_return(struct vcpu *cpu, u16 sel, unsigned rpl, bool to64, struct segment *ss);

/* ---- tasks ---- */
enum task_cause { TASK_JMP, TASK_CALL, TASK_IRET, TASK_EVENT };
/* Switches to the TSS at sel, whose descriptor has been checked for type and presence by the caller's rules through
 * task_check(). next: EIP saved in the old TSS. */
void task_switch(struct vcpu *cpu, u16 sel, enum task_cause cause, bool has_error, u32 error, u64 next);
/* A task gate's TSS selector (task_gate_sel) is judged here and the switch done. */
void task_gate(struct vcpu *cpu, u64 gate, enum task_cause cause, bool has_error, u32 error, u64 next, u32 ext);

/* ---- flags ---- */
/* Merges new into RFLAGS under mask. */
void flags_write(struct vcpu *cpu, u64 value, u64 mask);
static inline unsigned cpu_iopl(const struct vcpu *cpu) { return (cpu->rflags >> 12) & 3; }

bool cpu_vendor_is_intel(const struct vcpu *cpu);
const struct kvm_cpuid_entry2 *cpuid_find(const struct vcpu *cpu, u32 leaf, u32 subleaf);

#endif
