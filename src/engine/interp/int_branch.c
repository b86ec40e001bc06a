/* Near branches: Jcc JMP CALL RET LOOPcc JrCXZ. Far ones are in sys_far.c. */
#include "engine/interp/interp_int.h"

/* ---- 64-bit operand size in 64-bit mode: the hot forms ---- */

static inline void check_canonical(struct vcpu *cpu, u64 target)
{
	if (unlikely(!is_canonical(target)))
		cpu_raise_gp(cpu, 0);
}

/* Not taken: goes on in the block. Taken: op->imm counts from this instruction. */
#define JCC(name, cond)                                                                                          \
	static void name(struct vcpu *cpu, const struct iop *op)                                                 \
	{                                                                                                        \
		u64 fl = cpu->rflags;                                                                            \
		if (cond) {                                                                                      \
			check_canonical(cpu, cpu->rip + op->imm);                                                \
			cpu->rip += op->imm;                                                                     \
			return iop_goto(cpu, op);                                                                \
		}                                                                                                \
		NEXT(cpu, op);                                                                                   \
	}
#define SF_NE_OF(fl) (((fl) >> 7 ^ (fl) >> 11) & 1)

JCC(jo, fl & FL_OF)
JCC(jno, !(fl & FL_OF))
JCC(jb, fl & FL_CF)
JCC(jae, !(fl & FL_CF))
JCC(je, fl & FL_ZF)
JCC(jne, !(fl & FL_ZF))
JCC(jbe, fl & (FL_CF | FL_ZF))
JCC(ja, !(fl & (FL_CF | FL_ZF)))
JCC(js, fl & FL_SF)
JCC(jns, !(fl & FL_SF))
JCC(jp, fl & FL_PF)
JCC(jnp, !(fl & FL_PF))
JCC(jl, SF_NE_OF(fl))
JCC(jge, !SF_NE_OF(fl))
JCC(jle, (fl & FL_ZF) || SF_NE_OF(fl))
JCC(jg, !(fl & FL_ZF) && !SF_NE_OF(fl))

static iop_fn *const jcc_table[16] = {jo, jno, jb, jae, je, jne, jbe, ja, js, jns, jp, jnp, jl, jge, jle, jg};

static void jmp_rel(struct vcpu *cpu, const struct iop *op)
{
	check_canonical(cpu, cpu->rip + op->imm);
	cpu->rip += op->imm;
	return iop_goto(cpu, op);
}

static inline void push64(struct vcpu *cpu, u64 v)
{
	u64 sp = cpu->gpr[R_SP] - 8;

	mmu_write64(cpu, sp, v);
	cpu->gpr[R_SP] = sp;
}

/* The push is tried before the target is looked at. */
static inline void check_call_target(struct vcpu *cpu, u64 target)
{
	if (likely(is_canonical(target)))
		return;
	mmu_probe(cpu, cpu->gpr[R_SP] - 8, 8, ACC_WRITE, cpu->mode.mmu_idx);
	cpu_raise_gp(cpu, 0);
}

static void call_rel64(struct vcpu *cpu, const struct iop *op)
{
	check_call_target(cpu, cpu->rip + op->imm);
	push64(cpu, cpu->rip + op->len);
	cpu->rip += op->imm;
	return iop_goto(cpu, op);
}

static void call_reg64(struct vcpu *cpu, const struct iop *op)
{
	u64 target = cpu->gpr[op->src];

	check_call_target(cpu, target);
	push64(cpu, cpu->rip + op->len);
	cpu->rip = target;
	return iop_goto(cpu, op);
}

static void call_mem64(struct vcpu *cpu, const struct iop *op)
{
	u64 target = mmu_read64(cpu, iop_ea(cpu, op, 8, false));

	check_call_target(cpu, target);
	push64(cpu, cpu->rip + op->len);
	cpu->rip = target;
	return iop_goto(cpu, op);
}

static void jmp_reg64(struct vcpu *cpu, const struct iop *op)
{
	u64 target = cpu->gpr[op->src];

	check_canonical(cpu, target);
	cpu->rip = target;
	return iop_goto(cpu, op);
}

static void jmp_mem64(struct vcpu *cpu, const struct iop *op)
{
	u64 target = mmu_read64(cpu, iop_ea(cpu, op, 8, false));

	check_canonical(cpu, target);
	cpu->rip = target;
	return iop_goto(cpu, op);
}

static void ret64(struct vcpu *cpu, const struct iop *op)
{
	u64 target = mmu_read64(cpu, cpu->gpr[R_SP]);

	check_canonical(cpu, target);
	cpu->gpr[R_SP] += 8 + op->imm;
	cpu->rip = target;
	return iop_goto(cpu, op);
}

/* ---- any mode and operand size ---- */

/* The target is truncated to the operand size, then checked: canonical in 64-bit mode, else against the limit. */
static u64 checked_target(struct vcpu *cpu, const struct iop *op, u64 target)
{
	if (op->size == 2)
		target = (u16)target;
	else if (op->size == 4)
		target = (u32)target;
	if (cpu->mode.long64)
		check_canonical(cpu, target);
	else if (target > cpu->seg[SEG_CS].limit)
		cpu_raise_gp(cpu, 0);
	return target;
}

static u64 relative_target(struct vcpu *cpu, const struct iop *op)
{
	return checked_target(cpu, op, cpu->rip + op->imm);
}

static u64 indirect_target(struct vcpu *cpu, const struct iop *op)
{
	u64 v = op->aux[1] ? mem_read(cpu, iop_ea(cpu, op, op->size, false), op->size)
			   : gpr_read(cpu, op->src, op->size);

	return checked_target(cpu, op, v);
}

