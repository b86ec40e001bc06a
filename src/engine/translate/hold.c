/*
 * Look-ups that serve several accesses. What a look-up found is in S0 until S0 is needed; if accesses that it serves come later
 * it waits in memory (tr.held), one load instead of a look-up. Nothing is held over a label, nor over anything that may change
 * what look-ups depend on; and no code that relies on an earlier look-up is entered from outside (no_resume).
 */
#include "engine/translate/tr_int.h"

static struct hostmem place(unsigned k)
{
	return mem_gs(offsetof(struct vcpu, tr.held) + 8 * k);
}

void hold_drop(struct build *b)
{
	if (b->s0_held == H_NONE)
		return;
	b->held[b->s0_held].valid = b->held[b->s0_held].stored;
	b->s0_held = H_NONE;
}

void hold_forget(struct build *b)
{
	for (unsigned k = 0; k < TR_HELD; k++)
		b->held[k].valid = false;
	b->s0_held = H_NONE;
}

bool hold_any(const struct build *b)
{
	for (unsigned k = 0; k < TR_HELD; k++)
		if (b->held[k].valid && b->held[k].stored)
			return true;
	return false;
}

void hold_after_insn(struct build *b)
{
	for (unsigned k = 0; k < TR_HELD; k++) {
		struct held *h = &b->held[k];
		s64 moved = 0;

		if (!h->valid)
			continue;
		if (!scan_follow(&b->in, &h->ea, &moved) || (b->n >= h->last && b->s0_held != k)) {
			h->valid = false;
			if (b->s0_held == k)
				b->s0_held = H_NONE;
			continue;
		}
		h->lo -= moved;
		h->hi -= moved;
	}
}

static bool serves(const struct held *h, const struct ea *ea, unsigned size, bool write)
{
	return h->valid && ea_same_base(&h->ea, ea) && ea->disp >= h->lo && ea->disp + (s64)size <= h->hi && (!write || h->write);
}

bool hold_find(struct build *b, const struct ea *ea, unsigned size, bool write)
{
	struct hostmem m;
	unsigned k = 0;

	if (b->s0_held != H_NONE && serves(&b->held[b->s0_held], ea, size, write))
		k = b->s0_held;
	else
		while (k < TR_HELD && !serves(&b->held[k], ea, size, write))
			k++;
	if (k == TR_HELD)
		return false;
	for (unsigned i = b->held[k].from + 1; i <= b->n; i++)
		b->no_resume[i] = true;
	if (k == b->s0_held)
		return true;
	hold_drop(b);
	m = place(k);
	emit_load(&b->e, S0, &m, 8);
	b->s0_held = (u8)k;
	return true;
}

/* The one that is needed no more, or the soonest not. */
static unsigned victim(const struct build *b)
{
	unsigned best = 0;

	for (unsigned k = 0; k < TR_HELD; k++) {
		if (!b->held[k].valid)
			return k;
		if (b->held[k].last < b->held[best].last)
			best = k;
	}
	return best;
}

void hold_keep(struct build *b, const struct ea *ea, const struct group *g)
{
	unsigned k = 0;
	struct hostmem m;

	hold_drop(b);
	k = victim(b);
	m = place(k);
	b->held[k] = (struct held){.valid = true, .write = g->write, .stored = g->apart, .ea = *ea, .lo = g->lo, .hi = g->hi,
				   .from = b->n, .last = g->last};
	b->s0_held = (u8)k;
	if (g->apart)
		emit_store(&b->e, &m, S0, 8);
}
