/*
 * Jumps. A direct jump within the page leads to the block there, once that is known; it needs no check, since what maps
 * this page maps the target too. All others go through the jump cache of the mode. Every cycle of jumps looks at the attention
 * word: backward jumps and the jump cache do.
 */
#include "engine/translate/tr_int.h"

unsigned tr_jc_class(u32 key)
{
	bool mode64 = (key & 3) == INSN_MODE_64;
	unsigned cpl = key >> 5 & 3;

	switch (key_mmu_idx(key)) {
	case MMU_USER:
		return cpl == 3 ? mode64 ? JC_USER64 : JC_USER32 : JC_NONE;
	case MMU_KERNEL:
		return cpl == 0 ? mode64 ? JC_KERNEL64 : JC_KERNEL32 : JC_NONE;
	case MMU_KERNEL_AC:
		return cpl == 0 && mode64 ? JC_KERNEL64_AC : JC_NONE;
	default:
		return JC_NONE;
	}
}

static bool in_page(s32 target)
{
	return target >= 0 && target < (s32)PAGE_SIZE;
}

void gen_indirect(struct build *b)
{
	unsigned cls = tr_jc_class(b->key);
	struct hostmem target = MEM_VCPU(tr.target), from = MEM_VCPU(tr.from), calm = mem_gs(GS_CALM),
		       host;
	struct tr_site *s = NULL;

	build_room(b, 64);
	s = build_site(b, SITE_JUMP);
	s->disp = b->sp_moved;
	if (cls == JC_NONE) {
		emit_store(&b->e, &target, S1, 8);
		build_leave(b, site_number(b, s));
		return;
	}
	host = jc_field(cls, offsetof(struct jc_table, host));
	emit_store_imm(&b->e, &from, (s32)site_number(b, s), 4);
	if (jc_by_pext())
		emit_pext(&b->e, S0, S1, &calm);
	else
		emit_movzx16(&b->e, S0, S1);
	emit_jmp_mem(&b->e, &host);
}

void gen_arrival(struct build *b, u32 off)
{
	unsigned cls = tr_jc_class(b->key);
	struct hostmem va = MEM_VCPU(tr.page_va), sum = {.base = S0, .index = S1},
		       calm = mem_gs(GS_CALM), negated;
	static const u8 lea_back[] = {0x4d, 0x8d, 0xbf}; /* lea r15, [r15 + disp32]: always as long */
	u8 *same = NULL, *miss = NULL;

	if (cls == JC_NONE)
		return; /* nothing leads here */
	negated = jc_field(cls, offsetof(struct jc_table, negated));
	emit_load(&b->e, S0, &negated, 8);
	emit_lea(&b->e, S0, &sum, 8);
	same = emit_jrcxz(&b->e);
	miss = b->e.p;
	emit_jmp(&b->e, (u64)(jc_by_pext() ? tr_jump_again[cls] : tr_jump_miss));
	emit_short_here(&b->e, same);
	if (jc_by_pext() && emit_here(&b->e) != gen_far_arrival(b->b->enter))
		b->full = true;
	if (!jc_by_pext()) {
		emit_load(&b->e, S0, &calm, 4);
		emit_jrcxz_back(&b->e, miss);
	}
	emit_bytes(&b->e, lea_back, sizeof(lea_back));
	emit_u32(&b->e, 0 - off);
	emit_store(&b->e, &va, S1, 8);
	emit_align(&b->e, 8);
	if (emit_here(&b->e) != gen_behind_arrival(b->b->enter))
		b->full = true;
}

u64 gen_behind_arrival(u64 arrival)
{
	return arrival + (jc_by_pext() ? 40 : 48);
}

u64 gen_far_arrival(u64 arrival)
{
	return arrival + 20;
}

/* A jump that is chained later: leads out. */
static void chainable_jump(struct build *b, s32 target)
{
	struct tr_site *s = build_site(b, SITE_EXIT);

	s->target = target;
	emit_unsplit(&b->e, 1);
	emit_jmp(&b->e, build_leave_apart(b, site_number(b, s)));
	s->host = (u32)emit_here(&b->e);
}

/* Code of the instruction of this block at the offset; 0: none so far, or an x87 record waits there (gen_x87.c). */
static u32 own_insn(const struct build *b, s32 target)
{
	int i = own_index(b, target);

	return i >= 0 && (unsigned)i <= b->n && !b->insn_waits[i] && b->insn_key[i] == b->key ? b->insn_host[i] : 0;
}

/* For a jump back: a checked block compares its code each time around, and has no gen_loop_head() to look at attention. One
 * without shared look-ups goes back to the one with them. */
