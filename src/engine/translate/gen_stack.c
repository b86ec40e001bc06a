/* PUSH POP LEAVE in the stack width of the mode. */
#include "engine/translate/tr_int.h"

static unsigned width(const struct build *b)
{
	return b->mode64 ? 8 : 4;
}

/* [rSP + disp] as a host operand after gen_access_at(); takes S1 outside 64-bit mode. */
static struct hostmem stack_operand(struct build *b, unsigned base, s32 disp)
{
	struct hostmem low = mem_at(host_of(base), disp);

	if (b->mode64)
		return (struct hostmem){.base = (u8)host_of(base), .index = S0, .disp = disp};
	emit_lea(&b->e, S1, &low, 4);
	return (struct hostmem){.base = S1, .index = S0};
}

static void move_sp(struct build *b, s32 by)
{
	struct hostmem to = mem_at(H_SP, by);

	emit_lea(&b->e, H_SP, &to, width(b));
}

static bool push_value_from_memory(struct build *b)
{
	unsigned size = width(b);
	struct hostmem value = MEM_VCPU(tr.value), m;

	if (!gen_addressable(b))
		return false;
	gen_access(b, size, false);
	m = gen_operand(b);
	emit_load(&b->e, S0, &m, size);
	hold_drop(b);
	emit_store(&b->e, &value, S0, 8);
	gen_access_at(b, R_SP, -(s32)size, size, true);
	m = stack_operand(b, R_SP, -(s32)size);
	emit_lea(&b->e, S0, &m, 8);
	hold_drop(b);
	emit_load(&b->e, S1, &value, 8);
	m = mem_at(S0, 0);
	gen_mark(b);
	emit_store(&b->e, &m, S1, size);
	move_sp(b, -(s32)size);
	return true;
}

static bool gen_push(struct build *b)
{
	const struct insn_operand *o = &b->in.op[0];
	unsigned size = width(b), from = 0;
	struct hostmem m;

	if (o->kind == OPK_MEM)
		return push_value_from_memory(b);
	if (o->kind != OPK_GPR && o->kind != OPK_IMM)
		return false;
	gen_access_at(b, R_SP, -(s32)size, size, true);
	m = stack_operand(b, R_SP, -(s32)size);
	if (o->kind == OPK_IMM) {
		gen_mark(b);
		emit_store_imm(&b->e, &m, (s32)b->in.imm, size);
	} else {
		from = is_spilled(o->reg) ? S1 : host_of(o->reg);
		gen_get(b, from, o->reg);
		gen_mark(b);
		emit_store(&b->e, &m, from, size);
	}
	move_sp(b, -(s32)size);
	return true;
}

static bool gen_pop(struct build *b)
{
	const struct insn_operand *o = &b->in.op[0];
	unsigned size = width(b), to = 0;
	struct hostmem m;

	if (o->kind != OPK_GPR)
		return false;
	to = is_spilled(o->reg) ? S1 : host_of(o->reg);
	gen_access_at(b, R_SP, 0, size, false);
	m = stack_operand(b, R_SP, 0);
	gen_mark(b);
	emit_load(&b->e, to, &m, size);
	if (is_spilled(o->reg))
		gen_put(b, o->reg, to);
	if (o->reg != R_SP)
		move_sp(b, (s32)size);
	return true;
}

static bool gen_leave_insn(struct build *b)
{
	unsigned size = width(b);
	struct hostmem up = mem_at(H_BP, (s32)size), at = {.base = H_BP, .index = S0}, low = mem_at(H_BP, 0),
		       sum = {.base = S1, .index = S0}, flat = mem_at(S0, 0);

	gen_access_at(b, R_BP, 0, size, false);
	if (!b->mode64) {
		emit_lea(&b->e, S1, &low, 4);
		emit_lea(&b->e, S0, &sum, 8);
		at = flat;
	}
	emit_lea(&b->e, S1, &up, size);
	gen_mark(b);
	emit_load(&b->e, H_BP, &at, size);
	emit_mov(&b->e, H_SP, S1, size);
	return true;
}

bool gen_stack(struct build *b)
{
	if (b->in.opsize != width(b))
		return false;
	switch (b->in.id) {
	case INSN_PUSH:
		return gen_push(b);
	case INSN_POP:
		return gen_pop(b);
	case INSN_LEAVE:
		return gen_leave_insn(b);
	default:
		return false;
	}
}
