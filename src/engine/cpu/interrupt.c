/* Through the IDT: interrupts and exceptions in every mode (SDM 3A ch. 6, SDM 2A INT n; V86: SDM 3B 20.2, 20.3). */
#include "engine/cpu/cpu_int.h"

struct delivery {
	unsigned vector;
	enum int_kind kind;
	bool has_error;
	u32 error;
	u32 ext;    /* EXT bit of error codes of faults met on the way */
	u64 rip;    /* pushed */
	u64 rflags; /* pushed */
};

static bool is_software(enum int_kind kind)
{
	return kind == INT_SOFT || kind == INT_INT3 || kind == INT_INTO;
}

/* Error code that names an IDT entry. */
static u32 idt_error(const struct delivery *dl)
{
	return dl->vector * 8 + 2 + dl->ext;
}

/* SDM 3A 6.8.3 (RF of the pushed flags): fault-class exceptions, but not #DB for an instruction breakpoint. */
static u64 pushed_rflags(struct vcpu *cpu, unsigned vector, enum int_kind kind)
{
	static const u32 faults = BIT(EXC_DE) | BIT(EXC_BR) | BIT(EXC_UD) | BIT(EXC_NM) | BIT(EXC_TS) | BIT(EXC_NP) |
				  BIT(EXC_SS) | BIT(EXC_GP) | BIT(EXC_PF) | BIT(EXC_MF) | BIT(EXC_AC) | BIT(EXC_XM);
	u64 fl = cpu->rflags;

	if (kind == INT_EXC && vector < 32 && (faults >> vector & 1))
		fl |= FL_RF;
	if (kind == INT_EXC && vector == EXC_DB && (cpu->dr6 & DR6_BD))
		fl |= FL_RF;
	return fl;
}

/* ---- real-address mode, and INT n redirected within V86 mode: the vector table of 8086 ---- */

static void deliver_real(struct vcpu *cpu, const struct delivery *dl)
{
	struct stack st;
	u32 entry = 0;

	if (dl->vector * 4 + 3 > cpu->idt.limit)
		cpu_raise_err(cpu, EXC_GP, idt_error(dl));
	entry = mmu_sys_read32(cpu, (u32)(cpu->idt.base + dl->vector * 4));
	stack_current(cpu, &st);
	stack_push(cpu, &st, dl->rflags & 0xffff, 2);
	stack_push(cpu, &st, cpu->seg[SEG_CS].sel, 2);
	stack_push(cpu, &st, dl->rip & 0xffff, 2);
	stack_commit(cpu, &st);
	seg_load_real(cpu, SEG_CS, entry >> 16);
	cpu->rip = entry & 0xffff;
	cpu->rflags &= ~(u64)(FL_IF | FL_TF | FL_RF | FL_AC);
	cpu_update_mode(cpu);
}

/* The bit for vector in the software interrupt redirection bitmap: 32 bytes below the I/O bitmap (SDM 3B 20.3.3). */
static bool vme_redirects(struct vcpu *cpu, unsigned vector)
{
	const struct segment *tr = &cpu->seg[SEG_TR];
	u32 off = 0;

	if (tr->unusable || !(tr->type & 8) || tr->limit < 103)
		cpu_raise_gp(cpu, 0);
	off = mmu_sys_read16(cpu, (u32)(tr->base + 102)) - 32 + vector / 8;
	if (off > tr->limit)
		cpu_raise_gp(cpu, 0);
	return !(mmu_sys_read8(cpu, (u32)(tr->base + off)) >> (vector & 7) & 1);
}

static void deliver_vme(struct vcpu *cpu, const struct delivery *dl)
{
	bool virtual_if = cpu_iopl(cpu) < 3;
	u64 fl = (dl->rflags & ~(u64)FL_NT) | FL_IOPL;
	struct stack st;
	u32 entry = mmu_read32_idx(cpu, dl->vector * 4, MMU_USER);

	if (virtual_if)
		fl = (fl & ~(u64)FL_IF) | (dl->rflags & FL_VIF ? FL_IF : 0);
	stack_current(cpu, &st);
	stack_push(cpu, &st, fl & 0xffff, 2);
	stack_push(cpu, &st, cpu->seg[SEG_CS].sel, 2);
	stack_push(cpu, &st, dl->rip & 0xffff, 2);
	stack_commit(cpu, &st);
	seg_load_v86(cpu, SEG_CS, entry >> 16);
	cpu->rip = entry & 0xffff;
	cpu->rflags &= ~(u64)((virtual_if ? FL_VIF : FL_IF) | FL_TF | FL_RF);
	cpu_update_mode(cpu);
}

/* ---- protected mode ---- */

struct target {
	u16 sel;
	u64 desc, off;
	unsigned cpl;
	bool trap; /* gate leaves IF alone */
};

