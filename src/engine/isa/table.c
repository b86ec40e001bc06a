/*
 * The instruction table and its two lookup levels, all made from the same rows at compile time.
 *
 * Rows come from table_*.inc:
 *   R(space, opcode, prefix, name, class, feature, attributes, encoding, access, operands, flags)
 *   G(space, opcode, prefix, selector, ...)
 *     a row of a group; selector A(/r), M(/r) memory only, X(/r) registers only, XX(/r, rm) one register form
 * The row of an (opcode, prefix) cell is the last one listed for it; E_OR makes it fall back to the row
 * before. Row numbers are __COUNTER__ values, so the three inclusions below must expand each row exactly once.
 */
#include "engine/isa/table.h"

/* RFLAGS (SDM 1, 3.4.3) */
enum {
	CF = 0x1,
	PF = 0x4,
	AF = 0x10,
	ZF = 0x40,
	SF = 0x80,
	TF = 0x100,
	IF = 0x200,
	DF = 0x400,
	OF = 0x800,
	IOPL = 0x3000,
	NT = 0x4000,
	OSZAPC = OF | SF | ZF | AF | PF | CF,
	EVERY = OSZAPC | TF | IF | DF | IOPL | NT,
};

/* Flags column: read, written, undefined. */
#define FL(r, w, u) ((u64)(r) | (u64)(w) << 16 | (u64)(u) << 32)
#define FLW(fl, at) ((u64)(fl) >> (at) & 0xffff)
#define FL_0        0
#define FL_ARITH    FL(0, OSZAPC, 0)
#define FL_CARRY    FL(CF, OSZAPC, 0)
#define FL_LOGIC    FL(0, OF | SF | ZF | PF | CF, AF)
#define FL_INC      FL(0, OF | SF | ZF | AF | PF, 0)
#define FL_MUL      FL(0, OF | CF, SF | ZF | AF | PF)
#define FL_DIV      FL(0, 0, OSZAPC)
#define FL_ZF       FL(0, ZF, 0)
#define FL_ALL      FL(EVERY, EVERY, 0)

/* Access column. */
enum {
	AC_0 = 0,
	AC_R = 0x55,
	AC_W = 0x56,
	AC_RW = 0x57,
	AC_WW = 0x5a,
	AC_RWRW = 0x5f,
	AC_RWR_W = 0x77, /* third operand is written too: gather masks */
};

/* Operands column. */
#define O(...)              O_(__VA_ARGS__, 0, 0, 0, 0)
#define O_(a, b, c, d, ...) ((u64)(a) | (u64)(b) << 16 | (u64)(c) << 32 | (u64)(d) << 48)

#define FIX(reg, size) OS(PL_FIX, (reg) << 4 | (size))
/* clang-format off */
enum operand_spec {
	Eb = OS(PL_E, SZ_B), Ew = OS(PL_E, SZ_W), Ed = OS(PL_E, SZ_D), Eq = OS(PL_E, SZ_Q),
	Ev = OS(PL_E, SZ_V), Ey = OS(PL_E, SZ_Y),
	Edb = OS(PL_E, SZ_DB), Edw = OS(PL_E, SZ_DW), Evw = OS(PL_E, SZ_VW), Ezw = OS(PL_E, SZ_ZW),
	Ezd = OS(PL_E, SZ_ZD),
	Gb = OS(PL_G, SZ_B), Gw = OS(PL_G, SZ_W), Gd = OS(PL_G, SZ_D), Gv = OS(PL_G, SZ_V),
	Gz = OS(PL_G, SZ_Z), Gy = OS(PL_G, SZ_Y),
	Gm = OS(PL_G, SZ_M), Ga = OS(PL_G, SZ_AD),
	M0 = OS(PL_M, SZ_0), Mb = OS(PL_M, SZ_B), Mw = OS(PL_M, SZ_W), Md = OS(PL_M, SZ_D),
	Mq = OS(PL_M, SZ_Q), Mt = OS(PL_M, SZ_T),
	Mv = OS(PL_M, SZ_V), My = OS(PL_M, SZ_Y), Mp = OS(PL_M, SZ_P), Ma = OS(PL_M, SZ_A),
	Ms = OS(PL_M, SZ_S), Mdq = OS(PL_M, SZ_DQ),
	Mqq = OS(PL_M, SZ_QQ), Mx = OS(PL_M, SZ_X), Menv = OS(PL_M, SZ_ENV), Mfpu = OS(PL_M, SZ_FPU),
	Mfxs = OS(PL_M, SZ_FXS),
	M64b = OS(PL_M, SZ_64B),
	Rd = OS(PL_R, SZ_D), Rq = OS(PL_R, SZ_Q), Rv = OS(PL_R, SZ_V), Ry = OS(PL_R, SZ_Y),
	Rm = OS(PL_R, SZ_M),
	Sw = OS(PL_S, SZ_W), Cm = OS(PL_C, SZ_M), Dm = OS(PL_D, SZ_M),
	Zb = OS(PL_Z, SZ_B), Zv = OS(PL_Z, SZ_V),
	AL = FIX(0, SZ_B), CL = FIX(1, SZ_B), AX = FIX(0, SZ_W), DX = FIX(2, SZ_W), rAX = FIX(0, SZ_V),
	zAX = FIX(0, SZ_Z),
	ES = OS(PL_SEGFIX, SEG_ES), CS = OS(PL_SEGFIX, SEG_CS), SS = OS(PL_SEGFIX, SEG_SS),
	DS = OS(PL_SEGFIX, SEG_DS),
	FS = OS(PL_SEGFIX, SEG_FS), GS = OS(PL_SEGFIX, SEG_GS),
	Ib = OS(PL_I, SZ_B), Iw = OS(PL_I, SZ_W), Iv = OS(PL_I, SZ_V), sIb = OS(PL_SI, SZ_B),
	Iz = OS(PL_SI, SZ_Z), I2b = OS(PL_I2, SZ_B),
	I1 = OS(PL_ONE, SZ_B),
	Jb = OS(PL_J, SZ_B), Jz = OS(PL_J, SZ_Z), Ap = OS(PL_AP, SZ_P),
	Ob = OS(PL_O, SZ_B), Ov = OS(PL_O, SZ_V),
	ST0 = OS(PL_ST0, SZ_T), STi = OS(PL_STI, SZ_T), XMM0 = OS(PL_XMM0, SZ_DQ),
	By = OS(PL_BV, SZ_Y),
	Hx = OS(PL_H, SZ_X), Hdq = OS(PL_H, SZ_DQ), Hqq = OS(PL_H, SZ_QQ), Lx = OS(PL_L, SZ_X),
	Vx = OS(PL_V, SZ_X), Vdq = OS(PL_V, SZ_DQ), Vqq = OS(PL_V, SZ_QQ),
	Wx = OS(PL_W, SZ_X), Wdq = OS(PL_W, SZ_DQ), Wqq = OS(PL_W, SZ_QQ), Whx = OS(PL_W, SZ_HX),
	Wqx = OS(PL_W, SZ_QX),
	Wox = OS(PL_W, SZ_OX), Wss = OS(PL_W, SZ_SS), Wsd = OS(PL_W, SZ_SD), Wb = OS(PL_W, SZ_VB),
	Ww = OS(PL_W, SZ_VWD),
	Wdd = OS(PL_W, SZ_DDUP),
	Ux = OS(PL_U, SZ_X), Udq = OS(PL_U, SZ_DQ),
	Pq = OS(PL_P, SZ_Q), Qq = OS(PL_Q, SZ_Q), Qd = OS(PL_Q, SZ_D), Nq = OS(PL_N, SZ_Q),
	VMd = OS(PL_VM, SZ_D), VMq = OS(PL_VM, SZ_Q),
};

