/*
 * Vector instructions that access memory element by element: gathers, masked moves. Elements the mask leaves
 * out do not fault; a gather that faults has done the elements before, and says so in its mask register (SDM
 * 2C VPGATHERDD).
 */
#include "engine/interp/vec_int.h"
#include "engine/lib/lib.h"

#define VEC_MAX 32u

/* ---- masked moves: the sign bit of each element of the mask ---- */
static bool element_on(const u8 *mask, unsigned elem, unsigned i)
{
	return mask[i * elem + elem - 1] & 0x80;
}

/* Outside 64-bit mode an element does not wrap: what lies behind the address size is behind the limit too (so do AMD's). */
static gva_t element_address(struct vcpu *cpu, const struct iop *op, unsigned from, unsigned elem, bool write)
{
	struct iop one = *op;

	if (!cpu->mode.long64)
		return iop_linear(cpu, op, iop_ea_offset(cpu, op) + from, elem, write);
	one.disp += from;
	return iop_ea(cpu, &one, elem, write);
}

/* Loads: only what the mask names is read; the stub then sees the bounce buffer. */
static __attribute__((noinline)) void mask_load(struct vcpu *cpu, const struct iop *op)
{
	unsigned n = op->aux[AUX_VL], elem = op->aux[AUX_ELEM];
	u8 mask[VEC_MAX], value[VEC_MAX] = {0};
	gva_t a = 0;
	void *p = NULL;

	if (likely(!(op->flags & IOP_SEGCHECK))) { /* a whole operand in one page crosses no limit; else each element is looked at */
		a = iop_ea(cpu, op, 1, false);
		p = vec_tlb_hit(cpu, a, n, false);
	}
	if (!p) {
		vec_reg_get(cpu, op->aux[AUX_MASK], mask);
		for (unsigned i = 0; i < n / elem; i++) {
			if (!element_on(mask, elem, i))
				continue;
			a = element_address(cpu, op, i * elem, elem, false);
			memcpy(value + i * elem, vec_read(cpu, a, elem), elem);
		}
		p = memcpy(vs_of(cpu)->bounce, value, sizeof(value));
	}
	stub_run(op->ptr, p);
}

/* Stores the elements of value that the mask names; all are proved writable first. */
static void store_masked(struct vcpu *cpu, const struct iop *op, const u8 *mask, const u8 *value)
{
	unsigned n = op->aux[AUX_VL], elem = op->aux[AUX_ELEM];

	for (unsigned pass = 0; pass < 2; pass++) {
		for (unsigned i = 0; i < n / elem; i++) {
			gva_t a = 0;

			if (!element_on(mask, elem, i))
				continue;
			a = element_address(cpu, op, i * elem, elem, true);
			if (pass == 0)
				mmu_probe(cpu, a, elem, ACC_WRITE, cpu->mode.mmu_idx);
			else
				vec_copy_out(cpu, a, value + i * elem, elem);
		}
	}
}

static __attribute__((noinline)) void mask_store(struct vcpu *cpu, const struct iop *op)
{
	unsigned n = op->aux[AUX_VL];
	u8 mask[VEC_MAX], value[VEC_MAX];
	void *p = NULL;

	if (likely(!(op->flags & IOP_SEGCHECK)))
		p = vec_tlb_hit(cpu, iop_ea(cpu, op, 1, true), n, true);
	if (likely(p != NULL)) {
		stub_run(op->ptr, p);
	} else {
		vec_reg_get(cpu, op->aux[AUX_MASK], mask);
		vec_reg_get(cpu, op->dst, value);
		store_masked(cpu, op, mask, value);
	}
}

/* MASKMOVDQU: DS:rDI (or override), bytes. */
static __attribute__((noinline)) void maskmovdqu(struct vcpu *cpu, const struct iop *op)
{
	u8 mask[VEC_MAX], value[VEC_MAX];

	vec_reg_get(cpu, op->aux[AUX_MASK], mask);
	vec_reg_get(cpu, op->dst, value);
	store_masked(cpu, op, mask, value);
}

/* MASKMOVQ: the same with MMX registers. Reading them waits for a pending x87 exception and enters MMX mode,
 * as the instruction does. */
static __attribute__((noinline)) void maskmovq(struct vcpu *cpu, const struct iop *op)
{
	u8 mask[8], value[8];

	vec_mmx_get(cpu, op->dst & 7, value);
	vec_mmx_get(cpu, op->aux[AUX_MASK] & 7, mask);
	store_masked(cpu, op, mask, value);
}

/* ---- gathers ---- */
static void commit_gather(struct vcpu *cpu, const struct iop *op, const u8 *value, const u8 *mask)
{
	vec_reg_set(cpu, op->dst, value);
	vec_reg_set(cpu, op->aux[AUX_MASK], mask);
}

static gva_t gather_ea(struct vcpu *cpu, const struct iop *op, const u8 *index, unsigned i)
{
	struct iop one = *op;
	s64 x = op->aux[AUX_INDEX_SIZE] == 8 ? ((const s64 *)index)[i] : ((const s32 *)index)[i];

	one.disp = (s64)((u64)one.disp + ((u64)x << op->shift)); /* wraps */
	return iop_ea(cpu, &one, op->aux[AUX_ELEM], false);
}

/*
 * Before an access that may fault, what is done so far becomes visible. Not if the VMM has answered a read of
 * this instruction: the restart replays all answers from the first element on.
 */
