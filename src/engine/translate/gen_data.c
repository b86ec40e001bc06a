/* Data instructions: the same instruction, with registers renamed and the operand's address translated. */
#include "engine/translate/tr_int.h"

#define SPILLED (1u << R_14 | 1u << R_15)

/* Those that the host must not execute by themselves, or that touch more than their operands say. */
static bool excluded(const struct insn *in, bool mode64)
{
	switch (in->id) {
	case INSN_CLD:
	case INSN_STD:
	case INSN_PAUSE:
	case INSN_XLAT:
	case INSN_ENTER:
	case INSN_PUSHA:
	case INSN_POPA:
	case INSN_MOVDIR64B:
	case INSN_CMPXCHG8B: /* RCX is not where it should be */
	case INSN_CMPXCHG16B:
	case INSN_MASKMOVDQU:
		return true;
	case INSN_ZEROALL:
	case INSN_ZEROUPPER: /* outside 64-bit mode registers 8 to 15 keep their values */
		return !mode64;
	default:
		return in->desc->attr & (IA_BRANCH | IA_STRING | IA_PRIV | IA_IOPL);
	}
}

static bool does_nothing(const struct insn *in)
{
	return in->id == INSN_NOP || in->id == INSN_PREFETCH || in->id == INSN_PREFETCHW || in->id == INSN_CLDEMOTE;
}

static const struct insn_operand *mem_operand(const struct insn *in)
{
	for (unsigned i = 0; i < in->nops; i++)
		if (in->op[i].kind == OPK_MEM)
			return &in->op[i];
	return NULL;
}

static bool operands_ok(const struct build *b, const struct insn_operand *mem)
{
	const struct insn *in = &b->in;

	for (unsigned i = 0; i < in->nops; i++)
		if ((in->op[i].kind == OPK_MMX && !b->cpu->mode.fpu_ok) || in->op[i].kind == OPK_SREG ||
		    in->op[i].kind == OPK_CR || in->op[i].kind == OPK_DR)
			return false;
	if (!mem)
		return true;
	if (!in->mem.size || in->mem.size > 64 || !gen_addressable(b))
		return false;
	/* a bit offset in a register reaches beyond the operand */
	return !(in->id >= INSN_BT && in->id <= INSN_BTC && in->op[1].kind == OPK_GPR);
}

static bool may_fault(const struct insn *in)
{
	return in->desc->cls != IC_INT || in->id == INSN_DIV || in->id == INSN_IDIV;
}

/* One instruction being emitted: where its registers are. */
struct data {
	u8 map[16];
	u32 read, written; /* guest registers that its fields name */
	bool high8, by_cl, pcmpstri;
	const struct insn_operand *mem;
};

/* The host registers that stand for spilled ones: S1, then S0. False: not enough. */
static bool place_spilled(struct data *d)
{
	unsigned next = S1;

	for (unsigned r = R_14; r <= R_15; r++) {
		if (!((d->read | d->written) >> r & 1))
			continue;
		if (next == H_NONE)
			return false;
		d->map[r] = (u8)next;
		next = next == S1 && !d->mem && !d->by_cl ? S0 : H_NONE;
	}
	return true;
}

static bool plan(const struct build *b, struct data *d)
{
	const struct insn *in = &b->in;
	struct emit probe = {0};
	u8 room[64];
	struct hostmem m = {.base = S0, .index = H_NONE};
	bool uses_cx = false;

	for (unsigned i = 0; i < 16; i++)
		d->map[i] = (u8)host_of(i);
	d->read = insn_gprs_read(in);
	d->written = insn_gprs_written(in);
	d->high8 = insn_has_high8(in);
	d->by_cl = shifts_by_cl(in);
	d->pcmpstri = in->id == INSN_PCMPESTRI || in->id == INSN_PCMPISTRI;
	uses_cx = (d->read | d->written) >> R_CX & 1;
	if (d->high8 && uses_cx) {
		if (d->mem || d->by_cl)
			return false;
		d->map[R_CX] = H_CX;
	}
	if (!place_spilled(d))
		return false;
	if (d->by_cl && d->mem && ((d->read | d->written) & SPILLED))
		return false;
	probe.p = room;
	probe.end = room + sizeof(room);
	if (d->by_cl)
		m.base = S1;
	return reencode(&probe, in, d->map, d->mem ? &m : NULL, true);
}

