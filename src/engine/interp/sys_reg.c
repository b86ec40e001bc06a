/* Flags, control and debug registers, FS and GS bases. */
#include "engine/interp/interp_int.h"

#define CR4_FSGSBASE BIT(16)

static void cli(struct vcpu *cpu, const struct iop *op)
{
	cpu_cli(cpu);
	NEXT(cpu, op);
}

/*
 * The shadow of STI is the next instruction of the block: nothing looks at attention in between. It needs the run
 * loop only if an interrupt waits, or the block ends here.
 */
static void sti(struct vcpu *cpu, const struct iop *op)
{
	u64 old = cpu->rflags;

	cpu_sti(cpu);
	if (cpu->shadow == SHADOW_STI && !flags_want_loop(cpu, old) && op[1].desc) {
		cpu->shadow = SHADOW_NONE;
		NEXT(cpu, op);
	}
	cpu->rip += op->len;
	return iop_return(cpu, op, cpu->shadow != SHADOW_NONE);
}

static void pushf(struct vcpu *cpu, const struct iop *op)
{
	cpu_pushf(cpu, op->size);
	NEXT(cpu, op);
}

static void pushf64(struct vcpu *cpu, const struct iop *op)
{
	u64 sp = cpu->gpr[R_SP] - 8;

	mmu_write64(cpu, sp, cpu->rflags & ~(u64)(FL_VM | FL_RF));
	cpu->gpr[R_SP] = sp;
	NEXT(cpu, op);
}

static void popf(struct vcpu *cpu, const struct iop *op)
{
	u64 old = cpu->rflags;

	cpu_popf(cpu, op->size);
	if (!flags_want_loop(cpu, old))
		NEXT(cpu, op);
	cpu->rip += op->len;
	return iop_return(cpu, op, true);
}

/* CLAC, STAC: aux[0] is the new AC */
static void set_ac(struct vcpu *cpu, const struct iop *op)
{
	cpu->rflags = (cpu->rflags & ~(u64)FL_AC) | (op->aux[0] ? FL_AC : 0);
	cpu_update_mode(cpu);
	NEXT(cpu, op);
}

static void mov_from_cr(struct vcpu *cpu, const struct iop *op)
{
	gpr_write(cpu, op->dst, cpu_get_cr(cpu, op->src), op->size);
	NEXT(cpu, op);
}

static void mov_to_cr(struct vcpu *cpu, const struct iop *op)
{
	cpu_set_cr(cpu, op->dst, gpr_read(cpu, op->src, op->size));
	cpu->rip += op->len;
	return iop_return(cpu, op, false);
}

static void mov_from_dr(struct vcpu *cpu, const struct iop *op)
{
	gpr_write(cpu, op->dst, cpu_get_dr(cpu, op->src), op->size);
	NEXT(cpu, op);
}

static void mov_to_dr(struct vcpu *cpu, const struct iop *op)
{
	cpu_set_dr(cpu, op->dst, gpr_read(cpu, op->src, op->size));
	cpu->rip += op->len;
	return iop_return(cpu, op, true); /* breakpoints are the run loop's business */
}

static void clts(struct vcpu *cpu, const struct iop *op)
{
	cpu_clts(cpu);
	cpu->rip += op->len;
	return iop_return(cpu, op, false);
}

static void lmsw(struct vcpu *cpu, const struct iop *op)
{
	cpu_lmsw(cpu, op->aux[0] ? mmu_read16(cpu, iop_ea(cpu, op, 2, false)) : RD16(cpu, op->src));
	cpu->rip += op->len;
	return iop_return(cpu, op, false);
}

static void smsw(struct vcpu *cpu, const struct iop *op)
{
	if (cpu_umip_blocks(cpu))
		cpu_raise_gp(cpu, 0);
	if (op->aux[0])
		mmu_write16(cpu, iop_ea(cpu, op, 2, true), cpu->cr0);
	else
		gpr_write(cpu, op->dst, cpu->cr0, op->size);
	NEXT(cpu, op);
}

/* RDFSBASE ...: aux[1] is the segment */
static void check_fsgsbase(struct vcpu *cpu)
{
	if (!(cpu->cr4 & CR4_FSGSBASE))
		cpu_raise(cpu, EXC_UD);
}

static void rd_base(struct vcpu *cpu, const struct iop *op)
{
	check_fsgsbase(cpu);
	gpr_write(cpu, op->dst, cpu->seg[op->aux[1]].base, op->size);
	NEXT(cpu, op);
}

static void wr_base(struct vcpu *cpu, const struct iop *op)
{
	u64 v = gpr_read(cpu, op->dst, op->size);

	check_fsgsbase(cpu);
	if (!is_canonical(v))
		cpu_raise_gp(cpu, 0);
	cpu->seg[op->aux[1]].base = v;
	NEXT(cpu, op);
}

static void swapgs(struct vcpu *cpu, const struct iop *op)
{
	u64 v = cpu->seg[SEG_GS].base;

	cpu->seg[SEG_GS].base = cpu->kernel_gs_base;
	cpu->kernel_gs_base = v;
	NEXT(cpu, op);
}

static iop_fn *const reg_ops[INSN_COUNT] = {
	[INSN_CLI] = cli, [INSN_STI] = sti, [INSN_PUSHF] = pushf, [INSN_POPF] = popf, [INSN_CLAC] = set_ac,
	[INSN_STAC] = set_ac, [INSN_CLTS] = clts, [INSN_LMSW] = lmsw, [INSN_SMSW] = smsw, [INSN_RDFSBASE] = rd_base,
	[INSN_RDGSBASE] = rd_base, [INSN_WRFSBASE] = wr_base, [INSN_WRGSBASE] = wr_base, [INSN_SWAPGS] = swapgs,
};

static bool compile_mov_special(const struct insn *in, struct iop *op)
{
	bool to = in->op[0].kind == OPK_CR || in->op[0].kind == OPK_DR;

	op->size = in->op[to].size;
	op->dst = in->op[0].reg;
	op->src = in->op[1].reg;
	if (in->id == INSN_MOV_CR)
		op->fn = to ? mov_to_cr : mov_from_cr;
	else
		op->fn = to ? mov_to_dr : mov_from_dr;
	return true;
}

bool compile_sys_reg(struct vcpu *cpu, const struct insn *in, struct iop *op)
{
	if (in->id == INSN_MOV_CR || in->id == INSN_MOV_DR)
		return compile_mov_special(in, op);
	op->size = in->nops ? in->op[0].size : in->opsize;
	op->aux[0] = in->nops ? in->op[0].kind == OPK_MEM : in->id == INSN_STAC;
	op->aux[1] = in->id == INSN_RDFSBASE || in->id == INSN_WRFSBASE ? SEG_FS : SEG_GS;
	op->dst = op->src = in->op[0].reg;
	op->fn = reg_ops[in->id];
	if (in->id == INSN_PUSHF && cpu->mode.long64 && op->size == 8)
		op->fn = pushf64;
	return true;
}
