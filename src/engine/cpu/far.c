/* Far JMP, CALL, RET: between code segments, through call gates and task gates (SDM 2 JMP, CALL, RET; SDM 3A 5.8). */
#include "engine/cpu/cpu_int.h"

/* ---- shared with IRET and interrupts ---- */

void code_check_target(struct vcpu *cpu, u64 d, u64 off)
{
	if (cpu->mode.lma && DESC_L(d) ? !canonical(off) : off > desc_limit(d))
		cpu_raise_gp(cpu, 0);
}

void code_check_long(struct vcpu *cpu, u16 sel, u64 d, u32 ext)
{
	if (cpu->mode.lma && DESC_L(d) && DESC_DB(d))
		cpu_raise_gp(cpu, SEL_ERR(sel) | ext);
}

u64 code_check_return(struct vcpu *cpu, u16 sel)
{
	unsigned rpl = SEL_RPL(sel);
	u64 d = 0;

	if (SEL_NULL(sel))
		cpu_raise_gp(cpu, 0);
	d = desc_read(cpu, sel, EXC_GP, 0);
	if (!DESC_CODE(d) || rpl < cpu_cpl(cpu))
		cpu_raise_gp(cpu, SEL_ERR(sel));
	if (DESC_CONF(d) ? DESC_DPL(d) > rpl : DESC_DPL(d) != rpl)
		cpu_raise_gp(cpu, SEL_ERR(sel));
	code_check_long(cpu, sel, d, 0);
	if (!DESC_P(d))
		cpu_raise_err(cpu, EXC_NP, SEL_ERR(sel));
	return d;
}

/* ---- direct transfers ---- */

static u64 truncate(u64 off, unsigned size)
{
	return size == 2 ? (u16)off : size == 4 ? (u32)off : off;
}

static void commit_code(struct vcpu *cpu, u16 sel, u64 d, u64 off, unsigned cpl)
{
	seg_from_descriptor(&cpu->seg[SEG_CS], (sel & ~3) | cpl, d);
	cpu->rip = off;
	cpu_update_mode(cpu);
}

/* Code segment named directly by the instruction. */
static void check_direct(struct vcpu *cpu, u16 sel, u64 d)
{
	unsigned cpl = cpu_cpl(cpu);

	code_check_long(cpu, sel, d, 0);
	if (DESC_CONF(d) ? DESC_DPL(d) > cpl : (SEL_RPL(sel) > cpl || DESC_DPL(d) != cpl))
		cpu_raise_gp(cpu, SEL_ERR(sel));
	if (!DESC_P(d))
		cpu_raise_err(cpu, EXC_NP, SEL_ERR(sel));
}

static u64 read_target(struct vcpu *cpu, u16 sel)
{
	if (SEL_NULL(sel))
		cpu_raise_gp(cpu, 0);
	return desc_read(cpu, sel, EXC_GP, 0);
}

/* Real and V86 mode; push: a call. */
static void far_real(struct vcpu *cpu, u16 sel, u64 off, unsigned size, bool push, u64 next)
{
	struct stack st;

	if (off > (cpu->mode.vm86 ? 0xffffu : cpu->seg[SEG_CS].limit))
		cpu_raise_gp(cpu, 0);
	stack_current(cpu, &st);
	if (push) {
		stack_push(cpu, &st, cpu->seg[SEG_CS].sel, size);
		stack_push(cpu, &st, next, size);
	}
	stack_commit(cpu, &st);
	if (cpu->mode.vm86)
		seg_load_v86(cpu, SEG_CS, sel);
	else
		seg_load_real(cpu, SEG_CS, sel);
	cpu->rip = off;
	cpu_update_mode(cpu);
}

/* ---- call gates ---- */

struct call_gate {
	u16 sel;
	u64 off, desc; /* of the code segment */
	unsigned size, params;
	bool inner;    /* to more privilege: the stack changes */
};

static void check_gate_access(struct vcpu *cpu, u16 sel, u64 gate)
{
	if (DESC_DPL(gate) < cpu_cpl(cpu) || DESC_DPL(gate) < SEL_RPL(sel))
		cpu_raise_gp(cpu, SEL_ERR(sel));
	if (!DESC_P(gate))
		cpu_raise_err(cpu, EXC_NP, SEL_ERR(sel));
}

