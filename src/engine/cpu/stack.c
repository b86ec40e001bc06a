/* Stacks: the current one, and the ones a TSS names for inner privilege levels. */
#include "engine/cpu/cpu_int.h"

static enum mmu_idx idx_of_cpl(unsigned cpl)
{
	return cpl == 3 ? MMU_USER : MMU_KERNEL;
}

static u64 stack_mask(const struct segment *ss)
{
	return ss->db ? 0xffffffffu : 0xffffu;
}

void stack_current(struct vcpu *cpu, struct stack *st)
{
	static const u64 masks[] = {[2] = 0xffff, [4] = 0xffffffff, [8] = ~0ull};

	*st = (struct stack){
		.ss = cpu->seg[SEG_SS],
		.flat64 = cpu->mode.long64,
		.sp = cpu->gpr[R_SP],
		.mask = masks[cpu->mode.stack],
		.idx = cpu->mode.mmu_idx,
	};
}

static gva_t stack_linear(struct vcpu *cpu, const struct stack *st, u64 off, unsigned size)
{
	const struct segment *s = &st->ss;
	u64 last = off + size - 1;
	bool ok = false;

	if (st->flat64) {
		if (!canonical(off) || !canonical(last))
			cpu_raise_err(cpu, EXC_SS, 0);
		return off;
	}
	if ((s->type & 0xc) == 4)
		ok = off > s->limit && last <= stack_mask(s);
	else
		ok = last <= s->limit;
	if (!ok || s->unusable)
		cpu_raise_err(cpu, EXC_SS, st->error);
	return (u32)(s->base + off);
}

void stack_push(struct vcpu *cpu, struct stack *st, u64 v, unsigned size)
{
	u64 off = (st->sp - size) & st->mask;
	gva_t a = stack_linear(cpu, st, off, size);

	if (size == 2)
		mmu_write16_idx(cpu, a, v, st->idx);
	else if (size == 4)
		mmu_write32_idx(cpu, a, v, st->idx);
	else
		mmu_write64_idx(cpu, a, v, st->idx);
	st->sp = off;
}

u64 stack_pop(struct vcpu *cpu, struct stack *st, unsigned size)
{
	u64 off = st->sp & st->mask;
	gva_t a = stack_linear(cpu, st, off, size);

	st->sp = (off + size) & st->mask;
	if (size == 2)
		return mmu_read16_idx(cpu, a, st->idx);
	if (size == 4)
		return mmu_read32_idx(cpu, a, st->idx);
	return mmu_read64_idx(cpu, a, st->idx);
}

void cpu_set_sp(struct vcpu *cpu, u64 sp, u64 mask)
{
	if (mask == 0xffff)
		cpu->gpr[R_SP] = (cpu->gpr[R_SP] & ~0xffffull) | (sp & 0xffff);
	else
		cpu->gpr[R_SP] = sp & mask;
}

void stack_commit(struct vcpu *cpu, const struct stack *st)
{
	cpu_set_sp(cpu, st->sp, st->mask);
}

void cpu_push(struct vcpu *cpu, u64 v, unsigned size)
{
	struct stack st;

	stack_current(cpu, &st);
	stack_push(cpu, &st, v, size);
	stack_commit(cpu, &st);
}

u64 cpu_pop(struct vcpu *cpu, unsigned size)
{
	struct stack st;
	u64 v = 0;

	stack_current(cpu, &st);
	v = stack_pop(cpu, &st, size);
	stack_commit(cpu, &st);
	return v;
}

/* SS:ESP of privilege level cpl in a 16- or 32-bit TSS (SDM 3A figures 7-2, 7-10). */
static u16 tss_read_stack(struct vcpu *cpu, unsigned cpl, u32 ext, u64 *sp)
{
	const struct segment *tr = &cpu->seg[SEG_TR];
	bool big = tr->type & 8;
	u32 off = big ? 4 + cpl * 8 : 2 + cpl * 4;
	u32 last = off + (big ? 5 : 3);

	if (tr->unusable || last > tr->limit)
		cpu_raise_err(cpu, EXC_TS, SEL_ERR(tr->sel) | ext);
	if (big) {
		*sp = mmu_sys_read32(cpu, (u32)(tr->base + off));
		return mmu_sys_read16(cpu, (u32)(tr->base + off + 4));
	}
	*sp = mmu_sys_read16(cpu, (u32)(tr->base + off));
	return mmu_sys_read16(cpu, (u32)(tr->base + off + 2));
}

void stack_from_tss(struct vcpu *cpu, struct stack *st, unsigned cpl, u32 ext)
{
	u64 sp = 0, d = 0;
	u16 sel = tss_read_stack(cpu, cpl, ext, &sp);

	if (SEL_NULL(sel))
		cpu_raise_err(cpu, EXC_TS, ext);
	d = desc_read(cpu, sel, EXC_TS, ext);
	if (SEL_RPL(sel) != cpl || DESC_DPL(d) != cpl || !DESC_WDATA(d))
		cpu_raise_err(cpu, EXC_TS, SEL_ERR(sel) | ext);
	if (!DESC_P(d))
		cpu_raise_err(cpu, EXC_SS, SEL_ERR(sel) | ext);
	d = desc_set_type_bits(cpu, sel, d, 1);
	*st = (struct stack){.sp = sp, .idx = idx_of_cpl(cpl), .error = SEL_ERR(sel) | ext};
	seg_from_descriptor(&st->ss, sel, d);
	st->mask = stack_mask(&st->ss);
}

u64 stack_rsp_from_tss(struct vcpu *cpu, unsigned cpl, unsigned ist, u32 ext)
{
	const struct segment *tr = &cpu->seg[SEG_TR];
	u32 off = ist ? 0x24 + (ist - 1) * 8 : 4 + cpl * 8;
	u64 rsp = 0;

	if (tr->unusable || off + 7 > tr->limit)
		cpu_raise_err(cpu, EXC_TS, SEL_ERR(tr->sel) | ext);
	rsp = mmu_sys_read64(cpu, tr->base + off);
	if (!canonical(rsp))
		cpu_raise_err(cpu, EXC_SS, ext);
	return rsp;
}

void stack_check_return(struct vcpu *cpu, u16 sel, unsigned rpl, bool to64, struct segment *ss)
{
	u64 d = 0;

	if (SEL_NULL(sel)) {
		if (!to64 || rpl == 3 || SEL_RPL(sel) != rpl)
			cpu_raise_gp(cpu, 0);
		seg_set_null(ss, sel, rpl);
		return;
	}
	d = desc_read(cpu, sel, EXC_GP, 0);
	if (SEL_RPL(sel) != rpl || !DESC_WDATA(d) || DESC_DPL(d) != rpl)
		cpu_raise_gp(cpu, SEL_ERR(sel));
	if (!DESC_P(d))
		cpu_raise_err(cpu, EXC_SS, SEL_ERR(sel));
	d = desc_set_type_bits(cpu, sel, d, 1);
	seg_from_descriptor(ss, sel, d);
}
