/* BT BTS BTR BTC. With a register bit offset the memory operand is a bit string: the offset reaches beyond it. */
#include "engine/interp/hostop.h"
#include "engine/interp/interp_int.h"

#define HOST_BITOP(name, bits, insn)                                                                             \
	static inline u##bits host_##name##bits(u64 *fl, u##bits a, u##bits n)                                   \
	{                                                                                                        \
		u32 ax = flags_to_ax(*fl);                                                                       \
		__asm__(LOAD_FLAGS insn " %2, %1\n\t" SAVE_FLAGS : "+&a"(ax), "+r"(a) : "r"(n) : "cc");          \
		*fl = flags_merge(*fl, ax);                                                                      \
		return a;                                                                                        \
	}                                                                                                        \
	static inline void host_lock_##name##bits(u64 *fl, u##bits *p, u##bits n)                                \
	{                                                                                                        \
		u32 ax = flags_to_ax(*fl);                                                                       \
		__asm__ volatile(LOAD_FLAGS "lock " insn " %2, %1\n\t" SAVE_FLAGS                                \
				 : "+&a"(ax), "+m"(*p) : "r"(n) : "cc", "memory");                               \
		*fl = flags_merge(*fl, ax);                                                                      \
	}
HOST_WIDE(HOST_BITOP, bts, "bts")
HOST_WIDE(HOST_BITOP, btr, "btr")
HOST_WIDE(HOST_BITOP, btc, "btc")

static inline u64 bt_value(u64 *fl, u64 v, u64 n, unsigned size)
{
	u64 bit = v >> (n & (8 * size - 1)) & 1;

	*fl = (*fl & ~(u64)FL_CF) | bit;
	return v;
}

/* Bit number: the register, or the immediate. */
static inline s64 bit_offset(const struct vcpu *cpu, const struct iop *op)
{
	if (op->aux[0])
		return (s64)op->imm & (8 * op->size - 1);
	return op->size == 8 ? (s64)cpu->gpr[op->src] : op->size == 4 ? (s32)cpu->gpr[op->src] : (s16)cpu->gpr[op->src];
}

/* The operand that holds the bit. */
static gva_t bit_address(struct vcpu *cpu, const struct iop *op, s64 bit, bool write)
{
	u64 shift = op->size == 8 ? 6 : op->size == 4 ? 5 : 4;
	u64 off = iop_ea_offset(cpu, op) + (u64)((bit >> shift) * op->size);

	off = op->asize == 8 ? off : op->asize == 4 ? (u32)off : (u16)off;
	if (op->flags & IOP_SEGBASE)
		return off + cpu->seg[op->seg].base;
	if (op->flags & IOP_SEGCHECK || (off + op->size > BIT64(32) && !cpu->mode.long64))
		return seg_linear(cpu, op->seg, off, op->size, write);
	return off;
}

static void bt_reg(struct vcpu *cpu, const struct iop *op)
{
	bt_value(&cpu->rflags, gpr_read(cpu, op->dst, op->size), (u64)bit_offset(cpu, op), op->size);
	NEXT(cpu, op);
}

static void bt_mem(struct vcpu *cpu, const struct iop *op)
{
	s64 bit = bit_offset(cpu, op);
	u64 v = mem_read(cpu, bit_address(cpu, op, bit, false), op->size);

	bt_value(&cpu->rflags, v, (u64)bit, op->size);
	NEXT(cpu, op);
}

#define BIT_FORMS(name, bits)                                                                                    \
	static void name##bits##_r(struct vcpu *cpu, const struct iop *op)                                       \
	{                                                                                                        \
		u##bits r = host_##name##bits(&cpu->rflags, RD##bits(cpu, op->dst), (u##bits)bit_offset(cpu, op)); \
		WR##bits(cpu, op->dst, r);                                                                       \
		NEXT(cpu, op);                                                                                   \
	}                                                                                                        \
	static void name##bits##_m(struct vcpu *cpu, const struct iop *op)                                       \
	{                                                                                                        \
		s64 n = bit_offset(cpu, op);                                                                     \
		gva_t a = bit_address(cpu, op, n, true);                                                         \
		u##bits *p = mmu_rmw_ptr(cpu, a, bits / 8);                                                      \
		bool lock = op->flags & IOP_LOCK;                                                                \
		u64 fl = cpu->rflags;                                                                            \
		n &= bits - 1; /* the host's own memory form must stay in the operand */                         \
		if (likely(p)) {                                                                                 \
			if (lock)                                                                                \
				host_lock_##name##bits(&fl, p, n);                                               \
			else                                                                                     \
				*p = host_##name##bits(&fl, *p, n);                                              \
		} else {                                                                                         \
			u##bits v = rmw_begin(cpu, a, bits / 8, lock);                                           \
			rmw_end(cpu, a, host_##name##bits(&fl, v, n), bits / 8, lock);                           \
		}                                                                                                \
		cpu->rflags = fl;                                                                                \
		NEXT(cpu, op);                                                                             \
	}
#define WIDE(M, name) M(name, 16) M(name, 32) M(name, 64)
WIDE(BIT_FORMS, bts)
WIDE(BIT_FORMS, btr)
WIDE(BIT_FORMS, btc)

#define ROW(name) { {name##16_r, name##16_m}, {name##32_r, name##32_m}, {name##64_r, name##64_m} }
static iop_fn *const bit_table[3][3][2] = {ROW(bts), ROW(btr), ROW(btc)};

bool compile_bit(struct vcpu *cpu, const struct insn *in, struct iop *op)
{
	bool mem = in->op[0].kind == OPK_MEM;
	unsigned n = in->id == INSN_BTS ? 0 : in->id == INSN_BTR ? 1 : 2;

	op->size = in->op[0].size;
	if (!mem)
		op->dst = in->op[0].reg;
	op->aux[0] = in->op[1].kind == OPK_IMM;
	op->imm = in->imm;
	op->src = in->op[1].reg;
	if (in->id == INSN_BT)
		op->fn = mem ? bt_mem : bt_reg;
	else
		op->fn = bit_table[n][size_row(op->size) - 1][mem];
	return true;
}
