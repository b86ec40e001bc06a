/*
 * Hardware task switches (SDM 3A chapter 8): 16- and 32-bit TSS; JMP, CALL, IRET, and events through task gates. Order of
 * SDM 3A 8.3: all checks of the new TSS first; from the commit on, faults belong to the new task.
 */
#include "engine/cpu/cpu_int.h"

/* The dynamic part of either TSS, widened. gpr in the TSS's order: AX CX DX BX SP BP SI DI, = register numbers. */
struct tss {
	u32 cr3, eip, eflags, gpr[8];
	u16 seg[6]; /* ES CS SS DS FS GS */
	u16 ldt;
	bool trap;
};

#define TSS32_CR3    28
#define TSS32_EIP    32
#define TSS32_EFLAGS 36
#define TSS32_GPR    40
#define TSS32_SEG    72
#define TSS32_LDT    96
#define TSS32_TRAP   100
#define TSS32_LIMIT  103
#define TSS16_IP     14
#define TSS16_FLAGS  16
#define TSS16_GPR    18
#define TSS16_SEG    34
#define TSS16_LDT    42
#define TSS16_LIMIT  43

static gva_t at(u64 base, u32 off)
{
	return (u32)(base + off);
}

static void tss_read32(struct vcpu *cpu, u64 base, struct tss *t)
{
	t->cr3 = mmu_sys_read32(cpu, at(base, TSS32_CR3));
	t->eip = mmu_sys_read32(cpu, at(base, TSS32_EIP));
	t->eflags = mmu_sys_read32(cpu, at(base, TSS32_EFLAGS));
	for (unsigned i = 0; i < 8; i++)
		t->gpr[i] = mmu_sys_read32(cpu, at(base, TSS32_GPR + 4 * i));
	for (unsigned i = 0; i < 6; i++)
		t->seg[i] = mmu_sys_read16(cpu, at(base, TSS32_SEG + 4 * i));
	t->ldt = mmu_sys_read16(cpu, at(base, TSS32_LDT));
	t->trap = mmu_sys_read16(cpu, at(base, TSS32_TRAP)) & 1;
}

static void tss_read16(struct vcpu *cpu, u64 base, struct tss *t)
{
	t->cr3 = 0;
	t->eip = mmu_sys_read16(cpu, at(base, TSS16_IP));
	t->eflags = mmu_sys_read16(cpu, at(base, TSS16_FLAGS));
	for (unsigned i = 0; i < 8; i++) /* the upper halves are undefined after such a switch: ones on real parts */
		t->gpr[i] = mmu_sys_read16(cpu, at(base, TSS16_GPR + 2 * i)) | 0xffff0000;
	for (unsigned i = 0; i < 4; i++)
		t->seg[i] = mmu_sys_read16(cpu, at(base, TSS16_SEG + 2 * i));
	t->seg[SEG_FS] = t->seg[SEG_GS] = 0;
	t->ldt = mmu_sys_read16(cpu, at(base, TSS16_LDT));
	t->trap = false;
}

/* Saves the running task into the current TSS. It has been probed: cannot fault. */
static void tss_save(struct vcpu *cpu, u64 eflags, u64 eip)
{
	const struct segment *tr = &cpu->seg[SEG_TR];
	bool big = tr->type & 8;

	if (big) {
		mmu_sys_write32(cpu, at(tr->base, TSS32_EIP), eip);
		mmu_sys_write32(cpu, at(tr->base, TSS32_EFLAGS), eflags);
	} else {
		mmu_sys_write16(cpu, at(tr->base, TSS16_IP), eip);
		mmu_sys_write16(cpu, at(tr->base, TSS16_FLAGS), eflags);
	}
	for (unsigned i = 0; i < 8; i++) {
		if (big)
			mmu_sys_write32(cpu, at(tr->base, TSS32_GPR + 4 * i), cpu->gpr[i]);
		else
			mmu_sys_write16(cpu, at(tr->base, TSS16_GPR + 2 * i), cpu->gpr[i]);
	}
	for (unsigned i = 0; i < (big ? 6u : 4u); i++)
		mmu_sys_write16(cpu, at(tr->base, big ? TSS32_SEG + 4 * i : TSS16_SEG + 2 * i), cpu->seg[i].sel);
}

static void probe_old(struct vcpu *cpu)
{
	const struct segment *tr = &cpu->seg[SEG_TR];
	bool big = tr->type & 8;
	u32 limit = big ? TSS32_LIMIT : TSS16_LIMIT;

	if (tr->unusable || tr->limit < limit)
		cpu_raise_err(cpu, EXC_TS, SEL_ERR(tr->sel));
	mmu_probe(cpu, at(tr->base, 0), limit + 1, ACC_WRITE, MMU_KERNEL);
}

