/* Bit scans and counts, BMI1, BMI2, ADX, CRC32: each runs as itself on the host. */
#include "engine/interp/hostop.h"
#include "engine/interp/interp_int.h"

/* dst: old value of the destination; a, b: the sources in Intel order */
typedef u64 bit_fn(u64 *fl, u64 dst, u64 a, u64 b);

#define ONE_SOURCE(name, bits, insn)                                                                             \
	static u64 name##bits(u64 *fl, u64 dst, u64 a, u64 b)                                                    \
	{                                                                                                        \
		u32 ax = flags_to_ax(*fl);                                                                       \
		u##bits d = dst, s = a;                                                                          \
		__asm__(LOAD_FLAGS insn " %2, %1\n\t" SAVE_FLAGS : "+&a"(ax), "+r"(d) : "r"(s) : "cc");          \
		*fl = flags_merge(*fl, ax);                                                                      \
		return d;                                                                                        \
	}
#define TWO_SOURCES(name, bits, insn)                                                                            \
	static u64 name##bits(u64 *fl, u64 dst, u64 a, u64 b)                                                    \
	{                                                                                                        \
		u32 ax = flags_to_ax(*fl);                                                                       \
		u##bits d, s = a, t = b;                                                                         \
		__asm__(LOAD_FLAGS insn " %3, %2, %1\n\t" SAVE_FLAGS                                             \
			: "+&a"(ax), "=&r"(d) : "r"(s), "r"(t) : "cc");                                          \
		*fl = flags_merge(*fl, ax);                                                                      \
		return d;                                                                                        \
	}
