/*
 * Sensitive instructions. In code that was compiled with MODE_KEY_TRACE each has this handler before its own, which it runs on a
 * copy of the operation that leads nowhere, so that it comes back here.
 */
#include "engine/cpu/cpu_int.h"
#include "engine/interp/interp_int.h"
#include "engine/trace/trace.h"

enum arg_of { ARG_NONE, ARG_REGNO, ARG_EA, ARG_CX, ARG_AX, ARG_LEAF, ARG_PORT, ARG_IMM };
enum res_of { RES_NONE, RES_FLAGS, RES_RIP, RES_CR, RES_DR, RES_CR0, RES_GDT, RES_IDT, RES_LDTR, RES_TR, RES_DST, RES_SREG, RES_GSBASE,
	      RES_FSBASE, RES_DXAX, RES_CPUID, RES_AX, RES_CX };

static const struct {
	u8 arg, res;
} rows[TI_COUNT] = {
#define X(name, word, a, r) [TI_##name] = {ARG_##a, RES_##r},
	TRACE_INSNS(X)
#undef X
};

/* Those that are one row of TRACE_INSNS whatever their operands. */
static const u8 plain[INSN_COUNT] = {
	[INSN_CLI] = TI_CLI, [INSN_STI] = TI_STI, [INSN_PUSHF] = TI_PUSHF, [INSN_POPF] = TI_POPF, [INSN_IRET] = TI_IRET,
	[INSN_CLTS] = TI_CLTS, [INSN_LMSW] = TI_LMSW, [INSN_SMSW] = TI_SMSW, [INSN_LGDT] = TI_LGDT, [INSN_SGDT] = TI_SGDT,
	[INSN_LIDT] = TI_LIDT, [INSN_SIDT] = TI_SIDT, [INSN_LLDT] = TI_LLDT, [INSN_SLDT] = TI_SLDT, [INSN_LTR] = TI_LTR,
	[INSN_STR] = TI_STR, [INSN_LAR] = TI_LAR, [INSN_LSL] = TI_LSL, [INSN_VERR] = TI_VERR, [INSN_VERW] = TI_VERW,
	[INSN_PUSH_SREG] = TI_PUSH_SREG, [INSN_POP_SREG] = TI_POP_SREG, [INSN_CALL_FAR] = TI_CALL_FAR,
	[INSN_JMP_FAR] = TI_JMP_FAR, [INSN_RET_FAR] = TI_RET_FAR, [INSN_INT] = TI_INT, [INSN_INT3] = TI_INT3,
	[INSN_INTO] = TI_INTO, [INSN_INT1] = TI_INT1, [INSN_SYSCALL] = TI_SYSCALL, [INSN_SYSRET] = TI_SYSRET,
	[INSN_SYSENTER] = TI_SYSENTER, [INSN_SYSEXIT] = TI_SYSEXIT, [INSN_SWAPGS] = TI_SWAPGS,
	[INSN_RDFSBASE] = TI_RDFSBASE, [INSN_RDGSBASE] = TI_RDGSBASE, [INSN_WRFSBASE] = TI_WRFSBASE,
	[INSN_WRGSBASE] = TI_WRGSBASE, [INSN_STAC] = TI_STAC, [INSN_CLAC] = TI_CLAC, [INSN_RDMSR] = TI_RDMSR,
	[INSN_WRMSR] = TI_WRMSR, [INSN_XGETBV] = TI_XGETBV, [INSN_XSETBV] = TI_XSETBV, [INSN_CPUID] = TI_CPUID,
	[INSN_RDTSC] = TI_RDTSC, [INSN_RDTSCP] = TI_RDTSCP, [INSN_RDPMC] = TI_RDPMC, [INSN_RDPID] = TI_RDPID,
	[INSN_HLT] = TI_HLT, [INSN_IN] = TI_IN, [INSN_OUT] = TI_OUT, [INSN_INS] = TI_INS, [INSN_OUTS] = TI_OUTS,
	[INSN_INVLPG] = TI_INVLPG, [INSN_INVPCID] = TI_INVPCID, [INSN_INVD] = TI_INVD, [INSN_WBINVD] = TI_WBINVD,
	[INSN_WBNOINVD] = TI_WBINVD, [INSN_MONITOR] = TI_MONITOR, [INSN_MWAIT] = TI_MWAIT, [INSN_VMCALL] = TI_VMCALL,
	[INSN_VMMCALL] = TI_VMMCALL,
};

