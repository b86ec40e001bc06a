/* Segment registers, descriptor tables and checks of descriptors. */
#include "engine/interp/interp_int.h"

/* Selector operand: aux[0] memory */
static u16 selector(struct vcpu *cpu, const struct iop *op)
{
	return op->aux[0] ? mmu_read16(cpu, iop_ea(cpu, op, 2, false)) : RD16(cpu, op->src);
}

/* A 16-bit value to memory, or zero-extended to a register of the operand size. */
static void store16(struct vcpu *cpu, const struct iop *op, u16 v)
{
	if (op->aux[0])
		mmu_write16(cpu, iop_ea(cpu, op, 2, true), v);
	else
		gpr_write(cpu, op->dst, v, op->size);
}

static void mov_from_sreg(struct vcpu *cpu, const struct iop *op)
{
	store16(cpu, op, cpu->seg[op->aux[1]].sel);
	NEXT(cpu, op);
}

static void mov_to_sreg(struct vcpu *cpu, const struct iop *op)
{
	cpu_load_sreg(cpu, op->aux[1], selector(cpu, op));
	if (op->aux[1] == SEG_SS)
		cpu->shadow = SHADOW_MOVSS;
	cpu->rip += op->len;
	return iop_return(cpu, op, false);
}

static void load_far(struct vcpu *cpu, const struct iop *op)
{
	unsigned n = op->aux[0];
	gva_t a = iop_ea(cpu, op, n + 2, false);
	u64 off = mem_read(cpu, a, n);

	cpu_load_sreg(cpu, op->aux[1], mmu_read16(cpu, a + n));
	gpr_write(cpu, op->dst, off, op->size);
	cpu->rip += op->len;
	return iop_return(cpu, op, false);
}

/* ---- LGDT SGDT LIDT SIDT: limit, then a base of 8 bytes in 64-bit mode, else 4 of which a 16-bit operand size uses 3 ---- */

static void load_table(struct vcpu *cpu, const struct iop *op)
{
	struct dtable *t = op->aux[1] ? &cpu->idt : &cpu->gdt;
	unsigned n = cpu->mode.long64 ? 8 : 4;
	gva_t a = iop_ea(cpu, op, n + 2, false);
	u16 limit = mmu_read16(cpu, a);
	u64 base = mem_read(cpu, a + 2, n);

	if (op->size == 2)
		base &= 0xffffff;
	if (n == 8 && !is_canonical(base))
		cpu_raise_gp(cpu, 0);
	t->limit = limit;
	t->base = base;
	NEXT(cpu, op);
}

static void store_table(struct vcpu *cpu, const struct iop *op)
{
	const struct dtable *t = op->aux[1] ? &cpu->idt : &cpu->gdt;
	unsigned n = cpu->mode.long64 ? 8 : 4;
	gva_t a;

	if (cpu_umip_blocks(cpu))
		cpu_raise_gp(cpu, 0);
	a = iop_ea(cpu, op, n + 2, true);
	mmu_probe(cpu, a, n + 2, ACC_WRITE, cpu->mode.mmu_idx);
	mmu_write16(cpu, a, t->limit);
	mem_write(cpu, a + 2, t->base, n);
	NEXT(cpu, op);
}

static void store_selector(struct vcpu *cpu, const struct iop *op)
{
	if (cpu_umip_blocks(cpu))
		cpu_raise_gp(cpu, 0);
	store16(cpu, op, cpu->seg[op->aux[1]].sel);
	NEXT(cpu, op);
}

static void lldt(struct vcpu *cpu, const struct iop *op)
{
	cpu_lldt(cpu, selector(cpu, op));
	NEXT(cpu, op);
}

static void ltr(struct vcpu *cpu, const struct iop *op)
{
	cpu_ltr(cpu, selector(cpu, op));
	NEXT(cpu, op);
}

static void set_zf(struct vcpu *cpu, bool zf)
{
	cpu->rflags = (cpu->rflags & ~(u64)FL_ZF) | (zf ? FL_ZF : 0);
}

static void verify(struct vcpu *cpu, const struct iop *op)
{
	set_zf(cpu, cpu_verify(cpu, selector(cpu, op), op->aux[1]));
	NEXT(cpu, op);
}

static void lar(struct vcpu *cpu, const struct iop *op)
{
	u32 v = 0;
	bool ok = cpu_lar(cpu, selector(cpu, op), &v);

	if (ok)
		gpr_write(cpu, op->dst, v, op->size);
	set_zf(cpu, ok);
	NEXT(cpu, op);
}

static void lsl(struct vcpu *cpu, const struct iop *op)
{
	u32 v = 0;
	bool ok = cpu_lsl(cpu, selector(cpu, op), &v);

	if (ok)
		gpr_write(cpu, op->dst, v, op->size);
	set_zf(cpu, ok);
	NEXT(cpu, op);
}

/* ---- compilation: which operand is the selector, and what aux[1] says ---- */

/* clang-format off */
static const struct {
	iop_fn *fn;
	u8 operand, aux1;
} desc_ops[INSN_COUNT] = {
	[INSN_LGDT] = {load_table, 0, 0},
	[INSN_LIDT] = {load_table, 0, 1},
	[INSN_SGDT] = {store_table, 0, 0},
	[INSN_SIDT] = {store_table, 0, 1},
	[INSN_SLDT] = {store_selector, 0, SEG_LDTR},
	[INSN_STR] = {store_selector, 0, SEG_TR},
	[INSN_LLDT] = {lldt, 0, 0},
	[INSN_LTR] = {ltr, 0, 0},
	[INSN_VERR] = {verify, 0, false},
	[INSN_VERW] = {verify, 0, true},
	[INSN_LAR] = {lar, 1, 0},
	[INSN_LSL] = {lsl, 1, 0},
	[INSN_LDS] = {load_far, 1, SEG_DS},
	[INSN_LES] = {load_far, 1, SEG_ES},
	[INSN_LFS] = {load_far, 1, SEG_FS},
	[INSN_LGS] = {load_far, 1, SEG_GS},
	[INSN_LSS] = {load_far, 1, SEG_SS},
};
/* clang-format on */

static bool compile_mov_sreg(const struct insn *in, struct iop *op)
{
	bool to = in->op[0].kind == OPK_SREG;
	const struct insn_operand *other = &in->op[to];

	op->aux[0] = other->kind == OPK_MEM;
	op->aux[1] = in->op[!to].reg;
	op->dst = op->src = other->reg;
	op->size = other->size;
	op->fn = to ? mov_to_sreg : mov_from_sreg;
	return !(to && op->aux[1] == SEG_CS) && op->aux[1] <= SEG_GS;
}

bool compile_sys_desc(struct vcpu *cpu, const struct insn *in, struct iop *op)
{
	unsigned n = desc_ops[in->id].operand;

	if (in->id == INSN_MOV_SREG)
		return compile_mov_sreg(in, op);
	op->fn = desc_ops[in->id].fn;
	op->aux[1] = desc_ops[in->id].aux1;
	op->aux[0] = in->op[n].kind == OPK_MEM;
	op->dst = in->op[0].reg;
	op->src = in->op[n].reg;
	op->size = in->op[0].size;
	if (op->fn == load_far)
		op->aux[0] = in->mem.size - 2;
	if (op->fn == load_table)
		op->size = in->opsize;
	return true;
}