#define SCANS(name)                                                                                              \
	ONE_SOURCE(name, 16, #name "w") ONE_SOURCE(name, 32, #name "l") ONE_SOURCE(name, 64, #name "q")
#define ONE(name) ONE_SOURCE(name, 32, #name "l") ONE_SOURCE(name, 64, #name "q")
#define TWO(name) TWO_SOURCES(name, 32, #name "l") TWO_SOURCES(name, 64, #name "q")

SCANS(bsf)
SCANS(bsr)
SCANS(tzcnt)
SCANS(lzcnt)
SCANS(popcnt)
ONE(blsi)
ONE(blsr)
ONE(blsmsk)
ONE(adcx)
ONE(adox)
TWO(andn)
TWO(bextr)
TWO(bzhi)
TWO(pdep)
TWO(pext)
TWO(sarx)
TWO(shlx)
TWO(shrx)

static u64 rorx32(u64 *fl, u64 dst, u64 a, u64 b)
{
	b &= 31;
	return (u32)((u32)a >> b | (u64)(u32)a << (32 - b));
}

static u64 rorx64(u64 *fl, u64 dst, u64 a, u64 b)
{
	b &= 63;
	return b ? a >> b | a << (64 - b) : a;
}

/* Source size 1 2 4 8 */
#define CRC(name, insn, type, wide)                                                                              \
	static u64 name(u64 *fl, u64 dst, u64 a, u64 b)                                                          \
	{                                                                                                        \
		wide d = dst;                                                                                    \
		__asm__(insn " %1, %0" : "+r"(d) : "r"((type)a));                                                \
		return d;                                                                                        \
	}
CRC(crc32_8, "crc32b", u8, u32)
CRC(crc32_16, "crc32w", u16, u32)
CRC(crc32_32, "crc32l", u32, u32)
CRC(crc32_64, "crc32q", u64, u64)

static bit_fn *const crc_table[4] = {crc32_8, crc32_16, crc32_32, crc32_64};

#define ROW3(name) {name##16, name##32, name##64}
#define ROW2(name) {NULL, name##32, name##64}
static bit_fn *const bit_fns[INSN_COUNT][3] = {
	[INSN_BSF] = ROW3(bsf), [INSN_BSR] = ROW3(bsr), [INSN_TZCNT] = ROW3(tzcnt), [INSN_LZCNT] = ROW3(lzcnt),
	[INSN_POPCNT] = ROW3(popcnt), [INSN_BLSI] = ROW2(blsi), [INSN_BLSR] = ROW2(blsr),
	[INSN_BLSMSK] = ROW2(blsmsk), [INSN_ADCX] = ROW2(adcx), [INSN_ADOX] = ROW2(adox), [INSN_ANDN] = ROW2(andn),
	[INSN_BEXTR] = ROW2(bextr), [INSN_BZHI] = ROW2(bzhi), [INSN_PDEP] = ROW2(pdep), [INSN_PEXT] = ROW2(pext),
	[INSN_SARX] = ROW2(sarx), [INSN_SHLX] = ROW2(shlx), [INSN_SHRX] = ROW2(shrx), [INSN_RORX] = ROW2(rorx),
};

/* aux: kinds and sizes of the two sources */
static u64 operand(struct vcpu *cpu, const struct iop *op, unsigned kind, unsigned reg, unsigned size)
{
	if (kind == OPK_GPR)
		return gpr_read(cpu, reg, size);
	if (kind == OPK_MEM)
		return mem_read(cpu, iop_ea(cpu, op, size, false), size);
	return op->imm;
}

static void bit_op(struct vcpu *cpu, const struct iop *op)
{
	u64 a = operand(cpu, op, op->aux[0], op->src, op->aux[1]);
	u64 b = operand(cpu, op, op->aux[2], op->aux[3], op->aux[4]);
	u64 r = ((bit_fn *)op->ptr)(&cpu->rflags, cpu->gpr[op->dst], a, b);

	gpr_write(cpu, op->dst, r, op->size);
	NEXT(cpu, op);
}

/* BSF, BSR: of 0 they leave the whole destination alone (APM 3). */
static void scan(struct vcpu *cpu, const struct iop *op)
{
	u64 a = operand(cpu, op, op->aux[0], op->src, op->aux[1]);
	u64 r = ((bit_fn *)op->ptr)(&cpu->rflags, cpu->gpr[op->dst], a, 0);

	if (a)
		gpr_write(cpu, op->dst, r, op->size);
	NEXT(cpu, op);
}

/* MULX: high half to dst, low half to aux[3]; if they are the same register the high half stays. */
static void mulx(struct vcpu *cpu, const struct iop *op)
{
	u64 s = operand(cpu, op, op->aux[0], op->src, op->size);
	unsigned __int128 p = 0;

	if (op->size == 8) {
		p = (unsigned __int128)s * cpu->gpr[R_DX];
		cpu->gpr[op->aux[3]] = (u64)p;
		cpu->gpr[op->dst] = (u64)(p >> 64);
	} else {
		u64 q = s * RD32(cpu, R_DX);

		WR32(cpu, op->aux[3], q);
		WR32(cpu, op->dst, q >> 32);
	}
	NEXT(cpu, op);
}

bool compile_bmi(struct vcpu *cpu, const struct insn *in, struct iop *op)
{
	const struct insn_operand *a = &in->op[1], *b = &in->op[2];

	op->size = in->op[0].size;
	op->dst = in->op[0].reg;
	op->imm = in->imm;
	if (in->id == INSN_MULX) {
		op->aux[0] = b->kind;
		op->src = b->reg;
		op->aux[3] = a->reg;
		op->fn = mulx;
		return true;
	}
	op->aux[0] = a->kind;
	op->aux[1] = a->size;
	op->src = a->kind == OPK_GPR ? reg_code(a) : 0;
	op->aux[2] = in->nops > 2 ? b->kind : OPK_IMM;
	op->aux[3] = b->reg;
	op->aux[4] = b->size;
	op->ptr = in->id == INSN_CRC32 ? crc_table[size_row(a->size)] : bit_fns[in->id][size_row(op->size) - 1];
	op->fn = in->id == INSN_BSF || in->id == INSN_BSR ? scan : bit_op;
	return op->ptr;
}
