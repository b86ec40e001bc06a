/*
 * Intel-syntax text of a decoded instruction.
 */
#include "engine/isa/insn.h"

struct text {
	char *buf;
	size_t size, len;
};

static void put_char(struct text *t, char c)
{
	if (t->len + 1 < t->size)
		t->buf[t->len++] = c;
}

static void put_str(struct text *t, const char *s)
{
	while (*s)
		put_char(t, *s++);
}

static void put_lower(struct text *t, const char *s)
{
	for (; *s; s++)
		put_char(t, *s >= 'A' && *s <= 'Z' ? *s + 32 : *s);
}

static void put_dec(struct text *t, unsigned v)
{
	if (v >= 10)
		put_dec(t, v / 10);
	put_char(t, (char)('0' + v % 10));
}

static void put_hex(struct text *t, u64 v)
{
	int shift = 60;

	put_str(t, "0x");
	while (shift > 0 && !(v >> shift))
		shift -= 4;
	for (; shift >= 0; shift -= 4)
		put_char(t, "0123456789abcdef"[v >> shift & 15]);
}

static u64 mask_to(u64 v, u8 size)
{
	return size && size < 8 ? v & ((1ull << 8 * size) - 1) : v;
}

static const char *const seg_names[] = {"es", "cs", "ss", "ds", "fs", "gs", "ldtr", "tr"};

static void put_gpr(struct text *t, u8 reg, u8 size, bool high8)
{
	static const char *const low[] = {"ax", "cx", "dx", "bx", "sp", "bp", "si", "di"};
	static const char *const high[] = {"ah", "ch", "dh", "bh"};

	if (high8) {
		put_str(t, high[reg & 3]);
		return;
	}
	if (reg >= 8) {
		put_char(t, 'r');
		put_dec(t, reg);
		put_str(t, size == 8 ? "" : size == 4 ? "d" : size == 2 ? "w" : "b");
		return;
	}
	if (size >= 4)
		put_char(t, size == 8 ? 'r' : 'e');
	if (size == 1) {
		put_char(t, low[reg][0]);
		put_str(t, reg >= 4 ? low[reg] + 1 : "");
		put_char(t, 'l');
	} else {
		put_str(t, low[reg]);
	}
}

static void put_numbered(struct text *t, const char *name, u8 reg)
{
	put_str(t, name);
	put_dec(t, reg);
}

static const char *size_word(u16 size)
{
	switch (size) {
	case 1:
		return "byte ptr ";
	case 2:
		return "word ptr ";
	case 4:
		return "dword ptr ";
	case 6:
		return "fword ptr ";
	case 8:
		return "qword ptr ";
	case 10:
		return "tbyte ptr ";
	case 16:
		return "xmmword ptr ";
	case 32:
		return "ymmword ptr ";
	default:
		return "";
	}
}

static void put_disp(struct text *t, s64 disp, bool first, u8 adsize)
{
	if (first) {
		put_hex(t, mask_to((u64)disp, adsize));
	} else if (disp) {
		put_char(t, disp < 0 ? '-' : '+');
		put_hex(t, disp < 0 ? -(u64)disp : (u64)disp);
	}
}

static void put_mem(struct text *t, const struct insn *in, u64 next)
{
	const struct insn_mem *m = &in->mem;
	bool stack = m->base == 5 || (m->base == 4 && in->adsize != 2);
	bool first = true;

	put_str(t, size_word(m->size));
	if (m->seg != (stack ? SEG_SS : SEG_DS)) {
		put_str(t, seg_names[m->seg]);
		put_char(t, ':');
	}
	put_char(t, '[');
	if (m->rip_relative) {
		put_str(t, in->adsize == 8 ? "rip" : "eip");
		put_disp(t, m->disp, false, in->adsize);
		put_str(t, "] ; ");
		put_hex(t, mask_to(next + (u64)m->disp, in->adsize));
		return;
	}
	if (m->base != INSN_NO_REG) {
		put_gpr(t, m->base, in->adsize, false);
		first = false;
	}
	if (m->index != INSN_NO_REG) {
		if (!first)
			put_char(t, '+');
		if (m->vsib)
			put_numbered(t, "vr", m->index);
		else
			put_gpr(t, m->index, in->adsize, false);
		if (m->scale > 1) {
			put_char(t, '*');
			put_dec(t, m->scale);
		}
		first = false;
	}
	put_disp(t, m->disp, first, in->adsize);
	put_char(t, ']');
}