enum trace_insn trace_insn_of(const struct insn *in)
{
	switch (in->id) {
	case INSN_MOV_CR:
		return in->op[0].kind == OPK_CR ? TI_MOV_TO_CR : TI_MOV_FROM_CR;
	case INSN_MOV_DR:
		return in->op[0].kind == OPK_DR ? TI_MOV_TO_DR : TI_MOV_FROM_DR;
	case INSN_MOV_SREG:
		return in->op[0].kind == OPK_SREG ? TI_MOV_TO_SREG : TI_MOV_FROM_SREG;
	default:
		return plain[in->id];
	}
}

/* ---- what is told ---- */

static u64 argument(const struct vcpu *cpu, const struct iop *op, unsigned what)
{
	u64 ax = cpu->gpr[R_AX], cx = cpu->gpr[R_CX];

	switch (rows[what].arg) {
	case ARG_REGNO:
		return op->spare[1];
	case ARG_IMM:
		return op->imm;
	case ARG_EA:
		return op->has_mem ? iop_ea_offset(cpu, op) + (op->flags & IOP_SEGBASE ? cpu->seg[op->seg].base : 0) : 0;
	case ARG_CX:
		return (u32)cx;
	case ARG_AX:
		return ax;
	case ARG_LEAF:
		return (u64)(u32)ax << 32 | (u32)cx;
	case ARG_PORT:
		return op->spare[1] ? (u8)op->imm : (u16)cpu->gpr[R_DX];
	default:
		return 0;
	}
}

static u64 result(struct vcpu *cpu, const struct iop *op, unsigned what)
{
	const u64 *g = cpu->gpr;

	switch (rows[what].res) {
	case RES_FLAGS:
		return cpu->trace.insn.flags & ~(u64)(FL_VM | FL_RF);
	case RES_RIP:
		return cpu->rip;
	case RES_CR:
		return op->spare[1] == 8 || op->spare[1] > 4 || op->spare[1] == 1 ? 0 : cpu_get_cr(cpu, op->spare[1]);
	case RES_DR:
		return op->spare[1] < 4 ? cpu->dr[op->spare[1]] : op->spare[1] & 1 ? cpu->dr7 : cpu->dr6;
	case RES_CR0:
		return cpu->cr0;
	case RES_GDT:
		return cpu->gdt.base;
	case RES_IDT:
		return cpu->idt.base;
	case RES_LDTR:
		return cpu->seg[SEG_LDTR].sel;
	case RES_TR:
		return cpu->seg[SEG_TR].sel;
	case RES_DST:
		return g[op->dst & 15];
	case RES_SREG:
		return op->spare[1] < SEG_COUNT ? cpu->seg[op->spare[1]].sel : 0;
	case RES_GSBASE:
		return cpu->seg[SEG_GS].base;
	case RES_FSBASE:
		return cpu->seg[SEG_FS].base;
	case RES_DXAX:
		return g[R_DX] << 32 | (u32)g[R_AX];
	case RES_AX:
		return op->size == 8 ? g[R_AX] : g[R_AX] & (BIT64(op->size * 8u) - 1);
	case RES_CX:
		return g[R_CX];
	case RES_CPUID:
		return g[R_BX] << 32 | (u32)g[R_AX];
	default:
		return 0;
	}
}

static struct trace_event begun(const struct vcpu *cpu)
{
	return (struct trace_event){.rip = cpu->trace.insn.rip, .kind = TRACE_INSN, .what = cpu->trace.insn.what,
				    .cpl = cpu->trace.insn.cpl, .bits = cpu->trace.insn.bits,
				    .data = {cpu->trace.insn.arg, cpu->trace.insn.flags}};
}