/* Code segment of the gate: SDM 2A INT n, "INTERRUPT-GATE/TRAP-GATE". */
static void check_target(struct vcpu *cpu, const struct delivery *dl, struct target *t)
{
	unsigned cpl = cpu_cpl(cpu);

	if (SEL_NULL(t->sel))
		cpu_raise_gp(cpu, dl->ext);
	t->desc = desc_read(cpu, t->sel, EXC_GP, dl->ext);
	if (!DESC_CODE(t->desc) || DESC_DPL(t->desc) > cpl)
		cpu_raise_gp(cpu, SEL_ERR(t->sel) | dl->ext);
	if (cpu->mode.lma && (!DESC_L(t->desc) || DESC_DB(t->desc)))
		cpu_raise_gp(cpu, SEL_ERR(t->sel) | dl->ext);
	if (!DESC_P(t->desc))
		cpu_raise_err(cpu, EXC_NP, SEL_ERR(t->sel) | dl->ext);
	t->cpl = DESC_CONF(t->desc) ? cpl : DESC_DPL(t->desc);
}

static void check_gate(struct vcpu *cpu, const struct delivery *dl, u64 gate, u32 types)
{
	if (DESC_S(gate) || !(types >> DESC_TYPE(gate) & 1))
		cpu_raise_gp(cpu, idt_error(dl));
	if (is_software(dl->kind) && DESC_DPL(gate) < cpu_cpl(cpu))
		cpu_raise_gp(cpu, idt_error(dl));
	if (!DESC_P(gate))
		cpu_raise_err(cpu, EXC_NP, idt_error(dl));
}

static void enter_handler(struct vcpu *cpu, const struct target *t)
{
	u64 d = desc_set_type_bits(cpu, t->sel, t->desc, 1);

	seg_from_descriptor(&cpu->seg[SEG_CS], (t->sel & ~3) | t->cpl, d);
	cpu->rip = t->off;
	cpu->rflags &= ~(u64)(FL_TF | FL_NT | FL_RF | FL_VM | (t->trap ? 0 : FL_IF));
	if (cpu->mode.long64)
		mode_stay_long(cpu, t->cpl);
	else
		cpu_update_mode(cpu);
}

static void push_frame(struct vcpu *cpu, struct stack *st, const struct delivery *dl, unsigned size)
{
	stack_push(cpu, st, dl->rflags, size);
	stack_push(cpu, st, cpu->seg[SEG_CS].sel, size);
	stack_push(cpu, st, dl->rip, size);
	if (dl->has_error)
		stack_push(cpu, st, dl->error, size);
}

static void push_v86_segments(struct vcpu *cpu, struct stack *st, unsigned size)
{
	stack_push(cpu, st, cpu->seg[SEG_GS].sel, size);
	stack_push(cpu, st, cpu->seg[SEG_FS].sel, size);
	stack_push(cpu, st, cpu->seg[SEG_DS].sel, size);
	stack_push(cpu, st, cpu->seg[SEG_ES].sel, size);
}

static void to_inner(struct vcpu *cpu, const struct delivery *dl, const struct target *t, unsigned size)
{
	static const u8 v86_segs[] = {SEG_GS, SEG_FS, SEG_DS, SEG_ES};
	bool v86 = cpu->mode.vm86;
	struct stack st;

	if (v86 && t->cpl != 0)
		cpu_raise_gp(cpu, SEL_ERR(t->sel) | dl->ext);
	stack_from_tss(cpu, &st, t->cpl, dl->ext);
	code_check_target(cpu, t->desc, t->off);
	if (v86)
		push_v86_segments(cpu, &st, size);
	stack_push(cpu, &st, cpu->seg[SEG_SS].sel, size);
	stack_push(cpu, &st, cpu->gpr[R_SP], size);
	push_frame(cpu, &st, dl, size);
	/* point of no return */
	for (unsigned i = 0; v86 && i < ARRAY_SIZE(v86_segs); i++)
		seg_set_null(&cpu->seg[v86_segs[i]], 0, 0);
	cpu->seg[SEG_SS] = st.ss;
	stack_commit(cpu, &st);
	enter_handler(cpu, t);
}

static void to_same(struct vcpu *cpu, const struct delivery *dl, const struct target *t, unsigned size)
{
	struct stack st;

	if (cpu->mode.vm86)
		cpu_raise_gp(cpu, SEL_ERR(t->sel) | dl->ext);
	stack_current(cpu, &st);
	code_check_target(cpu, t->desc, t->off);
	push_frame(cpu, &st, dl, size);
	stack_commit(cpu, &st);
	enter_handler(cpu, t);
}

