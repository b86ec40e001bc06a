/*
 * MOVS STOS LODS CMPS SCAS. Repeated ones work page by page with the host's own string instructions where they can, and
 * element by element otherwise; between pieces all registers are exact, so that interrupts and faults find RIP at the
 * instruction and the rest of the work in rCX, rSI, rDI.
 */
#include "engine/interp/hostop.h"
#include "engine/interp/interp_int.h"

enum repeat { REP_NONE, REP_WHILE_EQUAL, REP_WHILE_UNEQUAL };

static u64 string_offset(const struct vcpu *cpu, const struct iop *op, unsigned reg)
{
	return gpr_read(cpu, reg, op->asize);
}

static gva_t string_linear(struct vcpu *cpu, const struct iop *op, unsigned seg, u64 off, bool write)
{
	if (!cpu->mode.long64)
		return seg_linear(cpu, seg, off, op->size, write);
	return seg >= SEG_FS ? off + cpu->seg[seg].base : off;
}

static gva_t source(struct vcpu *cpu, const struct iop *op)
{
	return string_linear(cpu, op, op->seg, string_offset(cpu, op, R_SI), false);
}

static gva_t target(struct vcpu *cpu, const struct iop *op, bool write)
{
	return string_linear(cpu, op, SEG_ES, string_offset(cpu, op, R_DI), write);
}

static void advance(struct vcpu *cpu, const struct iop *op, unsigned reg, u64 items)
{
	u64 bytes = items * op->size;

	gpr_write(cpu, reg, cpu->gpr[reg] + (cpu->rflags & FL_DF ? -bytes : bytes), op->asize);
}

/* ---- one element; false ends a repeated comparison ---- */

typedef bool string_once(struct vcpu *cpu, const struct iop *op);

static bool movs_once(struct vcpu *cpu, const struct iop *op)
{
	u64 v = mem_read(cpu, source(cpu, op), op->size);

	mem_write(cpu, target(cpu, op, true), v, op->size);
	advance(cpu, op, R_SI, 1);
	advance(cpu, op, R_DI, 1);
	return true;
}

static bool stos_once(struct vcpu *cpu, const struct iop *op)
{
	mem_write(cpu, target(cpu, op, true), cpu->gpr[R_AX], op->size);
	advance(cpu, op, R_DI, 1);
	return true;
}

static bool lods_once(struct vcpu *cpu, const struct iop *op)
{
	gpr_write(cpu, R_AX, mem_read(cpu, source(cpu, op), op->size), op->size);
	advance(cpu, op, R_SI, 1);
	return true;
}

static bool compare(struct vcpu *cpu, const struct iop *op, u64 a, u64 b)
{
	if (op->size == 8)
		host_cmp64(&cpu->rflags, a, b);
	else if (op->size == 4)
		host_cmp32(&cpu->rflags, a, b);
	else if (op->size == 2)
		host_cmp16(&cpu->rflags, a, b);
	else
		host_cmp8(&cpu->rflags, a, b);
	return !!(cpu->rflags & FL_ZF) == (op->aux[0] == REP_WHILE_EQUAL);
}

static bool cmps_once(struct vcpu *cpu, const struct iop *op)
{
	u64 a = mem_read(cpu, source(cpu, op), op->size);
	u64 b = mem_read(cpu, target(cpu, op, false), op->size);

	advance(cpu, op, R_SI, 1);
	advance(cpu, op, R_DI, 1);
	return compare(cpu, op, a, b);
}

static bool scas_once(struct vcpu *cpu, const struct iop *op)
{
	u64 b = mem_read(cpu, target(cpu, op, false), op->size);

	advance(cpu, op, R_DI, 1);
	return compare(cpu, op, gpr_read(cpu, R_AX, op->size), b);
}

/* ---- many elements at once; returns how many, 0 if it must go one by one ---- */

typedef u64 string_bulk(struct vcpu *cpu, const struct iop *op, u64 count);

/* Elements up to the end of the page at a, and before the offset register wraps. */
static u64 items_in_page(const struct iop *op, gva_t a, u64 off, u64 count)
{
	u64 room = PAGE_SIZE - (a & ~PAGE_MASK);
	u64 wrap = op->asize == 8 ? ~0ull : op->asize == 4 ? 0x100000000ull - off : 0x10000 - off;

	return MIN(count, MIN(room, wrap) / op->size);
}

