/*
 * A decoded x86-64 instruction and the property table that interpreter, translator and tests share.
 *
 * insn_decode() is pure: bytes in, struct insn out. It never touches guest state.
 */
#ifndef ENGINE_ISA_INSN_H
#define ENGINE_ISA_INSN_H

#include "base/types.h"

#define INSN_MAX_LEN 15

enum insn_mode { INSN_MODE_16, INSN_MODE_32, INSN_MODE_64 };

/* Prefix bits as met in the byte stream. */
enum insn_prefix {
	PFX_LOCK = 0x01,
	PFX_REPNE = 0x02, /* F2, the last of F2/F3 wins */
	PFX_REP = 0x04,   /* F3 */
	PFX_OPSIZE = 0x08,
	PFX_ADSIZE = 0x10,
	PFX_SEG = 0x20,
	PFX_REX = 0x40,
	PFX_VEX = 0x80,
};

enum seg_index { SEG_ES, SEG_CS, SEG_SS, SEG_DS, SEG_FS, SEG_GS, SEG_LDTR, SEG_TR, SEG_COUNT };

enum operand_kind {
	OPK_NONE,
	OPK_GPR,   /* reg = 0..15; high8 set for AH CH DH BH (then reg = 0..3) */
	OPK_MEM,   /* insn.mem describes it */
	OPK_IMM,   /* value in insn.imm (sign- or zero-extended as the instruction says); second in insn.imm2 */
	OPK_REL,   /* branch displacement in insn.imm, sign-extended */
	OPK_FAR,   /* ptr16:16/32: offset in insn.imm, selector in insn.imm2 */
	OPK_SREG,  /* reg = enum seg_index */
	OPK_CR,
	OPK_DR,
	OPK_MMX,   /* 0..7 */
	OPK_XMM,   /* 0..15 (31 with EVEX) */
	OPK_YMM,
	OPK_ST,    /* x87 stack register ST(reg) */
};

enum operand_access { OPA_READ = 1, OPA_WRITE = 2 };

struct insn_operand {
	u8 kind;   /* enum operand_kind */
	u8 reg;
	u8 size;   /* bytes; 0 where the notion makes no sense (FXSAVE area etc.: see insn.mem.size) */
	u8 access; /* enum operand_access bits */
	bool high8;
	bool implicit; /* not encoded (e.g. AL in ADD AL, imm8) */
};

#define INSN_NO_REG 0xff

struct insn_mem {
	u8 seg;    /* effective enum seg_index, override applied */
	u8 base;   /* GPR number or INSN_NO_REG */
	u8 index;  /* GPR number (XMM number for VSIB) or INSN_NO_REG */
	u8 scale;  /* 1 2 4 8 */
	bool rip_relative;
	bool vsib;
	u16 size;  /* bytes accessed; 0: none (LEA, INVLPG, NOP) or depends on state (XSAVE) */
	s64 disp;  /* sign-extended; for moffs the full address */
};

/* Coarse class: says who executes it. */
enum insn_class {
	IC_INT,    /* integer, control flow: C handlers */
	IC_SYS,    /* privileged, segmentation, state */
	IC_X87,    /* the host CPU runs these four groups on the guest's own vector state */
	IC_MMX,
	IC_SSE,
	IC_AVX,
};

/* Row attributes. */
enum insn_attr {
	IA_PRIV = 0x0001,      /* CPL 0 only */
	IA_NO64 = 0x0002,      /* #UD in 64-bit mode */
	IA_ONLY64 = 0x0004,    /* #UD outside 64-bit mode */
	IA_DEF64 = 0x0008,     /* operand size defaults to 64 in 64-bit mode (PUSH, near branches ...) */
	IA_FORCE64 = 0x0010,   /* ... and 66h is ignored for it */
	IA_LOCKABLE = 0x0020,  /* LOCK allowed with a memory destination */
	IA_BRANCH = 0x0040,    /* changes RIP (ends a block): jumps, calls, returns, syscalls, iret, int */
	IA_COND = 0x0080,      /* conditional: may fall through */
	IA_ENDBLOCK = 0x0100,  /* must end a block though it does not jump (mode or mapping may change): mov crN, wrmsr, popf, sti, hlt, ... */
	IA_STRING = 0x0200,    /* REP forms exist */
	IA_ALIGN16 = 0x0400,   /* legacy SSE memory operand: #GP(0) unless aligned to its size; VEX: only aligned moves */
	IA_NOPE = 0x0800,      /* #UD in real and V86 mode */
	IA_IOPL = 0x1000,      /* IOPL-sensitive: cli sti in out ins outs (pushf popf iret int in V86) */
	IA_GPR_FLAGS = 0x2000, /* IC_SSE/AVX/MMX that also reads or writes a GPR or RFLAGS */
	IA_MODRM = 0x4000,
	IA_ALIGN_ANY = 0x8000, /* explicitly aligned access also with VEX (MOVAPS, MOVNTDQ, ...) */
};

