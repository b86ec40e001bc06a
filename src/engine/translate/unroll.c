/*
 * Small loops, unrolled: the accesses of neighbouring turns, which lie close together, share look-ups. The body is there several
 * times; the jumps back between its copies are turned around and leave the loop.
 */
#include "engine/lib/lib.h"
#include "engine/translate/stress.h"
#include "engine/translate/tr_int.h"

#define BODY_MAX   14
#define BODIES_MAX 32 /* instructions of all copies */
#define COPIES_MAX 4

/* The jump at `end` leads back to the loop's first instruction; -1: it does not, or the loop is none of ours. */
static int loop_start(const struct build *b, unsigned end)
{
	const struct insn *in = &b->code[end];
	int start = 0;

	if (in->id != INSN_JCC || in->opsize != 8 || in->op[0].kind != OPK_REL)
		return -1;
	start = own_index(b, (s32)(b->insn_off[end] + in->len + (s32)in->imm));
	return start >= 0 && (unsigned)start <= end && end - (unsigned)start < BODY_MAX ? start : -1;
}

static bool may_be_copied(const struct insn *in)
{
	if (in->desc->cls == IC_SYS || in->desc->cls == IC_X87 || in->desc->cls == IC_MMX ||
	    in->desc->attr & (IA_STRING | IA_IOPL | IA_PRIV))
		return false;
	return !(in->desc->attr & IA_BRANCH) || (in->id == INSN_JCC && in->opsize == 8);
}

/* Nothing jumps between its instructions. */
static bool is_closed(const struct build *b, unsigned start, unsigned end)
{
	for (unsigned i = 0; i < b->total; i++) {
		const struct insn *in = &b->code[i];
		int to = -1;

		if (in->desc->attr & IA_BRANCH && in->nops && in->op[0].kind == OPK_REL)
			to = own_index(b, (s32)(b->insn_off[i] + in->len + (s32)in->imm));
		if (to > (int)start && to <= (int)end)
			return false;
	}
	for (unsigned i = start; i <= end; i++)
		if (b->in_loop[i] || !may_be_copied(&b->code[i]))
			return false;
	return true;
}

/* An access whose address moves by a constant from turn to turn, or not at all. */
static bool shares(const struct build *b, unsigned start, unsigned end)
{
	for (unsigned i = start; i <= end; i++) {
		struct ea ea;
		unsigned size = 0, k = start;
		bool write = false;
		s64 moved = 0;

		if (scan_access(&b->code[i], b->insn_off[i], &ea, &size, &write) != 1)
			continue;
		while (k <= end && scan_follow(&b->code[k], &ea, &moved))
			k++;
		if (k > end && moved > -128 && moved < 128)
			return true;
	}
	return false;
}

static void copy_insn(struct build *b, unsigned to, unsigned from)
{
	b->code[to] = b->code[from];
	b->insn_off[to] = b->insn_off[from];
}

/* Returns the number of the first instruction behind. */
static unsigned unroll(struct build *b, unsigned start, unsigned end)
{
	unsigned len = end - start + 1, copies = MIN(BODIES_MAX / len, (unsigned)COPIES_MAX), added = 0;
	unsigned max = tr_stress()->max_insns;

	while (copies > 1 && end + 1 + (copies - 1) * len > max)
		copies--;
	if (copies < 2)
		return end + 1;
	added = (copies - 1) * len;
	b->total = MIN(b->total, max - added); /* what is cut off makes another block */
	b->insn_off[b->total + added] = b->insn_off[b->total];
	for (unsigned i = b->total; i-- > end + 1;)
		copy_insn(b, i + added, i);
	b->total += added;
	for (unsigned i = start; i <= end + added; i++) {
		copy_insn(b, i, start + (i - start) % len);
		b->in_loop[i] = true;
		b->turned[i] = (i - start) % len == len - 1 && i != end + added;
	}
	return end + added + 1;
}

void unroll_loops(struct build *b)
{
	unsigned i = 0;

	if (!b->mode64 || b->key & TR_KEY_ALONE)
		return;
	while (i < b->total) {
		int start = loop_start(b, i);

		if (start >= 0 && is_closed(b, (unsigned)start, i) && shares(b, (unsigned)start, i))
			i = unroll(b, (unsigned)start, i);
		else
			i++;
	}
}