static void read_gate(struct vcpu *cpu, u16 sel, u64 gate, struct call_gate *g)
{
	check_gate_access(cpu, sel, gate);
	g->sel = GATE_SEL(gate);
	g->size = DESC_TYPE(gate) == DT_CALL16 ? 2 : 4;
	g->off = g->size == 2 ? gate & 0xffff : GATE_OFF32(gate);
	g->params = gate >> 32 & 31;
	if (cpu->mode.lma) {
		u64 high = desc_read_high(cpu, sel, EXC_GP, 0);

		if (high >> 40 & 0x1f)
			cpu_raise_gp(cpu, SEL_ERR(sel));
		g->size = 8;
		g->params = 0;
		g->off |= high << 32;
	}
}

static void check_gate_target(struct vcpu *cpu, struct call_gate *g, bool jump)
{
	unsigned cpl = cpu_cpl(cpu);
	u64 d = 0;

	if (SEL_NULL(g->sel))
		cpu_raise_gp(cpu, 0);
	d = desc_read(cpu, g->sel, EXC_GP, 0);
	if (!DESC_CODE(d) || DESC_DPL(d) > cpl)
		cpu_raise_gp(cpu, SEL_ERR(g->sel));
	if (jump && !DESC_CONF(d) && DESC_DPL(d) != cpl)
		cpu_raise_gp(cpu, SEL_ERR(g->sel));
	if (cpu->mode.lma && (!DESC_L(d) || DESC_DB(d)))
		cpu_raise_gp(cpu, SEL_ERR(g->sel));
	if (!DESC_P(d))
		cpu_raise_err(cpu, EXC_NP, SEL_ERR(g->sel));
	g->desc = d;
	g->inner = !DESC_CONF(d) && DESC_DPL(d) < cpl;
}

static void call_gate_inner(struct vcpu *cpu, const struct call_gate *g, u64 next)
{
	unsigned cpl = DESC_DPL(g->desc), size = g->size;
	u64 params[31], d = 0;
	struct stack st = {.flat64 = true, .mask = ~0ull, .idx = MMU_KERNEL}, old;

	stack_current(cpu, &old);
	if (cpu->mode.lma) {
		st.sp = stack_rsp_from_tss(cpu, cpl, 0, 0);
		seg_set_null(&st.ss, cpl, cpl);
	} else {
		stack_from_tss(cpu, &st, cpl, 0);
	}
	code_check_target(cpu, g->desc, g->off);
	for (unsigned i = 0; i < g->params; i++)
		params[i] = stack_pop(cpu, &old, size);
	stack_push(cpu, &st, cpu->seg[SEG_SS].sel, size);
	stack_push(cpu, &st, cpu->gpr[R_SP], size);
	for (unsigned i = g->params; i-- > 0;)
		stack_push(cpu, &st, params[i], size);
	stack_push(cpu, &st, cpu->seg[SEG_CS].sel, size);
	stack_push(cpu, &st, next, size);
	d = desc_set_type_bits(cpu, g->sel, g->desc, 1);
	/* point of no return */
	cpu->seg[SEG_SS] = st.ss;
	stack_commit(cpu, &st);
	commit_code(cpu, g->sel, d, g->off, cpl);
}

static void call_gate_same(struct vcpu *cpu, const struct call_gate *g, u64 next)
{
	struct stack st;
	u64 d = 0;

	code_check_target(cpu, g->desc, g->off);
	stack_current(cpu, &st);
	stack_push(cpu, &st, cpu->seg[SEG_CS].sel, g->size);
	stack_push(cpu, &st, next, g->size);
	d = desc_set_type_bits(cpu, g->sel, g->desc, 1);
	stack_commit(cpu, &st);
	commit_code(cpu, g->sel, d, g->off, cpu_cpl(cpu));
}

static void jump_gate(struct vcpu *cpu, const struct call_gate *g)
{
	u64 d = 0;

	code_check_target(cpu, g->desc, g->off);
	d = desc_set_type_bits(cpu, g->sel, g->desc, 1);
	commit_code(cpu, g->sel, d, g->off, cpu_cpl(cpu));
}

/* A system descriptor as the target of JMP or CALL: gate or TSS. */
static void far_system(struct vcpu *cpu, u16 sel, u64 d, bool jump, u64 next)
{
	enum task_cause cause = jump ? TASK_JMP : TASK_CALL;
	struct call_gate g = {0};
	unsigned type = DESC_TYPE(d);

	if (type == DT_CALL32 || (type == DT_CALL16 && !cpu->mode.lma)) {
		read_gate(cpu, sel, d, &g);
		check_gate_target(cpu, &g, jump);
		if (jump)
			jump_gate(cpu, &g);
		else if (g.inner)
			call_gate_inner(cpu, &g, next);
		else
			call_gate_same(cpu, &g, next);
	} else if (!cpu->mode.lma && type == DT_TASK_GATE) {
		check_gate_access(cpu, sel, d);
		task_gate(cpu, d, cause, false, 0, next, 0);
	} else if (!cpu->mode.lma && (type == DT_TSS16 || type == DT_TSS32) && !(sel & 4)) {
		check_gate_access(cpu, sel, d);
		task_switch(cpu, sel, cause, false, 0, next);
	} else {
		cpu_raise_gp(cpu, SEL_ERR(sel));
	}
}