enum { PPV_ANY = 0, PPV_N66 = 0, PPV_REP = 0, PPV_NP = 0, PPV_66 = 1, PPV_F3 = 2, PPV_F2 = 3 };
#define PP_ANY [0 ... 3]
#define PP_N66 [0 ... 1]
#define PP_REP [2 ... 3]
#define PP_NP  [0]
#define PP_66  [1]
#define PP_F3  [2]
#define PP_F2  [3]

#define A(r)      [(r) * 9 ... (r) * 9 + 8]
#define M(r)      [(r) * 9]
#define X(r)      [(r) * 9 + 1 ... (r) * 9 + 8]
#define XX(r, rm) [(r) * 9 + 1 + (rm)]

#define NEEDS_MODRM_(spec) (OS_PLACE(spec) >= PL_MODRM)
#define NEEDS_MODRM(ops) \
	(NEEDS_MODRM_(FLW(ops, 0)) || NEEDS_MODRM_(FLW(ops, 16)) || NEEDS_MODRM_(FLW(ops, 32)) ? IA_MODRM : 0)
/* clang-format on */

enum group_slot {
#define SLOT(sp, op) S_##sp##_##op,
#include "engine/isa/table_slots.inc"
#undef SLOT
	SLOT_COUNT
};

#ifdef __clang__
#pragma GCC diagnostic ignored "-Winitializer-overrides"
#else
#pragma GCC diagnostic ignored "-Woverride-init"
#endif

#define ROW(pp, name, cls, feat, at, en, ac, op, fl)                                                         \
	{.d = {INSN_##name, IC_##cls, FEAT_##feat, (at), FLW(fl, 0), FLW(fl, 16), FLW(fl, 32)},              \
	 .ops = (op),                                                                                        \
	 .enc = (en) | PPV_##pp,                                                                             \
	 .acc = AC_##ac},

const struct insn_row insn_rows[] = {
    {.d = {.id = INSN_INVALID}},
#define R(sp, op, pp, name, cls, feat, at, en, ac, ops, fl)                                                  \
	ROW(pp, name, cls, feat, (at) | NEEDS_MODRM(ops), en, ac, ops, fl)
#define G(sp, op, pp, sel, name, cls, feat, at, en, ac, ops, fl)                                             \
	ROW(pp, name, cls, feat, (at) | IA_MODRM, en, ac, ops, fl)
#include "engine/isa/table_all.inc"
#undef R
#undef G
};

enum { LEVEL1_BASE = __COUNTER__ };
const u16 insn_level1[SP_COUNT][256][4] = {
#define R(sp, op, pp, ...) [SP_##sp][op] PP_##pp = __COUNTER__ - LEVEL1_BASE,
#define G(sp, op, ...)     [SP_##sp][op][0 ... 3] = GROUP_FLAG | S_##sp##_##op | 0 * __COUNTER__,
#include "engine/isa/table_all.inc"
#undef R
#undef G
};

enum { LEVEL2_BASE = __COUNTER__ };
const u16 insn_level2[SLOT_COUNT][4][GROUP_SIZE] = {
#define R(sp, op, pp, ...)      [SLOT_COUNT - 1][0][GROUP_SIZE - 1] = 0 * __COUNTER__,
#define G(sp, op, pp, sel, ...) [S_##sp##_##op] PP_##pp sel = __COUNTER__ - LEVEL2_BASE,
#include "engine/isa/table_all.inc"
#undef R
#undef G
};

_Static_assert(ARRAY_SIZE(insn_rows) < GROUP_FLAG, "row numbers and group slots share 16 bits");