/* ---- segments of the new task: SDM 3A table 8-1. Faults come after the commit and are the new task's. ---- */

static void load_task_ldt(struct vcpu *cpu, u16 sel)
{
	struct segment *s = &cpu->seg[SEG_LDTR];
	gva_t a = 0;
	u64 d = 0;

	seg_set_null(s, sel, 0);
	if (SEL_NULL(sel))
		return;
	if ((sel & 4) || !desc_locate(cpu, sel, 8, &a))
		cpu_raise_err(cpu, EXC_TS, SEL_ERR(sel));
	d = mmu_sys_read64(cpu, a);
	if (DESC_S(d) || DESC_TYPE(d) != DT_LDT || !DESC_P(d))
		cpu_raise_err(cpu, EXC_TS, SEL_ERR(sel));
	seg_from_descriptor(s, sel, d);
}

static void load_task_cs(struct vcpu *cpu, u16 sel)
{
	unsigned rpl = SEL_RPL(sel);
	u64 d = 0;

	if (SEL_NULL(sel))
		cpu_raise_err(cpu, EXC_TS, 0);
	d = desc_read(cpu, sel, EXC_TS, 0);
	if (!DESC_CODE(d) || (DESC_CONF(d) ? DESC_DPL(d) > rpl : DESC_DPL(d) != rpl))
		cpu_raise_err(cpu, EXC_TS, SEL_ERR(sel));
	if (!DESC_P(d))
		cpu_raise_err(cpu, EXC_NP, SEL_ERR(sel));
	d = desc_set_type_bits(cpu, sel, d, 1);
	seg_from_descriptor(&cpu->seg[SEG_CS], sel, d);
}

static void load_task_ss(struct vcpu *cpu, u16 sel, unsigned cpl)
{
	u64 d = 0;

	if (SEL_NULL(sel))
		cpu_raise_err(cpu, EXC_TS, 0);
	d = desc_read(cpu, sel, EXC_TS, 0);
	if (!DESC_WDATA(d) || SEL_RPL(sel) != cpl || DESC_DPL(d) != cpl)
		cpu_raise_err(cpu, EXC_TS, SEL_ERR(sel));
	if (!DESC_P(d))
		cpu_raise_err(cpu, EXC_SS, SEL_ERR(sel));
	d = desc_set_type_bits(cpu, sel, d, 1);
	seg_from_descriptor(&cpu->seg[SEG_SS], sel, d);
}

static void load_task_data(struct vcpu *cpu, unsigned seg, u16 sel, unsigned cpl)
{
	u64 d = 0;

	if (SEL_NULL(sel))
		return;
	d = desc_read(cpu, sel, EXC_TS, 0);
	if (!DESC_RDABLE(d))
		cpu_raise_err(cpu, EXC_TS, SEL_ERR(sel));
	if (!(DESC_CODE(d) && DESC_CONF(d)) && MAX(SEL_RPL(sel), cpl) > DESC_DPL(d))
		cpu_raise_err(cpu, EXC_TS, SEL_ERR(sel));
	if (!DESC_P(d))
		cpu_raise_err(cpu, EXC_NP, SEL_ERR(sel));
	d = desc_set_type_bits(cpu, sel, d, 1);
	seg_from_descriptor(&cpu->seg[seg], sel, d);
}

static void load_task_segments(struct vcpu *cpu, const struct tss *t)
{
	static const u8 data[] = {SEG_ES, SEG_DS, SEG_FS, SEG_GS};
	unsigned cpl = SEL_RPL(t->seg[SEG_CS]);

	if (cpu->rflags & FL_VM) {
		for (unsigned i = 0; i < 6; i++)
			seg_load_v86(cpu, i, t->seg[i]);
		cpu_update_mode(cpu);
		load_task_ldt(cpu, t->ldt);
		return;
	}
	/* Until each is judged, its register holds the selector alone; a handler finds CPL by CS's RPL. */
	for (unsigned i = 0; i < 6; i++)
		seg_set_null(&cpu->seg[i], t->seg[i], cpl);
	cpu_update_mode(cpu);
	load_task_ldt(cpu, t->ldt);
	load_task_cs(cpu, t->seg[SEG_CS]);
	cpu_update_mode(cpu);
	load_task_ss(cpu, t->seg[SEG_SS], cpl);
	for (unsigned i = 0; i < ARRAY_SIZE(data); i++)
		load_task_data(cpu, data[i], t->seg[data[i]], cpl);
	cpu_update_mode(cpu);
}

/* ---- the switch ---- */

struct new_task {
	u16 sel;
	u64 desc;
	bool big;
	struct tss tss;
};

