/* IRET in every mode (SDM 2A IRET). */
#include "engine/cpu/cpu_int.h"

struct frame {
	u64 rip, rflags, sp;
	u16 cs, ss;
};

static void pop_frame(struct vcpu *cpu, struct stack *st, struct frame *f, unsigned size)
{
	f->rip = stack_pop(cpu, st, size);
	f->cs = stack_pop(cpu, st, size);
	f->rflags = stack_pop(cpu, st, size);
}

static void iret_real(struct vcpu *cpu, unsigned size)
{
	u64 mask = size == 2 ? FL_ARITH | FL_TF | FL_IF | FL_DF | FL_IOPL | FL_NT : 0x257fd5;
	struct stack st;
	struct frame f;

	stack_current(cpu, &st);
	pop_frame(cpu, &st, &f, size);
	if (f.rip > cpu->seg[SEG_CS].limit)
		cpu_raise_gp(cpu, 0);
	stack_commit(cpu, &st);
	seg_load_real(cpu, SEG_CS, f.cs);
	cpu->rip = f.rip;
	flags_write(cpu, f.rflags, mask);
	cpu_update_mode(cpu);
}

static void iret_v86(struct vcpu *cpu, unsigned size)
{
	u64 mask = FL_ARITH | FL_TF | FL_DF | FL_NT | (size == 4 ? FL_RF | FL_AC | FL_ID : 0);
	bool vme = false;
	struct stack st;
	struct frame f;

	if (cpu_iopl(cpu) == 3)
		mask |= FL_IF;
	else if ((cpu->cr4 & CR4_VME) && size == 2)
		vme = true;
	else
		cpu_raise_gp(cpu, 0);
	stack_current(cpu, &st);
	pop_frame(cpu, &st, &f, size);
	if (vme) {
		if ((f.rflags & FL_TF) || ((f.rflags & FL_IF) && (cpu->rflags & FL_VIP)))
			cpu_raise_gp(cpu, 0);
		f.rflags = (f.rflags & 0xffff) | (f.rflags & FL_IF ? FL_VIF : 0);
		mask |= FL_VIF;
	}
	if (f.rip > 0xffff)
		cpu_raise_gp(cpu, 0);
	stack_commit(cpu, &st);
	seg_load_v86(cpu, SEG_CS, f.cs);
	cpu->rip = f.rip;
	flags_write(cpu, f.rflags, mask);
	cpu_update_mode(cpu);
}

/* From CPL 0 with VM set in the image: SDM 2A IRET, "RETURN-TO-VIRTUAL-8086-MODE". */
static void iret_to_v86(struct vcpu *cpu, struct stack *st, const struct frame *f)
{
	static const u8 order[] = {SEG_ES, SEG_DS, SEG_FS, SEG_GS};
	u32 sp = stack_pop(cpu, st, 4);
	u16 ss = stack_pop(cpu, st, 4), sel[ARRAY_SIZE(order)];

	for (unsigned i = 0; i < ARRAY_SIZE(order); i++)
		sel[i] = stack_pop(cpu, st, 4);
	if (f->rip > 0xffff)
		cpu_raise_gp(cpu, 0);
	/* point of no return */
	for (unsigned i = 0; i < ARRAY_SIZE(order); i++)
		seg_load_v86(cpu, order[i], sel[i]);
	seg_load_v86(cpu, SEG_SS, ss);
	seg_load_v86(cpu, SEG_CS, f->cs);
	cpu->gpr[R_SP] = sp;
	cpu->rip = f->rip;
	flags_write(cpu, f->rflags, 0x3f7fd5);
	cpu_update_mode(cpu);
}

/* The task that executes IRET goes on behind it the next time: what an interrupt task relies on. */
static u64 iret_next(struct vcpu *cpu)
{
	u8 bytes[INSN_MAX_LEN];
	unsigned n = mmu_fetch_bytes(cpu, (u32)(cpu->seg[SEG_CS].base + cpu->rip), bytes, sizeof(bytes));
	struct insn in;

	return cpu->rip + (insn_decode(bytes, n, cpu->mode.code, &in) == INSN_OK ? in.len : 1);
}