static u64 movs_bulk(struct vcpu *cpu, const struct iop *op, u64 count)
{
	gva_t from = source(cpu, op), to;
	const u8 *s;
	u8 *d;
	u64 n, bytes;

	count = items_in_page(op, from, string_offset(cpu, op, R_SI), count);
	if (!count || !(s = mmu_ptr(cpu, from, op->size, ACC_READ, cpu->mode.mmu_idx)))
		return 0;
	to = target(cpu, op, true);
	n = items_in_page(op, to, string_offset(cpu, op, R_DI), count);
	if (!n || !(d = mmu_ptr(cpu, to, (unsigned)(n * op->size), ACC_WRITE, cpu->mode.mmu_idx)))
		return 0;
	bytes = n * op->size;
	/* In steps of the element size, as overlapping strings see it. */
	if (d - s >= (s64)bytes || s >= d || op->size == 1)
		__asm__ volatile("rep movsb" : "+D"(d), "+S"(s), "+c"(bytes) : : "memory");
	else if (op->size == 2)
		__asm__ volatile("rep movsw" : "+D"(d), "+S"(s), "=c"(bytes) : "2"(n) : "memory");
	else if (op->size == 4)
		__asm__ volatile("rep movsl" : "+D"(d), "+S"(s), "=c"(bytes) : "2"(n) : "memory");
	else
		__asm__ volatile("rep movsq" : "+D"(d), "+S"(s), "=c"(bytes) : "2"(n) : "memory");
	advance(cpu, op, R_SI, n);
	advance(cpu, op, R_DI, n);
	return n;
}

static u64 stos_bulk(struct vcpu *cpu, const struct iop *op, u64 count)
{
	gva_t to = target(cpu, op, true);
	u64 n = items_in_page(op, to, string_offset(cpu, op, R_DI), count), left = n, v = cpu->gpr[R_AX];
	u8 *d;

	if (!n || !(d = mmu_ptr(cpu, to, (unsigned)(n * op->size), ACC_WRITE, cpu->mode.mmu_idx)))
		return 0;
	if (op->size == 1)
		__asm__ volatile("rep stosb" : "+D"(d), "+c"(left) : "a"(v) : "memory");
	else if (op->size == 2)
		__asm__ volatile("rep stosw" : "+D"(d), "+c"(left) : "a"(v) : "memory");
	else if (op->size == 4)
		__asm__ volatile("rep stosl" : "+D"(d), "+c"(left) : "a"(v) : "memory");
	else
		__asm__ volatile("rep stosq" : "+D"(d), "+c"(left) : "a"(v) : "memory");
	advance(cpu, op, R_DI, n);
	return n;
}

/* ---- repetition ---- */

/* True: the instruction is complete. */
static bool repeat(struct vcpu *cpu, const struct iop *op, string_once *once, string_bulk *bulk)
{
	bool single = cpu->icache->stepping || (cpu->rflags & FL_DF) || !cpu->mode.flat;
	u64 count = gpr_read(cpu, R_CX, op->asize);

	while (count) {
		u64 n = bulk && !single && count > 1 ? bulk(cpu, op, count) : 0;
		bool more = true;

		if (!n) {
			more = once(cpu, op);
			n = 1;
		}
		count -= n;
		gpr_write(cpu, R_CX, count, op->asize);
		if (!more)
			return true;
		if (count && (cpu->icache->stepping || attention(cpu)))
			return false;
	}
	return true;
}

#define STRING_OP(name, bulk)                                                                                    \
	static void name##_rep(struct vcpu *cpu, const struct iop *op)                                           \
	{                                                                                                        \
		if (!repeat(cpu, op, name##_once, bulk))                                                         \
			return iop_again(cpu, op);                                                               \
		NEXT(cpu, op);                                                                                   \
	}                                                                                                        \
	static void name(struct vcpu *cpu, const struct iop *op)                                                 \
	{                                                                                                        \
		name##_once(cpu, op);                                                                            \
		NEXT(cpu, op);                                                                                   \
	}
STRING_OP(movs, movs_bulk)
STRING_OP(stos, stos_bulk)
STRING_OP(lods, NULL)
STRING_OP(cmps, NULL)
STRING_OP(scas, NULL)

bool compile_string(struct vcpu *cpu, const struct insn *in, struct iop *op)
{
	bool rep = in->prefixes & (PFX_REP | PFX_REPNE);

	op->size = in->opsize;
	op->seg = in->mem.seg;
	op->aux[0] = in->prefixes & PFX_REPNE ? REP_WHILE_UNEQUAL : rep ? REP_WHILE_EQUAL : REP_NONE;
	switch (in->id) {
	case INSN_MOVS:
		op->fn = rep ? movs_rep : movs;
		break;
	case INSN_STOS:
		op->fn = rep ? stos_rep : stos;
		break;
	case INSN_LODS:
		op->fn = rep ? lods_rep : lods;
		break;
	case INSN_CMPS:
		op->fn = rep ? cmps_rep : cmps;
		break;
	default:
		op->fn = rep ? scas_rep : scas;
		break;
	}
	return true;
}