static bool takes_s0(const struct data *d)
{
	if (d->by_cl || d->pcmpstri || d->map[R_CX] == H_CX)
		return true;
	for (unsigned r = R_14; r <= R_15; r++)
		if ((d->read | d->written) >> r & 1 && d->map[r] == S0)
			return true;
	return false;
}

/* S1 still holds the guest register that an earlier instruction left there. */
static bool s1_holds(struct build *b, unsigned guest)
{
	if (b->s1_guest != guest || b->e.written >> S1 & 1)
		return false;
	for (unsigned i = b->s1_from + 1u; i <= b->n; i++)
		b->no_resume[i] = true;
	return true;
}

static void s1_keep(struct build *b, const struct data *d)
{
	for (unsigned r = R_14; r <= R_15; r++) {
		if (!((d->read | d->written) >> r & 1) || d->map[r] != S1)
			continue;
		b->s1_guest = (u8)r;
		b->s1_from = (u8)b->n;
		b->e.written &= ~(1u << S1);
	}
}

static void load_registers(struct build *b, const struct data *d)
{
	for (unsigned r = R_14; r <= R_15; r++)
		if (d->read >> r & 1 && !(d->map[r] == S1 && s1_holds(b, r)))
			gen_get(b, d->map[r], r);
	if (d->map[R_CX] == H_CX)
		gen_get(b, H_CX, R_CX);
	if (d->by_cl)
		emit_mov(&b->e, H_CX, HOST_CX, 4);
}

static void store_registers(struct build *b, const struct data *d)
{
	for (unsigned r = R_14; r <= R_15; r++)
		if (d->written >> r & 1)
			gen_put(b, r, d->map[r]);
	if (d->map[R_CX] == H_CX && d->written >> R_CX & 1)
		gen_put(b, R_CX, H_CX);
	if (d->pcmpstri)
		emit_mov(&b->e, HOST_CX, H_CX, 4);
	s1_keep(b, d);
}

/* MOV between a register and a spilled one: memory is the register. */
static bool gen_spilled_move(struct build *b)
{
	const struct insn_operand *to = &b->in.op[0], *from = &b->in.op[1];
	struct hostmem slot;

	if (b->in.id != INSN_MOV || to->kind != OPK_GPR || from->kind != OPK_GPR || to->size < 4)
		return false;
	if (is_spilled(to->reg) && !is_spilled(from->reg) && to->size == 8) {
		gen_put(b, to->reg, host_of(from->reg));
		return true;
	}
	if (!is_spilled(from->reg) || is_spilled(to->reg))
		return false;
	slot = mem_gs(offsetof(struct vcpu, gpr) + 8 * from->reg);
	if (s1_holds(b, from->reg))
		emit_mov(&b->e, host_of(to->reg), S1, to->size);
	else
		emit_load(&b->e, host_of(to->reg), &slot, to->size);
	return true;
}

/* The operand: as it can be named, or its whole address in S0 or S1 where registers are short. */
static struct hostmem place_operand(struct build *b, const struct data *d)
{
	struct hostmem m = {.base = H_NONE, .index = H_NONE};

	gen_access(b, b->in.mem.size, d->mem->access & OPA_WRITE);
	if (d->by_cl) {
		m = gen_operand(b);
		emit_lea(&b->e, S1, &m, 8);
		return mem_at(S1, 0);
	}
	if (d->high8 || ((d->read | d->written) & SPILLED)) {
		gen_operand_in_s0(b);
		return mem_at(S0, 0);
	}
	return gen_operand(b);
}