static void put_operand(struct text *t, const struct insn *in, const struct insn_operand *op, u64 next,
			bool second_imm)
{
	switch (op->kind) {
	case OPK_GPR:
		put_gpr(t, op->reg, op->size, op->high8);
		break;
	case OPK_MEM:
		put_mem(t, in, next);
		break;
	case OPK_IMM:
		put_hex(t, mask_to(second_imm ? in->imm2 : in->imm, op->size));
		break;
	case OPK_REL:
		put_hex(t, mask_to(next + in->imm, in->opsize));
		break;
	case OPK_FAR:
		put_hex(t, in->imm2);
		put_char(t, ':');
		put_hex(t, in->imm);
		break;
	case OPK_SREG:
		put_str(t, seg_names[op->reg & 7]);
		break;
	case OPK_CR:
		put_numbered(t, "cr", op->reg);
		break;
	case OPK_DR:
		put_numbered(t, "dr", op->reg);
		break;
	case OPK_MMX:
		put_numbered(t, "mm", op->reg);
		break;
	case OPK_XMM:
		put_numbered(t, "xmm", op->reg);
		break;
	case OPK_YMM:
		put_numbered(t, "ymm", op->reg);
		break;
	case OPK_ST:
		put_numbered(t, "st(", op->reg);
		put_char(t, ')');
		break;
	default:
		break;
	}
}

static void put_name(struct text *t, const struct insn *in)
{
	static const char *const cc[] = {"o", "no", "b", "ae", "e", "ne", "be", "a",
					 "s", "ns", "p", "np", "l", "ge", "le", "g"};
	static const char *const wide[][2] = {{"cbw", "cwd"}, {"cwde", "cdq"}, {"cdqe", "cqo"}};

	if (in->prefixes & PFX_LOCK)
		put_str(t, "lock ");
	if (in->desc->attr & IA_STRING && in->prefixes & (PFX_REP | PFX_REPNE))
		put_str(t, in->prefixes & PFX_REPNE                     ? "repne "
			   : in->id == INSN_CMPS || in->id == INSN_SCAS ? "repe "
									: "rep ");
	switch (in->id) {
	case INSN_JCC:
	case INSN_SETCC:
	case INSN_CMOVCC:
		put_str(t, in->id == INSN_JCC ? "j" : in->id == INSN_SETCC ? "set" : "cmov");
		put_str(t, cc[in->cond & 15]);
		return;
	case INSN_CBW:
	case INSN_CWD:
		put_str(t, wide[in->opsize >> 2][in->id == INSN_CWD]);
		return;
	case INSN_MOV_SREG:
	case INSN_MOV_CR:
	case INSN_MOV_DR:
		put_str(t, "mov");
		return;
	case INSN_PUSH_SREG:
	case INSN_POP_SREG:
		put_str(t, in->id == INSN_PUSH_SREG ? "push" : "pop");
		return;
	case INSN_JMP_FAR:
	case INSN_CALL_FAR:
	case INSN_RET_FAR:
		put_str(t, in->id == INSN_JMP_FAR    ? "jmp far"
			   : in->id == INSN_CALL_FAR ? "call far"
						     : "retf");
		return;
	case INSN_IRET:
		put_str(t, in->opsize == 8 ? "iretq" : in->opsize == 4 ? "iretd" : "iret");
		return;
	case INSN_MOVSD_SSE:
	case INSN_CMPSD_SSE:
		put_str(t, in->prefixes & PFX_VEX ? "v" : "");
		put_str(t, in->id == INSN_MOVSD_SSE ? "movsd" : "cmpsd");
		return;
	default:
		if (in->prefixes & PFX_VEX && in->desc->cls == IC_AVX)
			put_char(t, 'v');
		put_lower(t, insn_name((enum insn_id)in->id));
		if (in->desc->attr & IA_STRING)
			put_char(t, in->opsize == 1   ? 'b'
				    : in->opsize == 2 ? 'w'
				    : in->opsize == 4 ? 'd'
						      : 'q');
		return;
	}
}

void insn_format(const struct insn *in, u64 ip, char *buf, size_t size)
{
	struct text t = {.buf = buf, .size = size};
	unsigned imms = 0;

	if (!size)
		return;
	put_name(&t, in);
	for (unsigned i = 0; i < in->nops && i < ARRAY_SIZE(in->op); i++) {
		const struct insn_operand *op = &in->op[i];

		put_str(&t, i ? ", " : " ");
		put_operand(&t, in, op, ip + in->len, op->kind == OPK_IMM && imms++ > 0);
	}
	buf[t.len] = 0;
}
