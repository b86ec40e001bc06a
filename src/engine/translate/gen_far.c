/*
 * Ways between pages that need not look for their target, only whether a page is where it was (state.h): direct jumps, instructions that
 * lie in two pages, returns.
 */
#include "engine/translate/check.h"
#include "engine/translate/tr_int.h"

bool gen_in_page(s32 target)
{
	return target >= 0 && target < (s32)PAGE_SIZE;
}

static bool by_page(unsigned cls)
{
	return jc_by_pext() && !tr_checking() && cls != JC_NONE;
}

u64 gen_far_arrival(u64 arrival)
{
	return arrival + 20;
}

/* The constant, JRCXZ, the stub, the jump. */
u64 gen_far_constant(u64 jump_end)
{
	return jump_end - 5 - LEAVE_BYTES - 2 - 4;
}

/*
 * S1 holds a guest address. The jump returned, yet to be aimed, is taken if its page's entry and the constant, a page's number less the
 * place in the page, make 0. The constant ends at a multiple of 4, so that a store changes it at once.
 */
static u8 *look_at_page(struct build *b, unsigned cls, bool poll, s32 constant)
{
	static const u8 lea_sum[] = {0x4a, 0x8d, 0x8c, 0x39}; /* lea rcx, [rcx + r15 + disp32] */
	struct hostmem mask = MEM_VCPU(tr.far_mask), calm = mem_gs(GS_CALM), entry = jc_field(cls, offsetof(struct jc_table, far));

	if (poll) {
		emit_rorx(&b->e, S0, S1, 9);
		emit_pext(&b->e, S0, S0, &calm);
	} else {
		emit_pext(&b->e, S0, S1, &mask);
	}
	emit_load(&b->e, S0, &entry, 8);
	emit_align_end(&b->e, sizeof(lea_sum) + 4, 4);
	emit_bytes(&b->e, lea_sum, sizeof(lea_sum));
	emit_u32(&b->e, (u32)constant);
	return emit_jrcxz(&b->e);
}

void gen_cross(struct build *b)
{
	struct hostmem va = MEM_VCPU(tr.page_va), next = mem_at(S1, (s32)PAGE_SIZE);
	struct tr_site *s = build_site(b, SITE_CROSS);
	unsigned cls = tr_jc_class(b->key);
	u8 *same = NULL;

	if (cls == JC_NONE) { /* tb_make_crossing() sees to it that this does not happen */
		b->full = true;
		return;
	}
	s->disp = (s32)(b->second >> 12);
	s->host = (u32)emit_here(&b->e);
	emit_load(&b->e, S1, &va, 8);
	emit_lea(&b->e, S1, &next, b->mode64 ? 8 : 4);
	same = look_at_page(b, cls, false, (s32)(jc_page_number(b->second) << 12));
	build_leave(b, site_number(b, s));
	emit_short_here(&b->e, same);
}

/*
 * A direct jump to another page (state.h). The page's entry and the constant, which is nobody's until tb_chain_far() sets it, decide
 * between the jump and the stub before it, which leaves; later it goes through the jump cache. Jumps forward need not
 * look at calm, since a loop has one that goes back; 32-bit addresses can wrap.
 */
bool gen_far(struct build *b, s32 target)
{
	unsigned cls = tr_jc_class(b->key);
	struct hostmem va = MEM_VCPU(tr.page_va), to = mem_at(S1, target);
	struct tr_site *s = NULL;
	u64 stub = 0;
	u8 *same = NULL;

	if (!by_page(cls))
		return false;
	build_room(b, 96);
	hold_drop(b);
	s = build_site(b, SITE_FAR);
	s->target = target;
	s->disp = b->sp_moved;
	emit_load(&b->e, S1, &va, 8);
	emit_lea(&b->e, S1, &to, b->mode64 ? 8 : 4);
	same = look_at_page(b, cls, !b->mode64 || target < 0, FAR_NOBODYS);
	stub = emit_here(&b->e);
	build_leave(b, site_number(b, s));
	emit_short_here(&b->e, same);
	emit_jmp(&b->e, stub);
	s->host = (u32)emit_here(&b->e);
	return true;
}

/*
 * A call leaves the address of host code on a stack of the mode's class, by a CALL of the host, and the RET in translated
 * code goes there, which the host predicts. What is there looks whether it is where the guest returns to. S0 keeps the guest's stack
 * pointer while RSP is the other one.
 */
void gen_pair_call(struct build *b)
{
	unsigned cls = tr_jc_class(b->key), off = b->page_off + b->in.len;
	struct hostmem top, page = mem_at(S1, -(s32)off), va = MEM_VCPU(tr.page_va);
	u32 number = jc_page_number(b->page_gpa);
	u8 *over = NULL, *same = NULL;

	if (!by_page(cls))
		return;
	top = MEM_VCPU(tr.returns[cls]);
	build_islands(b);
	hold_drop(b);
	emit_mov(&b->e, S0, H_SP, 8);
	emit_load(&b->e, H_SP, &top, 8);
	over = emit_call_forward(&b->e);
	if (gen_in_page((s32)off) && number) {
		emit_store(&b->e, &top, H_SP, 8);
		emit_mov(&b->e, H_SP, S0, 8);
		same = look_at_page(b, cls, false, (s32)((number << 12) - off));
		emit_jmp(&b->e, (u64)tr_return_again[cls]);
		emit_short_here(&b->e, same);
		emit_lea(&b->e, S1, &page, 8);
		emit_store(&b->e, &va, S1, 8);
		gen_chainable(b, (s32)off);
	} else {
		emit_jmp(&b->e, (u64)tr_return_miss[cls]);
	}
	emit_call_here(&b->e, over);
	emit_store(&b->e, &top, H_SP, 8);
	emit_mov(&b->e, H_SP, S0, 8);
}

bool gen_pair_ret(struct build *b, const struct hostmem *popped)
{
	unsigned cls = tr_jc_class(b->key);
	struct hostmem top, from = MEM_VCPU(tr.from);
	struct tr_site *s = NULL;

	if (!by_page(cls))
		return false;
	top = MEM_VCPU(tr.returns[cls]);
	build_room(b, 64);
	hold_drop(b);
	s = build_site(b, SITE_JUMP);
	s->disp = b->sp_moved;
	emit_store_imm(&b->e, &from, (s32)site_number(b, s), 4);
	emit_lea(&b->e, S0, popped, b->mode64 ? 8 : 4);
	emit_load(&b->e, H_SP, &top, 8);
	emit_u8(&b->e, 0xc3);
	return true;
}