static u32 own_behind(const struct build *b, s32 target)
{
	return b->checked || b->key & TR_KEY_ALONE ? 0 : own_insn(b, target);
}

static void backward_jump(struct build *b, s32 target)
{
	struct hostmem att = mem_gs(GS_ATTENTION);
	struct tr_site *s = NULL;
	u8 *go = NULL;
	u32 own = own_behind(b, target);

	if (own) { /* it looks at attention itself: gen_loop_head() */
		emit_jmp(&b->e, own);
		return;
	}
	s = build_site(b, SITE_STOP);
	s->target = target;
	hold_drop(b);
	emit_load(&b->e, S0, &att, 4);
	go = emit_jrcxz(&b->e);
	build_jump_out(b, site_number(b, s));
	emit_short_here(&b->e, go);
	chainable_jump(b, target);
}

void gen_loop_head(struct build *b)
{
	struct hostmem calm = mem_gs(GS_CALM);
	struct tr_site *s = build_site(b, SITE_STOP);

	build_room(b, 48);
	hold_drop(b);
	s->target = (s32)b->page_off;
	emit_load(&b->e, S0, &calm, 4);
	build_pending(b, s);
}

void gen_goto(struct build *b, s32 target)
{
	struct hostmem va = MEM_VCPU(tr.page_va), to = mem_at(S1, target);

	build_room(b, 48);
	if (in_page(target)) {
		if (target <= (s32)b->page_off)
			backward_jump(b, target);
		else
			chainable_jump(b, target);
		return;
	}
	if (gen_far(b, target))
		return;
	emit_load(&b->e, S1, &va, 8);
	emit_lea(&b->e, S1, &to, b->mode64 ? 8 : 4);
	gen_indirect(b);
}

void gen_next(struct build *b)
{
	build_room(b, 48);
	if (b->page_off < PAGE_SIZE)
		chainable_jump(b, (s32)b->page_off);
	else
		gen_goto(b, (s32)b->page_off);
}

void gen_exits(struct build *b)
{
	u32 end = b->page_off;

	b->sp_moved = 0; /* these jumps are not those of the last instruction */
	for (unsigned i = 0; i < b->nexits && !b->e.full; i++) {
		u64 rel_end = (u64)b->exits[i].rel_end + (u64)b->e.rx;
		s32 target = b->exits[i].target;
		bool forward = in_page(target) && target > (s32)b->exits[i].off;
		u32 own = 0;
		struct tr_site *s = NULL;

		build_set_key(b, b->exits[i].key);
		own = forward ? own_insn(b, target) : 0;
		b->page_off = b->exits[i].off;
		if (own) {
			emit_patch_rel32(b->e.rx, rel_end, own);
		} else if (forward) {
			s = build_site(b, SITE_EXIT);
			s->target = target;
			s->host = (u32)rel_end; /* the conditional jump itself is chained */
			emit_patch_rel32(b->e.rx, rel_end, build_leave_apart(b, site_number(b, s)));
		} else {
			emit_patch_rel32(b->e.rx, rel_end, emit_here(&b->e));
			gen_goto(b, target);
		}
	}
	b->page_off = end;
}

/* Offset of a direct target from the page's start; false: too far to say. */
static bool direct_target(const struct build *b, s32 *target)
{
	s64 t = (s64)b->page_off + b->in.len + (s64)b->in.imm;

	*target = (s32)t;
	return t == *target && t > -0x7fff0000ll && t < 0x7fff0000ll;
}

static bool gen_jcc(struct build *b)
{
	unsigned cond = b->in.cond;
	s32 target = 0;

	if (!direct_target(b, &target) || b->nexits == ARRAY_SIZE(b->exits))
		return false;
	if (b->turned[b->n]) {
		cond ^= 1;
		target = (s32)(b->page_off + b->in.len);
	}
	if (target <= (s32)b->page_off && own_behind(b, target)) {
		emit_jcc(&b->e, cond, own_behind(b, target));
		build_islands(b); /* here they do not lengthen the loop */
		return true;
	}
	emit_unsplit(&b->e, 2);
	emit_jcc(&b->e, cond, emit_here(&b->e));
	b->exits[b->nexits].rel_end = b->e.p;
	b->exits[b->nexits].target = target;
	b->exits[b->nexits].off = b->page_off;
	b->exits[b->nexits].key = b->key;
	b->nexits++;
	return true;
}