static void deliver_protected(struct vcpu *cpu, const struct delivery *dl)
{
	static const u32 types = BIT(DT_TASK_GATE) | BIT(DT_INT16) | BIT(DT_TRAP16) | BIT(DT_INT32) | BIT(DT_TRAP32);
	struct target t = {0};
	unsigned size = 0;
	u64 gate = 0;

	if (dl->vector * 8 + 7 > cpu->idt.limit)
		cpu_raise_gp(cpu, idt_error(dl));
	gate = mmu_sys_read64(cpu, (u32)(cpu->idt.base + dl->vector * 8));
	check_gate(cpu, dl, gate, types);
	if (DESC_TYPE(gate) == DT_TASK_GATE) {
		task_gate(cpu, gate, TASK_EVENT, dl->has_error, dl->error, dl->rip, dl->ext);
		return;
	}
	size = DESC_TYPE(gate) & 8 ? 4 : 2;
	t.sel = GATE_SEL(gate);
	t.off = size == 4 ? GATE_OFF32(gate) : gate & 0xffff;
	t.trap = DESC_TYPE(gate) & 1;
	check_target(cpu, dl, &t);
	if (t.cpl < cpu_cpl(cpu))
		to_inner(cpu, dl, &t, size);
	else
		to_same(cpu, dl, &t, size);
}

/* ---- long mode: SDM 3A 6.14 ---- */

static void push_long_frame(struct vcpu *cpu, struct stack *st, const struct delivery *dl)
{
	unsigned size = dl->has_error ? 48 : 40;
	u64 *p = mmu_hit(cpu, st->sp - size, size, true, st->idx);

	if (!p) {
		stack_push(cpu, st, cpu->seg[SEG_SS].sel, 8);
		stack_push(cpu, st, cpu->gpr[R_SP], 8);
		push_frame(cpu, st, dl, 8);
		return;
	}
	if (dl->has_error)
		*p++ = dl->error;
	p[0] = dl->rip;
	p[1] = cpu->seg[SEG_CS].sel;
	p[2] = dl->rflags;
	p[3] = cpu->gpr[R_SP];
	p[4] = cpu->seg[SEG_SS].sel;
	st->sp -= size;
}

static void deliver_long(struct vcpu *cpu, const struct delivery *dl)
{
	struct stack st = {.flat64 = true, .mask = ~0ull};
	struct target t = {0};
	u64 gate = 0, high = 0;
	unsigned ist = 0;

	if (dl->vector * 16 + 15 > cpu->idt.limit)
		cpu_raise_gp(cpu, idt_error(dl));
	gate = mmu_sys_read64(cpu, cpu->idt.base + dl->vector * 16);
	high = mmu_sys_read64(cpu, cpu->idt.base + dl->vector * 16 + 8);
	check_gate(cpu, dl, gate, BIT(DT_INT32) | BIT(DT_TRAP32));
	t.sel = GATE_SEL(gate);
	t.off = GATE_OFF32(gate) | high << 32;
	t.trap = DESC_TYPE(gate) & 1;
	check_target(cpu, dl, &t);
	ist = gate >> 32 & 7;
	st.idx = t.cpl == 3 ? MMU_USER : MMU_KERNEL;
	st.sp = ist || t.cpl < cpu_cpl(cpu) ? stack_rsp_from_tss(cpu, t.cpl, ist, dl->ext) : cpu->gpr[R_SP];
	st.sp &= ~15ull;
	if (!canonical(t.off))
		cpu_raise_gp(cpu, dl->ext);
	push_long_frame(cpu, &st, dl);
	/* point of no return */
	if (t.cpl < cpu_cpl(cpu))
		seg_set_null(&cpu->seg[SEG_SS], t.cpl, t.cpl);
	cpu->gpr[R_SP] = st.sp;
	enter_handler(cpu, &t);
}

/* INT n in V86 mode: true if the redirection bitmap keeps it there (SDM 3B table 20-2). */
static bool v86_stays(struct vcpu *cpu, const struct delivery *dl)
{
	if (dl->kind != INT_SOFT)
		return false;
	if ((cpu->cr4 & CR4_VME) && vme_redirects(cpu, dl->vector))
		return true;
	if (cpu_iopl(cpu) < 3)
		cpu_raise_gp(cpu, 0);
	return false;
}

void cpu_interrupt(struct vcpu *cpu, unsigned vector, enum int_kind kind, bool has_error, u32 error, u64 next)
{
	bool software = kind != INT_HARD && kind != INT_EXC;
	const struct delivery dl = {
		.vector = vector,
		.kind = kind,
		.has_error = has_error,
		.error = error,
		.ext = !is_software(kind),
		.rip = software ? next : cpu->rip,
		.rflags = pushed_rflags(cpu, vector, kind),
	};

	if (!cpu->mode.pe)
		deliver_real(cpu, &dl);
	else if (cpu->mode.lma)
		deliver_long(cpu, &dl);
	else if (cpu->mode.vm86 && v86_stays(cpu, &dl))
		deliver_vme(cpu, &dl);
	else
		deliver_protected(cpu, &dl);
	cpu->shadow = SHADOW_NONE;
}