bool gen_data(struct build *b)
{
	const struct insn *in = &b->in;
	struct data d = {.mem = mem_operand(in)};
	struct hostmem m;

	if (excluded(in, b->mode64))
		return false;
	if (does_nothing(in))
		return true;
	if (gen_spilled_move(b))
		return true;
	if (!operands_ok(b, d.mem) || !plan(b, &d))
		return false;
	if (d.mem)
		m = place_operand(b, &d);
	load_registers(b, &d);
	if (takes_s0(&d))
		hold_drop(b);
	if (!d.mem && may_fault(in))
		build_site(b, SITE_FAULT);
	if (d.mem || may_fault(in))
		gen_mark(b);
	if (!reencode(&b->e, in, d.map, d.mem ? &m : NULL, key_locks(b->key)))
		b->full = true; /* cannot be: it was tried */
	store_registers(b, &d);
	if (in->desc->cls == IC_X87)
		gen_x87_done(b);
	return true;
}

/* Everything in host registers of its own: one LEA. */
static bool gen_lea_direct(struct build *b, unsigned dst)
{
	const struct insn_mem *m = &b->in.mem;
	struct hostmem a = {.base = H_NONE, .index = H_NONE, .disp = (s32)m->disp};

	if (is_spilled(dst) || m->rip_relative || (m->base == INSN_NO_REG && m->index == INSN_NO_REG) ||
	    (m->base != INSN_NO_REG && is_spilled(m->base)) || (m->index != INSN_NO_REG && is_spilled(m->index)))
		return false;
	if (m->base != INSN_NO_REG)
		a.base = (u8)host_of(m->base);
	if (m->index != INSN_NO_REG) {
		a.index = (u8)host_of(m->index);
		a.shift = (u8)__builtin_ctz(m->scale);
	}
	emit_lea(&b->e, host_of(dst), &a, MIN(b->in.opsize, b->in.adsize));
	return true;
}

bool gen_lea(struct build *b)
{
	const struct insn *in = &b->in;
	unsigned dst = in->op[0].reg;

	if (in->id != INSN_LEA || in->opsize < 4 || in->adsize < 4 || in->mem.disp != (s32)in->mem.disp)
		return false;
	if (in->mem.rip_relative && (in->mem.disp > 0x7fff0000 || in->mem.disp < -0x7fff0000))
		return false;
	if (gen_lea_direct(b, dst))
		return true;
	gen_offset(b, S1, 0);
	hold_drop(b); /* it may have taken both */
	if (in->opsize == 4)
		emit_mov(&b->e, S1, S1, 4);
	gen_put(b, dst, S1);
	return true;
}

struct tr_site *gen_emu_site(struct build *b)
{
	struct tr_site *s = build_site(b, SITE_EMU);

	b->emulated = true;
	hold_forget(b);
	b->s1_guest = INSN_NO_REG;
	if (b->emu + EMU_SIZE > b->emu_end) {
		b->full = true;
	} else {
		s->emu = (struct iblock *)b->emu;
		b->emu += EMU_SIZE;
		memset(s->emu, 0, EMU_SIZE);
		s->emu->gpa = b->page_off;
		s->emu->bytes = b->in.len;
		s->emu->nops = 1;
		iop_compile(b->cpu, &b->in, &s->emu->ops[0]);
		s->emu->ops[1].fn = interp_alone_end;
		s->emu->ops[1].nth = 1;
	}
	return s;
}

struct tr_site *gen_emulate_unless_zero(struct build *b)
{
	u8 *go = emit_jrcxz(&b->e);
	struct tr_site *s = gen_emu_site(b);

	build_jump_out(b, site_number(b, s));
	emit_short_here(&b->e, go);
	return s;
}

void gen_emulate(struct build *b)
{
	build_leave(b, site_number(b, gen_emu_site(b)));
	build_islands_after_jump(b);
	b->x87_op = 0; /* what waited is recorded on leaving */
}