static __attribute__((noinline)) void gather(struct vcpu *cpu, const struct iop *op)
{
	unsigned elem = op->aux[AUX_ELEM], isize = op->aux[AUX_INDEX_SIZE],
		 n = op->aux[AUX_VL] / MAX(elem, isize);
	u8 value[VEC_MAX] __attribute__((aligned(8))), mask[VEC_MAX],
	    index[VEC_MAX] __attribute__((aligned(8)));

	vec_reg_get(cpu, op->dst, value);
	vec_reg_get(cpu, op->aux[AUX_MASK], mask);
	vec_reg_get(cpu, op->aux[AUX_INDEX], index);
	for (unsigned i = 0; i < n; i++) {
		gva_t a = 0;
		void *p = NULL;

		if (element_on(mask, elem, i)) {
			if (op->flags & IOP_SEGCHECK && cpu->mmio.n == 0)
				commit_gather(cpu, op, value, mask);
			a = gather_ea(cpu, op, index, i);
			p = vec_tlb_hit(cpu, a, elem, false); /* gathers are exempt from #AC */
			if (!p) {
				if (cpu->mmio.n == 0)
					commit_gather(cpu, op, value, mask);
				p = vec_read(cpu, a, elem);
			}
			memcpy(value + i * elem, p, elem);
		}
		memset(mask + i * elem, 0, elem);
	}
	memset(mask, 0, sizeof(mask));
	memset(value + n * elem, 0, sizeof(value) - n * elem);
	commit_gather(cpu, op, value, mask);
}

/*
 * Handlers proper: the work above has locals whose address is passed on, which would keep NEXT from being a
 * tail call.
 */
static void h_mask_load(struct vcpu *cpu, const struct iop *op)
{
	mask_load(cpu, op);
	NEXT(cpu, op);
}

static void h_mask_store(struct vcpu *cpu, const struct iop *op)
{
	mask_store(cpu, op);
	NEXT(cpu, op);
}

static void h_maskmovdqu(struct vcpu *cpu, const struct iop *op)
{
	maskmovdqu(cpu, op);
	NEXT(cpu, op);
}

static void h_maskmovq(struct vcpu *cpu, const struct iop *op)
{
	maskmovq(cpu, op);
	NEXT(cpu, op);
}

static void h_gather(struct vcpu *cpu, const struct iop *op)
{
	gather(cpu, op);
	NEXT(cpu, op);
}

/* ---- choosing ---- */
static const struct {
	u16 id;
	u8 elem, index; /* bytes */
} gathers[] = {
    {INSN_PGATHERDD, 4, 4}, {INSN_PGATHERDQ, 8, 4}, {INSN_PGATHERQD, 4, 8}, {INSN_PGATHERQQ, 8, 8},
    {INSN_GATHERDPS, 4, 4}, {INSN_GATHERDPD, 8, 4}, {INSN_GATHERQPS, 4, 8}, {INSN_GATHERQPD, 8, 8},
};

static u8 vex_register(const struct vcpu *cpu, u8 vvvv)
{
	return cpu->mode.code == INSN_MODE_64 ? vvvv : vvvv & 7;
}

static bool compile_gather(struct vcpu *cpu, const struct insn *in, struct iop *op)
{
	for (unsigned i = 0; i < ARRAY_SIZE(gathers); i++) {
		if (gathers[i].id != in->id)
			continue;
		op->aux[AUX_ELEM] = gathers[i].elem;
		op->aux[AUX_INDEX_SIZE] = gathers[i].index;
		op->aux[AUX_INDEX] = in->mem.index;
		op->index = INSN_NO_REG;
		op->aux[AUX_MASK] = vex_register(cpu, in->vvvv);
		op->fn = h_gather;
		return true;
	}
	return false;
}

/* MASKMOVPS & co. (map 0F38): 2C-2F, 8C, 8E. */
static bool compile_maskmov(struct vcpu *cpu, const struct insn *in, struct iop *op)
{
	bool q = in->id == INSN_MASKMOVPD || (in->id == INSN_PMASKMOVQ);

	if (in->id != INSN_MASKMOVPS && in->id != INSN_MASKMOVPD && in->id != INSN_PMASKMOVD &&
	    in->id != INSN_PMASKMOVQ)
		return false;
	op->aux[AUX_ELEM] = q ? 8 : 4;
	op->aux[AUX_MASK] = vex_register(cpu, in->vvvv);
	op->fn = in->op[0].kind == OPK_MEM ? h_mask_store : h_mask_load;
	return true;
}

static bool compile_bytes(struct vcpu *cpu, const struct insn *in, struct iop *op)
{
	u8 rm = (in->modrm & 7) | (in->rex & 1) << 3;

	if (in->id != INSN_MASKMOVDQU && in->id != INSN_MASKMOVQ)
		return false;
	op->base = R_DI; /* the memory operand is implicit: the caller knows only ModRM's */
	op->index = INSN_NO_REG;
	op->disp = 0;
	op->seg = in->prefixes & PFX_SEG ? in->mem.seg : SEG_DS;
	op->asize = in->adsize;
	if (op->seg == SEG_FS || op->seg == SEG_GS || (!cpu->mode.long64 && !cpu->mode.flat))
		op->flags |= IOP_SEGCHECK;
	op->aux[AUX_ELEM] = 1;
	op->aux[AUX_MASK] = rm;
	op->fn = in->id == INSN_MASKMOVQ ? h_maskmovq : h_maskmovdqu;
	if (in->id == INSN_MASKMOVQ)
		op->aux[AUX_VL] = 8;
	return true;
}

bool vec_compile_masked(struct vcpu *cpu, const struct insn *in, struct iop *op)
{
	op->dst = (in->modrm >> 3 & 7) | (in->rex & 4) << 1;
	op->aux[AUX_VL] = in->vl ? 32 : 16;
	return compile_gather(cpu, in, op) || compile_maskmov(cpu, in, op) || compile_bytes(cpu, in, op);
}