/* JRCXZ and LOOP: around the jump, or not. */
static bool gen_count_jump(struct build *b)
{
	bool loop = b->in.id == INSN_LOOP;
	unsigned size = b->in.adsize;
	struct hostmem less = mem_at(HOST_CX, -1);
	u8 *zero = NULL, *over = NULL;
	s32 target = 0;

	if (size < 4 || !direct_target(b, &target) || (loop && !in_page(target))) /* a bad target must leave the count alone */
		return false;
	build_islands(b); /* the code below is long */
	hold_drop(b);
	if (loop)
		emit_lea(&b->e, HOST_CX, &less, size);
	emit_mov(&b->e, S0, HOST_CX, size);
	zero = emit_jrcxz(&b->e);
	if (!loop) {
		over = emit_jmp_short(&b->e);
		emit_short_here(&b->e, zero);
		gen_goto(b, target);
		emit_short_here(&b->e, over);
	} else {
		gen_goto(b, target);
		emit_short_here(&b->e, zero);
	}
	return true;
}

/* ---- calls and returns ---- */

static void push_return_address(struct build *b)
{
	unsigned size = b->mode64 ? 8 : 4;
	struct hostmem va = MEM_VCPU(tr.page_va), next = mem_at(S1, (s32)(b->page_off + b->in.len)),
		       at = {.base = H_SP, .index = S0, .disp = -(s32)size}, low = mem_at(H_SP, -(s32)size),
		       sum = {.base = S1, .index = S0};

	gen_access_at(b, R_SP, -(s32)size, size, true);
	if (!b->mode64) { /* the address is cut to 32 bits */
		emit_lea(&b->e, S1, &low, 4);
		emit_lea(&b->e, S0, &sum, 8);
		hold_drop(b);
		at = mem_at(S0, 0);
	}
	emit_load(&b->e, S1, &va, 8);
	emit_lea(&b->e, S1, &next, size);
	gen_mark(b);
	emit_store(&b->e, &at, S1, size);
	emit_lea(&b->e, H_SP, &low, size);
	b->sp_moved = -(s32)size;
}

static bool gen_direct(struct build *b)
{
	s32 target = 0;

	if (!direct_target(b, &target))
		return false;
	if (b->in.id == INSN_CALL)
		push_return_address(b);
	gen_goto(b, target);
	b->ended = true;
	return true;
}

/* Target of an indirect jump or call into S1. */
static bool gen_target(struct build *b)
{
	const struct insn_operand *o = &b->in.op[0];
	struct hostmem m;

	if (o->kind == OPK_GPR) {
		gen_get(b, S1, o->reg);
		return true;
	}
	if (!gen_addressable(b))
		return false;
	gen_access(b, b->mode64 ? 8 : 4, false);
	m = gen_operand(b);
	emit_load(&b->e, S1, &m, b->mode64 ? 8 : 4);
	return true;
}

static bool gen_through(struct build *b)
{
	struct hostmem target = MEM_VCPU(tr.target);

	if (!gen_target(b))
		return false;
	if (b->in.id == INSN_CALL) {
		emit_store(&b->e, &target, S1, 8);
		push_return_address(b);
		emit_load(&b->e, S1, &target, 8);
	}
	gen_indirect(b);
	b->ended = true;
	return true;
}

static bool gen_ret(struct build *b)
{
	unsigned size = b->mode64 ? 8 : 4;
	s32 pop = (s32)size + (b->in.nops ? (s32)b->in.imm : 0);
	struct hostmem at = {.base = H_SP, .index = S0}, more = mem_at(H_SP, pop), low = mem_at(H_SP, 0),
		       sum = {.base = S1, .index = S0};

	gen_access_at(b, R_SP, 0, size, false);
	if (!b->mode64) {
		emit_lea(&b->e, S1, &low, 4);
		at = sum;
	}
	gen_mark(b);
	emit_load(&b->e, S1, &at, size);
	emit_lea(&b->e, H_SP, &more, size);
	b->sp_moved = pop;
	gen_indirect(b);
	b->ended = true;
	return true;
}

bool gen_branch(struct build *b)
{
	const struct insn *in = &b->in;
	unsigned size = b->mode64 ? 8 : 4;
	bool direct = in->op[0].kind == OPK_REL;

	if (in->opsize != size)
		return false;
	switch (in->id) {
	case INSN_JCC:
		return gen_jcc(b);
	case INSN_LOOP:
	case INSN_JRCXZ:
		return gen_count_jump(b);
	case INSN_JMP:
	case INSN_CALL:
		return direct ? gen_direct(b) : gen_through(b);
	case INSN_RET:
		return gen_ret(b);
	default:
		return false;
	}
}