static void read_new(struct vcpu *cpu, struct new_task *n, enum task_cause cause)
{
	n->desc = desc_read(cpu, n->sel, cause == TASK_IRET ? EXC_TS : EXC_GP, 0);
	n->big = DESC_TYPE(n->desc) & 8;
	if (!DESC_P(n->desc))
		cpu_raise_err(cpu, EXC_NP, SEL_ERR(n->sel));
	if (desc_limit(n->desc) < (n->big ? (u32)TSS32_LIMIT : (u32)TSS16_LIMIT))
		cpu_raise_err(cpu, EXC_TS, SEL_ERR(n->sel));
	if (n->big)
		tss_read32(cpu, desc_base(n->desc), &n->tss);
	else
		tss_read16(cpu, desc_base(n->desc), &n->tss);
	if (cause == TASK_CALL || cause == TASK_EVENT)
		mmu_probe(cpu, at(desc_base(n->desc), 0), 2, ACC_WRITE, MMU_KERNEL);
}

static void load_cr3(struct vcpu *cpu, const struct new_task *n)
{
	if (!n->big || !(cpu->cr0 & CR0_PG))
		return;
	if ((cpu->cr4 & CR4_PAE) && !mmu_load_pdptes(cpu, n->tss.cr3))
		cpu_raise_err(cpu, EXC_TS, SEL_ERR(n->sel));
	mmu_set_cr3(cpu, n->tss.cr3, false);
	cpu->cr3 = n->tss.cr3;
}

static void load_registers(struct vcpu *cpu, const struct tss *t, bool nested)
{
	u64 valid = FL_ARITH | FL_TF | FL_IF | FL_DF | FL_IOPL | FL_NT | FL_RF | FL_VM | FL_AC | FL_VIF | FL_VIP | FL_ID;

	for (unsigned i = 0; i < 8; i++)
		cpu->gpr[i] = t->gpr[i];
	cpu->rip = t->eip;
	cpu->rflags = (t->eflags & valid) | FL_ONE | (nested ? FL_NT : 0);
	cpu->cr0 |= CR0_TS;
	cpu->dr7 &= ~0x155ull; /* the local enables: L0-L3, LE */
}

static void load_tr(struct vcpu *cpu, const struct new_task *n)
{
	seg_from_descriptor(&cpu->seg[SEG_TR], n->sel, n->desc);
	cpu->seg[SEG_TR].type |= DT_BUSY_BIT;
}

static void push_error(struct vcpu *cpu, bool big, u32 error)
{
	cpu_push(cpu, error, big ? 4 : 2);
}

void task_switch(struct vcpu *cpu, u16 sel, enum task_cause cause, bool has_error, u32 error, u64 next)
{
	bool nested = cause == TASK_CALL || cause == TASK_EVENT;
	u16 old_sel = cpu->seg[SEG_TR].sel;
	u64 old_flags = cpu->rflags;
	struct new_task n = {.sel = sel};

	read_new(cpu, &n, cause);
	probe_old(cpu);
	if (cause == TASK_IRET)
		old_flags &= ~(u64)FL_NT;
	/* Busy flags: JMP and IRET leave the old task; all but IRET enter a task that was available. */
	if (cause == TASK_JMP || cause == TASK_IRET)
		desc_clear_busy(cpu, old_sel);
	tss_save(cpu, old_flags, next);
	if (nested)
		mmu_sys_write16(cpu, at(desc_base(n.desc), 0), old_sel);
	if (cause != TASK_IRET)
		desc_set_type_bits(cpu, sel, n.desc, DT_BUSY_BIT);
	/* point of no return: from here on it is the new task */
	load_tr(cpu, &n);
	load_cr3(cpu, &n);
	load_registers(cpu, &n.tss, nested);
	load_task_segments(cpu, &n.tss);
	if (cpu->rip > cpu->seg[SEG_CS].limit)
		cpu_raise_gp(cpu, 0);
	if (has_error)
		push_error(cpu, n.big, error);
	if (n.tss.trap)
		cpu_raise_db(cpu, DR6_BT);
}

void task_gate(struct vcpu *cpu, u64 gate, enum task_cause cause, bool has_error, u32 error, u64 next, u32 ext)
{
	u16 sel = GATE_SEL(gate);
	u64 d = 0;

	if (SEL_NULL(sel) || (sel & 4))
		cpu_raise_gp(cpu, SEL_ERR(sel) | ext);
	d = desc_read(cpu, sel, EXC_GP, ext);
	if (DESC_S(d) || (DESC_TYPE(d) != DT_TSS16 && DESC_TYPE(d) != DT_TSS32))
		cpu_raise_gp(cpu, SEL_ERR(sel) | ext);
	if (!DESC_P(d))
		cpu_raise_err(cpu, EXC_NP, SEL_ERR(sel) | ext);
	task_switch(cpu, sel, cause, has_error, error, next);
}