static void jcc_any(struct vcpu *cpu, const struct iop *op)
{
	if (!cond_true(cpu->rflags, op->aux[0]))
		NEXT(cpu, op);
	cpu->rip = relative_target(cpu, op);
	return iop_goto(cpu, op);
}

static void jmp_rel_any(struct vcpu *cpu, const struct iop *op)
{
	cpu->rip = relative_target(cpu, op);
	return iop_goto(cpu, op);
}

static void jmp_ind_any(struct vcpu *cpu, const struct iop *op)
{
	cpu->rip = indirect_target(cpu, op);
	return iop_goto(cpu, op);
}

static void call_any(struct vcpu *cpu, const struct iop *op)
{
	u64 target = op->aux[2] ? relative_target(cpu, op) : indirect_target(cpu, op);

	cpu_push(cpu, cpu->rip + op->len, op->size);
	cpu->rip = target;
	return iop_goto(cpu, op);
}

static void add_sp(struct vcpu *cpu, u64 n)
{
	u64 sp = cpu->gpr[R_SP] + n;

	gpr_write(cpu, R_SP, sp, cpu->mode.stack);
}

static void ret_any(struct vcpu *cpu, const struct iop *op)
{
	u64 sp = cpu->gpr[R_SP], target = cpu_pop(cpu, op->size), popped = cpu->gpr[R_SP];

	cpu->gpr[R_SP] = sp; /* as it was, should the target be bad */
	target = checked_target(cpu, op, target);
	cpu->gpr[R_SP] = popped;
	add_sp(cpu, op->imm);
	cpu->rip = target;
	return iop_goto(cpu, op);
}

/* LOOP, LOOPE, LOOPNE: aux[0] 0, 1, 2. The count register has the address size. */
static void loop_any(struct vcpu *cpu, const struct iop *op)
{
	u64 n = gpr_read(cpu, R_CX, op->asize) - 1, target;
	bool zf = cpu->rflags & FL_ZF;

	n = op->asize == 8 ? n : op->asize == 4 ? (u32)n : (u16)n;
	if (!n || (op->aux[0] == 1 && !zf) || (op->aux[0] == 2 && zf)) {
		gpr_write(cpu, R_CX, n, op->asize);
		NEXT(cpu, op);
	}
	target = relative_target(cpu, op);
	gpr_write(cpu, R_CX, n, op->asize);
	cpu->rip = target;
	return iop_goto(cpu, op);
}

static void jrcxz_any(struct vcpu *cpu, const struct iop *op)
{
	if (gpr_read(cpu, R_CX, op->asize))
		NEXT(cpu, op);
	cpu->rip = relative_target(cpu, op);
	return iop_goto(cpu, op);
}

/* ---- compilation ---- */

static bool host_is_amd(void)
{
	u32 a = 0, b = 0, c = 0, d = 0;

	__asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
	return b == 0x68747541 || b == 0x6f677948; /* AuthenticAMD, HygonGenuine */
}

/* A reserved use: on AMD, F2 and F3 before LOOPE and LOOPNE choose the condition, whatever the opcode says. */
static u8 loop_condition(const struct insn *in)
{
	bool prefix = in->prefixes & (PFX_REP | PFX_REPNE);

	if (in->id == INSN_LOOP)
		return 0;
	if (prefix && host_is_amd())
		return in->prefixes & PFX_REPNE ? 2 : 1;
	return in->id == INSN_LOOPE ? 1 : 2;
}

static bool compile_direct64(const struct insn *in, struct iop *op)
{
	if (in->id == INSN_JCC)
		op->fn = jcc_table[in->cond];
	else if (in->id == INSN_JMP)
		op->fn = jmp_rel;
	else
		op->fn = call_rel64;
	return true;
}

static bool compile_indirect64(const struct insn *in, struct iop *op, bool mem)
{
	if (in->id == INSN_JMP)
		op->fn = mem ? jmp_mem64 : jmp_reg64;
	else
		op->fn = mem ? call_mem64 : call_reg64;
	return true;
}

static bool compile_any(const struct insn *in, struct iop *op)
{
	bool direct = in->op[0].kind == OPK_REL;

	switch (in->id) {
	case INSN_JCC:
		op->fn = jcc_any;
		break;
	case INSN_JMP:
		op->fn = direct ? jmp_rel_any : jmp_ind_any;
		break;
	case INSN_CALL:
		op->fn = call_any;
		break;
	case INSN_RET:
		op->fn = ret_any;
		break;
	case INSN_JRCXZ:
		op->fn = jrcxz_any;
		break;
	default:
		op->aux[0] = loop_condition(in);
		op->fn = loop_any;
		break;
	}
	return true;
}

bool compile_branch(struct vcpu *cpu, const struct insn *in, struct iop *op)
{
	bool mem = in->op[0].kind == OPK_MEM;
	bool direct = in->op[0].kind == OPK_REL;
	bool hot = cpu->mode.long64 && in->opsize == 8;

	op->aux[0] = in->cond;
	op->aux[1] = mem;
	op->aux[2] = direct;
	op->size = in->opsize;
	if (in->op[0].kind == OPK_GPR)
		op->src = in->op[0].reg;
	op->imm = in->id == INSN_RET ? (in->nops ? in->imm : 0) : in->imm + in->len;
	if (hot && in->id == INSN_RET) {
		op->fn = ret64;
		return true;
	}
	if (hot && direct && (in->id == INSN_JCC || in->id == INSN_JMP || in->id == INSN_CALL))
		return compile_direct64(in, op);
	if (hot && (in->id == INSN_JMP || in->id == INSN_CALL))
		return compile_indirect64(in, op, mem);
	return compile_any(in, op);
}