static void iret_task(struct vcpu *cpu)
{
	const struct segment *tr = &cpu->seg[SEG_TR];
	u16 link = mmu_sys_read16(cpu, (u32)tr->base);
	gva_t a = 0;
	u64 d = 0;

	if (SEL_NULL(link) || (link & 4) || !desc_locate(cpu, link, 8, &a))
		cpu_raise_err(cpu, EXC_TS, SEL_ERR(link));
	d = mmu_sys_read64(cpu, a);
	if (DESC_S(d) || (DESC_TYPE(d) != DT_TSS16_BUSY && DESC_TYPE(d) != DT_TSS32_BUSY))
		cpu_raise_err(cpu, EXC_TS, SEL_ERR(link));
	if (!DESC_P(d))
		cpu_raise_err(cpu, EXC_NP, SEL_ERR(link));
	task_switch(cpu, link, TASK_IRET, false, 0, iret_next(cpu));
}

/* RFLAGS bits an IRET at this CPL and IOPL may write. */
static u64 writable_flags(const struct vcpu *cpu, unsigned size)
{
	u64 mask = FL_ARITH | FL_TF | FL_DF | FL_NT;

	if (size > 2)
		mask |= FL_RF | FL_AC | FL_ID;
	if (cpu_cpl(cpu) <= cpu_iopl(cpu))
		mask |= FL_IF;
	if (cpu_cpl(cpu) == 0)
		mask |= FL_IOPL | (size > 2 ? FL_VIF | FL_VIP : 0);
	return mask;
}

static void iret_protected(struct vcpu *cpu, unsigned size)
{
	bool from64 = cpu->mode.long64, to64 = false, outer = false;
	u64 mask = writable_flags(cpu, size), d = 0;
	const u64 *whole = from64 && size == 8 ? mmu_hit(cpu, cpu->gpr[R_SP], 40, false, cpu->mode.mmu_idx) : NULL;
	unsigned rpl = 0;
	struct segment ss;
	struct stack st;
	struct frame f;

	stack_current(cpu, &st);
	if (whole)
		f = (struct frame){.rip = whole[0], .cs = (u16)whole[1], .rflags = whole[2], .sp = whole[3], .ss = (u16)whole[4]};
	else
		pop_frame(cpu, &st, &f, size);
	if (size == 4 && (f.rflags & FL_VM) && cpu_cpl(cpu) == 0 && !cpu->mode.lma) {
		iret_to_v86(cpu, &st, &f);
		return;
	}
	d = code_check_return(cpu, f.cs);
	rpl = SEL_RPL(f.cs);
	to64 = cpu->mode.lma && DESC_L(d);
	outer = rpl > cpu_cpl(cpu);
	if (outer || from64) {
		if (!whole) {
			f.sp = stack_pop(cpu, &st, size);
			f.ss = stack_pop(cpu, &st, size);
		}
		stack_check_return(cpu, f.ss, rpl, to64, &ss);
	}
	code_check_target(cpu, d, f.rip);
	d = desc_set_type_bits(cpu, f.cs, d, 1);
	/* point of no return */
	if (outer || from64) {
		cpu->seg[SEG_SS] = ss;
		cpu_set_sp(cpu, f.sp, to64 ? ~0ull : ss.db ? 0xffffffffu : 0xffffu);
	} else {
		stack_commit(cpu, &st);
	}
	seg_from_descriptor(&cpu->seg[SEG_CS], f.cs, d);
	cpu->rip = f.rip;
	flags_write(cpu, f.rflags, mask);
	if (from64 && to64)
		mode_stay_long(cpu, rpl);
	else
		cpu_update_mode(cpu);
	if (outer)
		seg_drop_inaccessible(cpu);
	if (outer && !to64)
		cpu_update_mode(cpu);
}

void cpu_iret(struct vcpu *cpu, unsigned size)
{
	cpu->nmi_masked = false; /* also when the IRET faults: SDM 3A 6.7.1 */
	if (!cpu->mode.pe) {
		iret_real(cpu, size);
	} else if (cpu->mode.vm86) {
		iret_v86(cpu, size);
	} else if (cpu->rflags & FL_NT) {
		if (cpu->mode.lma)
			cpu_raise_gp(cpu, 0);
		iret_task(cpu);
	} else {
		iret_protected(cpu, size);
	}
}