static void before(struct vcpu *cpu, const struct iop *op)
{
	struct trace_event here = trace_event_here(cpu, TRACE_INSN, op->spare[0]);

	cpu->trace.insn.active = true;
	cpu->trace.insn.fell = false;
	cpu->trace.insn.what = op->spare[0];
	cpu->trace.insn.cpl = here.cpl;
	cpu->trace.insn.bits = here.bits;
	cpu->trace.insn.rip = cpu->rip;
	cpu->trace.insn.flags = cpu->rflags;
	cpu->trace.insn.old = cpu->cr3;
	cpu->trace.insn.arg = argument(cpu, op, op->spare[0]);
}

/* The translation it took out of use. */
static void tell_tables(struct vcpu *cpu)
{
	struct trace_event t = begun(cpu);
	u64 old = cpu->trace.insn.old;

	t.kind = TRACE_PT;
	if (t.what == TI_MOV_TO_CR && t.data[0] == 3) {
		t.what = TPT_CR3;
		t.data[0] = old;
		t.data[1] = cpu->cr3;
	} else if (t.what == TI_INVLPG) {
		t.what = TPT_INVLPG;
		t.data[1] = 0;
	} else {
		return;
	}
	trace_emit(cpu, &t);
}

static void after(struct vcpu *cpu, const struct iop *op)
{
	struct trace_event t = begun(cpu);

	cpu->trace.insn.active = false;
	if (cpu->rip == t.rip && op->desc->attr & IA_STRING)
		t.flags = TEV_REPEATS;
	t.data[2] = result(cpu, op, t.what);
	t.data[3] = t.what == TI_CPUID ? cpu->gpr[R_DX] << 32 | (u32)cpu->gpr[R_CX] : cpu->rflags;
	trace_emit(cpu, &t);
	if (TRACING(cpu, PT))
		tell_tables(cpu);
}

void trace_insn_faulted(struct vcpu *cpu, const struct exception *e)
{
	struct trace_event t = begun(cpu);

	cpu->trace.insn.active = false;
	t.flags = TEV_FAULT;
	t.data[2] = e->vector;
	t.data[3] = e->error;
	trace_emit(cpu, &t);
}

/* ---- the handler ---- */

static void on_to_next(struct vcpu *cpu, const struct iop *op)
{
	cpu->trace.insn.fell = true;
}

/* True: on to the next operation of the block. Not in traced(), whose last call must be a jump. */
static __attribute__((noinline)) bool run_traced(struct vcpu *cpu, const struct iop *op)
{
	struct icache_vcpu *outer = cpu->icache, *ic = icache_vcpu(cpu) + 1; /* finds no further block */
	struct iop alone[2] = {*op, {.fn = on_to_next, .desc = op[1].desc}};

	alone[0].fn = (iop_fn *)op->ptr;
	before(cpu, op);
	if (outer != ic) {
		ic->cur = outer->cur;
		ic->stop = ic->split_locked = false;
		ic->stepping = outer->stepping;
		cpu->icache = ic;
	}
	alone[0].fn(cpu, alone);
	if (outer != ic) {
		cpu->icache = outer;
		outer->cur = ic->cur;
		outer->stop |= ic->stop;
	}
	after(cpu, op);
	return cpu->trace.insn.fell;
}

static void traced(struct vcpu *cpu, const struct iop *op)
{
	if (run_traced(cpu, op))
		return op[1].fn(cpu, op + 1);
}

static u8 register_number(const struct insn *in, enum trace_insn what)
{
	switch (what) {
	case TI_MOV_TO_CR:
	case TI_MOV_TO_DR:
	case TI_MOV_TO_SREG:
	case TI_PUSH_SREG:
	case TI_POP_SREG:
		return in->op[0].reg;
	case TI_MOV_FROM_CR:
	case TI_MOV_FROM_DR:
	case TI_MOV_FROM_SREG:
		return in->op[1].reg;
	case TI_IN:
		return in->op[1].kind != OPK_GPR;
	case TI_OUT:
		return in->op[0].kind != OPK_GPR;
	default:
		return 0;
	}
}

void trace_compile(const struct insn *in, struct iop *op)
{
	enum trace_insn what = trace_insn_of(in);

	if (what == TI_NONE)
		return;
	op->ptr = (void *)op->fn; /* no handler of these uses it */
	op->fn = traced;
	op->spare[0] = (u8)what;
	op->spare[1] = register_number(in, what);
}
