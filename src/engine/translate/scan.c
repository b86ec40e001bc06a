/* The block before code is made of it: instructions, jumps inside, accesses that one look-up can serve. */
#include "engine/translate/check.h"
#include "engine/translate/stress.h"
#include "engine/translate/tr_int.h"

#define GROUP_SPAN 256 /* a wider group crosses pages too often */

/* The next instruction, if it lies in the page, or in the two that it is to lie in. */
static bool decode(struct build *b, gpa_t page, unsigned off, struct insn *in)
{
	u8 bytes[INSN_MAX_LEN + 1];
	unsigned left = PAGE_SIZE - off, n = MIN(left, sizeof(bytes));

	if (b->second) {
		if (off > PAGE_SIZE - 1 || left >= INSN_MAX_LEN)
			return false;
		memcpy(bytes, gpa_to_hva(page | off), left);
		memcpy(bytes + left, gpa_to_hva(b->second), INSN_MAX_LEN - left);
		return insn_decode(bytes, left, b->cpu->mode.code, in) == INSN_NEED_MORE &&
		       insn_decode(bytes, INSN_MAX_LEN, b->cpu->mode.code, in) == INSN_OK;
	}
	if (!left)
		return false;
	if (b->checked)
		n = MIN(n, (unsigned)(b->snap_gpa + b->snap_len - (page | off)));
	memcpy(bytes, b->checked ? b->snap + ((page | off) - b->snap_gpa) : gpa_to_hva(page | off), n); /* one copy: it may change meanwhile */
	return insn_decode(bytes, n, b->cpu->mode.code, in) == INSN_OK;
}

int own_index(const struct build *b, s32 target)
{
	if (tr_checking() || b->key & (MODE_KEY_ARRIVALS | MODE_KEY_COVERAGE)) /* every jump ends the turn; is recorded */
		return -1;
	for (unsigned i = 0; i < b->total; i++)
		if (b->insn_off[i] == target)
			return (int)i;
	return -1;
}

static void note_label(struct build *b, unsigned i)
{
	const struct insn *in = &b->code[i];
	int to = 0;

	if (!(in->desc->attr & IA_BRANCH) || !in->nops || in->op[0].kind != OPK_REL)
		return;
	to = own_index(b, (s32)(b->insn_off[i] + in->len + (b->turned[i] ? 0 : (s32)in->imm)));
	if (to >= 0)
		b->label[to] |= (unsigned)to <= i ? LABEL_BACKWARD : LABEL_FORWARD;
}

void scan_block(struct build *b, gpa_t page)
{
	unsigned off = b->page_off;

	while (b->total < b->limit && decode(b, page, off, &b->code[b->total])) {
		const struct insn *in = &b->code[b->total];

		b->insn_off[b->total++] = (u16)off;
		off += in->len;
		if (insn_ends_block(in) || (b->checked && check_writes(in)) ||
		    (b->key & MODE_KEY_COVERAGE && in->desc->attr & IA_BRANCH))
			break;
	}
	b->insn_off[b->total] = (u16)off;
	if (!b->checked)
		unroll_loops(b);
	for (unsigned i = 0; i < b->total; i++)
		note_label(b, i);
}

/* ---- registers ---- */

bool shifts_by_cl(const struct insn *in)
{
	if (in->map == 0)
		return in->opcode == 0xd2 || in->opcode == 0xd3;
	return in->map == 1 && !(in->prefixes & PFX_VEX) && (in->opcode == 0xa5 || in->opcode == 0xad);
}

static u32 implicit_writes(u16 id)
{
	switch (id) {
	case INSN_MUL:
	case INSN_IMUL:
	case INSN_DIV:
	case INSN_IDIV:
	case INSN_CWD:
	case INSN_CMPXCHG8B:
	case INSN_CMPXCHG16B:
		return 1u << R_AX | 1u << R_DX;
	case INSN_CBW:
	case INSN_CMPXCHG:
	case INSN_LAHF:
	case INSN_XCHG:
		return 1u << R_AX;
	case INSN_PCMPESTRI:
	case INSN_PCMPISTRI:
	case INSN_LOOP:
		return 1u << R_CX;
	case INSN_PUSH:
	case INSN_POP:
	case INSN_CALL:
	case INSN_RET:
		return 1u << R_SP;
	case INSN_LEAVE:
		return 1u << R_SP | 1u << R_BP;
	default:
		return 0;
	}
}

u32 scan_written(const struct insn *in)
{
	u32 w = insn_gprs_written(in) | implicit_writes(in->id);

	for (unsigned i = 0; i < in->nops; i++)
		if (in->op[i].kind == OPK_GPR && in->op[i].access & OPA_WRITE)
			w |= 1u << (in->op[i].reg & 15);
	return w;
}

