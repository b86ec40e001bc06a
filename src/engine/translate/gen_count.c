/*
 * Counting instructions (MODE_KEY_COUNT, while doppel top --insns looks): translations made for it add the length of each straight piece to
 * insn_count where the piece begins. What handlers do is taken off again (run.c); what a fault leaves half way has counted too much.
 */
#include "engine/translate/tr_int.h"

/* Code may go on elsewhere behind it: jumps, and what handlers do. */
static bool ends_piece(const struct insn *in)
{
	return in->desc->cls == IC_SYS || in->desc->attr & (IA_BRANCH | IA_ENDBLOCK | IA_IOPL | IA_STRING);
}

static bool begins_piece(const struct build *b)
{
	return b->n == 0 || b->label[b->n] || ends_piece(&b->code[b->n - 1]);
}

static unsigned piece_length(const struct build *b)
{
	unsigned n = b->n;

	do {
		n++;
	} while (n < b->total && !b->label[n] && !ends_piece(&b->code[n - 1]));
	return n - b->n;
}

void gen_count(struct build *b)
{
	struct hostmem count = MEM_VCPU(insn_count), more = mem_at(S0, (s32)piece_length(b));

	if (!begins_piece(b))
		return;
	hold_drop(b);
	build_room(b, 80);
	emit_load(&b->e, S0, &count, 8);
	emit_lea(&b->e, S0, &more, 8);
	emit_store(&b->e, &count, S0, 8);
}
