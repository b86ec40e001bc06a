/* Ways into another page that need not look for their target, only whether the page is where it was (state.h). */
#include "engine/translate/check.h"
#include "engine/translate/tr_int.h"

/* The constant, JRCXZ, the way out, the jump. */
u64 gen_far_constant(u64 jump_end)
{
	return jump_end - 5 - JUMP_OUT_BYTES - 2 - 4;
}

/*
 * S1 holds a guest address. The jump returned, yet to be aimed, is taken if its page's entry and the constant, a page frame less the
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
	s->host = (u32)emit_here(&b->e);
	emit_load(&b->e, S1, &va, 8);
	emit_lea(&b->e, S1, &next, b->mode64 ? 8 : 4);
	same = look_at_page(b, cls, false, (s32)(b->second >> 12));
	build_jump_out(b, site_number(b, s));
	emit_short_here(&b->e, same);
}

/*
 * A direct jump to another page (state.h). The page's entry and the constant, which is nobody's until tb_chain_far() sets it, decide
 * between the jump and the way out before it, which once it is chained leads through the jump cache. Jumps forward need not
 * look at calm, since a loop has one that goes back; 32-bit addresses can wrap.
 */
bool gen_far(struct build *b, s32 target)
{
	unsigned cls = tr_jc_class(b->key);
	struct hostmem va = MEM_VCPU(tr.page_va), to = mem_at(S1, target);
	struct tr_site *s = NULL;
	u64 out = 0;
	u8 *same = NULL;

	if (!jc_by_pext() || tr_checking() || cls == JC_NONE)
		return false;
	build_room(b, 96);
	hold_drop(b);
	s = build_site(b, SITE_FAR);
	s->target = target;
	s->disp = b->sp_moved;
	emit_load(&b->e, S1, &va, 8);
	emit_lea(&b->e, S1, &to, b->mode64 ? 8 : 4);
	same = look_at_page(b, cls, !b->mode64 || target < 0, FAR_NOBODYS);
	out = build_leave_apart(b, site_number(b, s));
	s->island = (u32)out + LEAVE_BYTES;
	emit_jmp(&b->e, out);
	emit_short_here(&b->e, same);
	emit_jmp(&b->e, out);
	s->host = (u32)emit_here(&b->e);
	return true;
}