bool scan_delta(const struct insn *in, unsigned reg, s64 *delta)
{
	const struct insn_operand *o = &in->op[0];
	bool to_reg = in->nops && o->kind == OPK_GPR && o->reg == reg && o->size == 8;

	switch (in->id) {
	case INSN_ADD:
	case INSN_SUB:
		*delta = in->id == INSN_ADD ? (s64)in->imm : -(s64)in->imm;
		return to_reg && in->op[1].kind == OPK_IMM;
	case INSN_INC:
	case INSN_DEC:
		*delta = in->id == INSN_INC ? 1 : -1;
		return to_reg;
	case INSN_LEA:
		*delta = in->mem.disp;
		return to_reg && in->adsize == 8 && in->mem.base == reg && in->mem.index == INSN_NO_REG &&
		       !in->mem.rip_relative;
	case INSN_PUSH:
	case INSN_CALL:
		*delta = -8;
		return reg == R_SP && in->opsize == 8;
	case INSN_POP:
		*delta = 8;
		return reg == R_SP && in->opsize == 8 && o->kind == OPK_GPR && o->reg != R_SP;
	default:
		return false;
	}
}

/* ---- groups ---- */

unsigned scan_access(const struct insn *in, unsigned off, struct ea *ea, unsigned *size, bool *write)
{
	const struct insn_mem *m = &in->mem;
	bool stack = in->id == INSN_PUSH || in->id == INSN_POP || in->id == INSN_CALL || in->id == INSN_RET;
	bool push = in->id == INSN_PUSH || in->id == INSN_CALL;
	unsigned n = 0;

	for (unsigned i = 0; i < in->nops; i++) {
		if (in->op[i].kind != OPK_MEM || in->id == INSN_LEA || in->id == INSN_NOP)
			continue;
		n++;
		if (m->vsib || m->seg >= SEG_FS || in->adsize != 8 || !m->size)
			return 2;
		*ea = (struct ea){.base = m->rip_relative ? 16 : m->base, .index = m->index, .disp = m->disp,
				  .shift = m->scale ? (u8)__builtin_ctz(m->scale) : 0};
		if (m->rip_relative)
			ea->disp += off + in->len;
		*size = m->size;
		*write = in->op[i].access & OPA_WRITE;
	}
	if (!stack)
		return n;
	if (n || in->opsize != 8)
		return 2;
	*ea = (struct ea){.base = R_SP, .index = INSN_NO_REG, .disp = push ? -8 : 0};
	*size = 8;
	*write = push;
	return 1;
}

bool ea_same_base(const struct ea *a, const struct ea *b)
{
	return a->base == b->base && a->index == b->index && (a->index == INSN_NO_REG || a->shift == b->shift);
}

bool scan_follow(const struct insn *in, const struct ea *ea, s64 *moved)
{
	u32 w = scan_written(in);
	s64 d = 0, i = 0;

	if (ea->index != INSN_NO_REG && w >> ea->index & 1 && (!scan_delta(in, ea->index, &i) || i != (s32)i))
		return false;
	if (ea->base < 16 && w >> ea->base & 1 && (!scan_delta(in, ea->base, &d) || d != (s32)d))
		return false;
	*moved += d + i * (1 << ea->shift);
	return *moved == (s32)*moved;
}

/* It needs S0, or may. */
static bool needs_s0(const struct insn *in, unsigned naccesses)
{
	return naccesses == 2 || shifts_by_cl(in) || insn_has_high8(in) || in->desc->cls == IC_X87;
}

static bool ends_group(const struct insn *in)
{
	return in->desc->cls == IC_SYS || in->desc->attr & (IA_STRING | IA_IOPL | IA_PRIV);
}

/* Takes the access in, unless that makes the group too wide. */
static bool widen(struct group *g, s64 at, unsigned size)
{
	s64 l = MIN(g->lo, at), h = MAX(g->hi, at + (s64)size);

	if (h - l > GROUP_SPAN || l < -0x70000000ll || h > 0x70000000ll)
		return false;
	g->lo = l;
	g->hi = h;
	return true;
}

void scan_group(const struct build *b, const struct ea *ea, struct group *g)
{
	s64 moved = 0;
	bool apart = false, mix = g->write || ea->base == R_SP;
	bool straight = b->in_loop[b->n]; /* the instructions that follow will run: a write among them is sure */

	if (b->key & TR_KEY_ALONE || !b->mode64)
		return;
	for (unsigned i = b->n; i + 1 < b->total && scan_follow(&b->code[i], ea, &moved) && !b->label[i + 1]; i++) {
		const struct insn *next = &b->code[i + 1];
		struct ea other;
		unsigned size = 0, n = 0;
		bool write = false;

		if (ends_group(next))
			return;
		straight &= !(next->desc->attr & IA_BRANCH);
		n = scan_access(next, b->insn_off[i + 1], &other, &size, &write);
		apart |= needs_s0(next, n);
		if (n != 1)
			continue;
		if (!ea_same_base(ea, &other) || (write && !mix && !straight) || !widen(g, other.disp + moved, size)) {
			apart = true;
			continue;
		}
		g->write |= write;
		g->apart |= apart;
		g->last = i + 1;
	}
}