/* CPUID feature an instruction needs (enum insn_feature in isa/feature.h maps it to leaf and bit). */
#include "engine/isa/feature.h"

/* One name per instruction, Intel mnemonics: INSN_ADD, INSN_JCC (all conditions: cond in insn.cond), INSN_CMOVCC,
 * INSN_SETCC, INSN_MOV, INSN_MOV_SREG, INSN_MOV_CR, INSN_MOV_DR, INSN_MOVS, INSN_INS, ... from isa/mnemonics.inc. */
enum insn_id {
	INSN_INVALID,
#define INSN(name) INSN_##name,
#include "engine/isa/mnemonics.inc"
#undef INSN
	INSN_COUNT
};

/* Static properties: one row per encoding. */
struct insn_desc {
	u16 id;            /* enum insn_id */
	u8 cls;            /* enum insn_class */
	u8 feature;        /* enum insn_feature, FEAT_NONE for the baseline */
	u32 attr;          /* enum insn_attr */
	u16 flags_read;    /* RFLAGS bits CF PF AF ZF SF DF OF (TF IF AC ... where they matter) */
	u16 flags_written; /* defined results */
	u16 flags_undef;   /* undefined after it (SDM vol. 2) */
	/* the encoding columns are private to decode.c; see isa/table.h */
};

struct insn {
	const struct insn_desc *desc;
	u16 id;       /* = desc->id */
	u8 len;       /* bytes */
	u8 prefixes;  /* enum insn_prefix */
	u8 rex;       /* WRXB of REX or VEX/EVEX, low 4 bits: W=8 R=4 X=2 B=1 */
	u8 map;       /* 0: one byte, 1: 0F, 2: 0F38, 3: 0F3A */
	u8 opcode;
	u8 modrm, sib;
	u8 vvvv;      /* VEX.vvvv decoded (0..15) */
	u8 vl;        /* VEX.L: 0 = 128, 1 = 256 */
	u8 pp;        /* mandatory prefix that selected the row: 0, 1 = 66, 2 = F3, 3 = F2 */
	u8 opsize;    /* effective operand size in bytes: 2 4 8 (1 for byte instructions) */
	u8 adsize;    /* effective address size in bytes: 2 4 8 */
	u8 cond;      /* condition code 0..15 for Jcc SETcc CMOVcc */
	u8 nops;      /* operands in use, explicit first, in Intel order (destination first) */
	u8 disp_off, disp_len; /* where displacement and immediate lie in the bytes: for re-encoding */
	u8 imm_off, imm_len;   /* imm_len counts both immediates */
	u8 modrm_off;          /* 0 = none */
	u8 bytes[INSN_MAX_LEN];
	struct insn_operand op[4];
	struct insn_mem mem; /* valid if an operand is OPK_MEM */
	u64 imm, imm2;
};

enum insn_error {
	INSN_OK = 0,
	INSN_NEED_MORE = -1, /* ran out of bytes before the end: fetch more and call again */
	INSN_UD = -2,        /* invalid opcode: #UD */
	INSN_TOO_LONG = -3,  /* more than 15 bytes: #GP(0) */
};

/* Decodes the instruction at p, of which n bytes may be read. INSN_UD leaves out->len set to the bytes looked at. */
enum insn_error insn_decode(const u8 *p, size_t n, enum insn_mode mode, struct insn *out);

/* Intel-syntax text of a decoded instruction at address ip. Always terminates buf. */
void insn_format(const struct insn *in, u64 ip, char *buf, size_t size);

const char *insn_name(enum insn_id id);

#endif
