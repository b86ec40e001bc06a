/*
 * The instruction table's encoding columns, private to table.c, decode.c, operand.c, format.c and the re-encoder.
 *
 * Operands are written in the notation of SDM 2D appendix A: a capital letter for the place (E: ModRM.rm
 * register or memory, G: ModRM.reg, ...) and lower case for the size (b 1, w 2, d 4, q 8, dq 16, qq 32, v
 * operand size, x vector length, ...).
 */
#ifndef ENGINE_ISA_TABLE_H
#define ENGINE_ISA_TABLE_H

#include "engine/isa/insn.h"

/*
 * With 66h, near branches in 64-bit mode have 16-bit operand size on AMD and ignore the prefix on Intel. The
 * guest runs vector code on the host CPU, sees its identity, and so gets the host's behaviour: AMD.
 */
#define NEAR_BRANCH_66_IS_16BIT 1
#define IA_NEAR                 (IA_BRANCH | IA_DEF64 | (NEAR_BRANCH_66_IS_16BIT ? 0 : IA_FORCE64))

/* AMD has no 64-bit far pointers in memory (APM 3, LFS and JMP FAR): with REX.W the offset stays 32 bits
 * wide. */
#define FAR_POINTER_64 0
#define E_FARW         (FAR_POINTER_64 ? 0 : E_NOW)

enum table_space { SP_M1, SP_M0F, SP_M38, SP_M3A, SP_V0F, SP_V38, SP_V3A, SP_COUNT };

/* Size codes: what selects the column (top bits), and a number. */
enum size_by { BY_OPSIZE, BY_VL, BY_MODE, BY_ADSIZE };
#define SZC(by, n) ((by) << 6 | (n))
enum size_code {
	SZ_0 = SZC(BY_OPSIZE, 0),
	SZ_B,
	SZ_W,
	SZ_D,
	SZ_Q,
	SZ_T,
	SZ_V,   /* 2 4 8 */
	SZ_Z,   /* 2 4 4 */
	SZ_Y,   /* 4 4 8 */
	SZ_P,   /* far pointer */
	SZ_A,   /* two bounds */
	SZ_DB,  /* 32-bit register or byte of memory */
	SZ_DW,  /* 32-bit register or word of memory */
	SZ_VW,  /* operand-size register or word of memory */
	SZ_ZW,  /* 16- or 32-bit register or word of memory */
	SZ_ZD,  /* 16- or 32-bit register or doubleword of memory */
	SZ_ENV, /* x87 environment */
	SZ_FPU, /* x87 state */
	SZ_FXS, /* FXSAVE area */
	SZ_64B, /* 64 bytes */
	SZ_DQ,
	SZ_QQ,
	SZ_SS,
	SZ_SD,
	SZ_VB,
	SZ_VWD, /* vector register or 4, 8, 1, 2 bytes of memory */
	SZ_X = SZC(BY_VL, 26),
	SZ_HX,                   /* half of it; as a register XMM */
	SZ_QX,                   /* a quarter */
	SZ_OX,                   /* an eighth */
	SZ_DDUP,                 /* MOVDDUP: 8 or 32 */
	SZ_M = SZC(BY_MODE, 31), /* 8 in 64-bit mode, else 4 */
	SZ_S,                    /* descriptor table register: 10 or 6 */
	SZ_AD = SZC(BY_ADSIZE, 33),
	SZ_NUM = 34,
};

enum operand_place {
	PL_NONE,
	PL_Z,   /* register in the low three opcode bits */
	PL_FIX, /* a fixed general register: argument is reg << 4 | size index */
	PL_SEGFIX,
	PL_I,     /* immediate, zero-extended */
	PL_SI,    /* immediate, sign-extended */
	PL_I2,    /* second immediate (byte) */
	PL_ONE,   /* the constant 1 of D0, D1 */
	PL_J,     /* relative branch */
	PL_AP,    /* direct far pointer */
	PL_O,     /* moffs */
	PL_ST0,   /* x87 top of stack */
	PL_XMM0,  /* implicit XMM0 */
	PL_H,     /* VEX.vvvv vector register */
	PL_BV,    /* VEX.vvvv general register */
	PL_L,     /* vector register in imm8[7:4] */
	PL_MODRM, /* from here on ModRM is needed */
	PL_E = PL_MODRM,
	PL_G,
	PL_M,
	PL_R,
	PL_S,
	PL_C,
	PL_D,
	PL_V,
	PL_W,
	PL_U,
	PL_P,
	PL_Q,
	PL_N,
	PL_STI, /* ST(ModRM.rm) */
	PL_VM,  /* memory with a vector index */
};

#define OS(place, arg) ((place) << 8 | (arg))
#define OS_PLACE(spec) ((spec) >> 8 & 0xff)
#define OS_ARG(spec)   ((spec)&0xff)

/* Encoding constraints and oddities of a row. */
enum insn_enc {
	E_PP = 0x3,   /* the mandatory prefix, as in insn.pp */
	E_B = 0x4,    /* byte operation: opsize is 1 */
	E_MEM = 0x8,  /* ModRM.mod != 3 */
	E_REG = 0x10, /* ModRM.mod == 3 */
	E_L0 = 0x20,  /* VEX.L */
	E_L1 = 0x40,
	E_W0 = 0x80, /* REX.W, VEX.W */
	E_W1 = 0x100,
	E_WG = 0x200,        /* ... W is a general register's size and counts in 64-bit mode only */
	E_OR = 0x400,        /* if this row's constraints fail, the row before is tried */
	E_CNT0 = 0x800,      /* a shift count of 0 (masked) selects the row before */
	E_MODIGN = 0x1000,   /* ModRM.mod is ignored: always a register */
	E_CC = 0x2000,       /* condition in the low four opcode bits */
	E_NOB = 0x4000,      /* REX.B must be 0 */
	E_DISTINCT = 0x8000, /* gather: the three vector registers must differ */
	E_SI = 0x10000,      /* implicit memory DS:rSI, override applies */
	E_DI = 0x20000,      /* implicit memory ES:rDI */
	E_DDI = 0x30000,     /* implicit memory DS:rDI, override applies */
	E_BX = 0x40000,      /* implicit memory DS:rBX + AL, override applies */
	E_AX = 0x50000,      /* implicit memory DS:rAX, override applies */
	E_IMEM = 0x70000,
	E_Y = 0x80000,    /* operand size is 32 bits, or 64 with REX.W */
	E_NOW = 0x100000, /* REX.W does not widen the operand */
};

struct insn_row {
	struct insn_desc d;
	u64 ops; /* four operand specs, 16 bits each, first one lowest */
	u32 enc;
	u8 acc; /* enum operand_access of each operand, two bits each, first one lowest */
};

#define GROUP_FLAG 0x8000
#define GROUP_SIZE 72 /* per ModRM.reg one entry for memory and eight for registers */

extern const struct insn_row insn_rows[];
extern const u16 insn_level1[SP_COUNT][256][4];
extern const u16 insn_level2[][4][GROUP_SIZE];

#endif