static void far_transfer(struct vcpu *cpu, u16 sel, u64 off, unsigned size, bool call, u64 next)
{
	struct stack st;
	u64 d = 0;

	off = truncate(off, size);
	if (!cpu->mode.pe || cpu->mode.vm86) {
		far_real(cpu, sel, off, size, call, next);
		return;
	}
	d = read_target(cpu, sel);
	if (!DESC_S(d)) {
		far_system(cpu, sel, d, !call, next);
		return;
	}
	if (!DESC_CODE(d))
		cpu_raise_gp(cpu, SEL_ERR(sel));
	check_direct(cpu, sel, d);
	stack_current(cpu, &st);
	if (call) {
		stack_push(cpu, &st, cpu->seg[SEG_CS].sel, size);
		stack_push(cpu, &st, next, size);
	}
	code_check_target(cpu, d, off);
	d = desc_set_type_bits(cpu, sel, d, 1);
	stack_commit(cpu, &st);
	commit_code(cpu, sel, d, off, cpu_cpl(cpu));
}

void cpu_far_jump(struct vcpu *cpu, u16 sel, u64 off, unsigned size, u64 next)
{
	far_transfer(cpu, sel, off, size, false, next);
}

void cpu_far_call(struct vcpu *cpu, u16 sel, u64 off, unsigned size, u64 next)
{
	far_transfer(cpu, sel, off, size, true, next);
}

static void ret_real(struct vcpu *cpu, unsigned size, unsigned pop_bytes)
{
	struct stack st;
	u64 off = 0;
	u16 sel = 0;

	stack_current(cpu, &st);
	off = stack_pop(cpu, &st, size);
	sel = stack_pop(cpu, &st, size);
	if (off > (cpu->mode.vm86 ? 0xffffu : cpu->seg[SEG_CS].limit))
		cpu_raise_gp(cpu, 0);
	st.sp += pop_bytes;
	stack_commit(cpu, &st);
	if (cpu->mode.vm86)
		seg_load_v86(cpu, SEG_CS, sel);
	else
		seg_load_real(cpu, SEG_CS, sel);
	cpu->rip = off;
	cpu_update_mode(cpu);
}

static void ret_outer(struct vcpu *cpu, struct stack *st, u16 sel, u64 off, u64 d, unsigned size, unsigned pop_bytes)
{
	bool to64 = cpu->mode.lma && DESC_L(d);
	unsigned rpl = SEL_RPL(sel);
	struct segment ss;
	u64 sp = 0;
	u16 ss_sel = 0;

	st->sp += pop_bytes;
	sp = stack_pop(cpu, st, size);
	ss_sel = stack_pop(cpu, st, size);
	stack_check_return(cpu, ss_sel, rpl, to64, &ss);
	code_check_target(cpu, d, off);
	d = desc_set_type_bits(cpu, sel, d, 1);
	/* point of no return */
	cpu->seg[SEG_SS] = ss;
	cpu_set_sp(cpu, sp + pop_bytes, to64 ? ~0ull : ss.db ? 0xffffffffu : 0xffffu);
	commit_code(cpu, sel, d, off, rpl);
	seg_drop_inaccessible(cpu);
	cpu_update_mode(cpu);
}

void cpu_far_ret(struct vcpu *cpu, unsigned size, unsigned pop_bytes)
{
	struct stack st;
	u64 off = 0, d = 0;
	u16 sel = 0;

	if (!cpu->mode.pe || cpu->mode.vm86) {
		ret_real(cpu, size, pop_bytes);
		return;
	}
	stack_current(cpu, &st);
	off = stack_pop(cpu, &st, size);
	sel = stack_pop(cpu, &st, size);
	d = code_check_return(cpu, sel);
	if (SEL_RPL(sel) > cpu_cpl(cpu)) {
		ret_outer(cpu, &st, sel, off, d, size, pop_bytes);
		return;
	}
	code_check_target(cpu, d, off);
	d = desc_set_type_bits(cpu, sel, d, 1);
	st.sp += pop_bytes;
	stack_commit(cpu, &st);
	commit_code(cpu, sel, d, off, cpu_cpl(cpu));
}
