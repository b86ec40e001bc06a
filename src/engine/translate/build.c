/* One translation in the making: decodes from a place in a guest page on and has each instruction emitted. */
#include "engine/trace/trace.h"
#include "engine/translate/check.h"
#include "engine/translate/tr_int.h"

#define JRCXZ_REACH 126

/* ---- sites and islands ---- */

struct tr_site *build_site(struct build *b, enum site_kind kind)
{
	struct tr_site *s = NULL;

	if (b->nsites == b->max_sites) {
		b->full = true;
		return b->site; /* overwritten; the block is given up */
	}
	s = &b->site[b->nsites++];
	*s = (struct tr_site){.kind = kind, .goff = (u16)b->page_off, .nth = (u8)b->n, .x87_op = b->x87_op, .x87_off = b->x87_off};
	return s;
}

u32 site_number(const struct build *b, const struct tr_site *s)
{
	return b->b->first_site + (u32)(s - b->site);
}

void build_leave(struct build *b, u32 site)
{
	emit_mov_imm(&b->e, S1, site);
	emit_jmp(&b->e, (u64)tr_leave);
}

static const u8 nop1[] = {0x90};

u64 build_leave_apart(struct build *b, u32 site)
{
	u64 at = 0;

	emit_align(&b->apart, 4); /* the jump's rel32 too: emit_unsplit() */
	at = emit_here(&b->apart);
	emit_mov_imm(&b->apart, S1, site);
	emit_bytes(&b->apart, nop1, sizeof(nop1));
	emit_jmp(&b->apart, (u64)tr_leave);
	b->e.full |= b->apart.full;
	return at;
}

void build_jump_out(struct build *b, u32 site)
{
	emit_jmp(&b->e, build_leave_apart(b, site));
}

static void islands_here(struct build *b)
{
	for (unsigned i = 0; i < b->npending; i++) {
		emit_short_here(&b->e, b->pending[i].place);
		emit_unsplit(&b->e, 1);
		build_jump_out(b, site_number(b, b->pending[i].site));
		b->pending[i].site->island = (u32)emit_here(&b->e);
	}
	b->npending = 0;
}

void build_islands(struct build *b)
{
	u8 *over = NULL;

	if (!b->npending)
		return;
	over = emit_jmp_short(&b->e);
	islands_here(b);
	emit_short_here(&b->e, over);
}

void build_islands_after_jump(struct build *b)
{
	islands_here(b);
}

void build_pending(struct build *b, struct tr_site *s)
{
	if (b->npending == ARRAY_SIZE(b->pending)) { /* build_room() sees to it that this does not happen */
		b->full = true;
		return;
	}
	b->pending[b->npending].place = emit_jrcxz(&b->e);
	b->pending[b->npending].site = s;
	b->npending++;
}

void build_room(struct build *b, unsigned bytes)
{
	/* later ones are at least an island's length further on */
	if (b->npending && b->e.p + bytes + 2 - b->pending[0].place > JRCXZ_REACH)
		build_islands(b);
}

void build_set_key(struct build *b, u32 key)
{
	b->key = key;
	b->idx = key_mmu_idx(key);
}

/* ---- what is translated how ---- */

static bool mode_allows(const struct build *b, const struct insn *in)
{
	const struct insn_desc *d = in->desc;
	const struct cpu_mode *m = &b->cpu->mode;

	if (d->feature != FEAT_NONE && !cpu_has(b->cpu, d->feature))
		return false;
	/* VPEXTRQ and VPINSRQ: AMD does not ignore W outside 64-bit mode, and here it would count */
	if (in->map == 3 && (in->opcode == 0x16 || in->opcode == 0x22) && in->prefixes & PFX_VEX && in->rex & 8 && !b->mode64)
		return false;
	switch (d->cls) {
	case IC_INT:
		return true;
	case IC_SSE:
		return m->sse_ok;
	case IC_AVX:
		return m->avx_ok;
	case IC_X87:
		return m->fpu_ok && x87_native(in);
	case IC_MMX:
		return m->fpu_ok && m->sse_ok;
	default:
		return false;
	}
}

/* Those that need both of the translator's registers, and may change what look-ups depend on. */
static bool gen_special(struct build *b)
{
	bool done = false;

	if (!is_special(&b->in))
		return false;
	hold_forget(b);
	b->s1_guest = INSN_NO_REG;
	done = gen_sys(b) || gen_bitmem(b) || gen_string(b);
	hold_forget(b);
	b->s1_guest = INSN_NO_REG;
	return done;
}

static void emit_insn(struct build *b)
{
	const struct insn *in = &b->in;
	bool last = insn_ends_block(in);
	bool repeatable = !tr_checking() || check_repeatable(in); /* else its handler does it, once */

	if (in->desc->attr & IA_BRANCH)
		gen_x87_flush(b);
	b->emulated = false;
	if (b->key & MODE_KEY_TRACE && trace_insn_of(in) != TI_NONE)
		repeatable = false;
	if (repeatable && gen_special(b))
		return;
	if (repeatable && mode_allows(b, in) &&
	    (gen_soft(b) || gen_branch(b) || gen_stack(b) || gen_lea(b) || gen_data(b)))
		return;
	gen_emulate(b);
	if (last)
		b->ended = true;
}

bool build_next_follows(const struct build *b)
{
	return b->n + 1 < b->total && !(b->label[b->n + 1] & LABEL_BACKWARD); /* no gen_loop_head() before it */
}

static void note_insn(struct build *b)
{
	b->insn_host[b->n] = (u32)emit_here(&b->e);
	b->insn_key[b->n] = b->key;
	b->insn_waits[b->n] = b->x87_op != 0;
}

/* Every site learns where its next instruction begins. */
static void set_resumes(struct build *b, bool falls)
{
	for (u32 i = 0; i < b->nsites; i++) {
		struct tr_site *s = &b->site[i];

		s->block = (u32)(b->b - tb_at(0));
		if (s->nth < b->n && (s->nth + 1u < b->n || falls) && !b->no_resume[s->nth + 1])
			s->resume = b->insn_host[s->nth + 1];
	}
}

static const u8 nop5[] = {0x0f, 0x1f, 0x44, 0x00, 0x00};

/* record_arrival(): the ring's index is a byte, so that it wraps by itself. */
static void gen_record(struct build *b, u32 off)
{
	struct hostmem next = MEM_VCPU(record.next), va = MEM_VCPU(tr.page_va), here = mem_at(S1, (s32)off), more = mem_at(S0, 1),
		       at = {.base = H_NONE, .index = S0, .shift = 3, .gs = true, .disp = (s32)offsetof(struct vcpu, record.at)};

	emit_load(&b->e, S0, &next, 1);
	emit_load(&b->e, S1, &va, 8);
	emit_lea(&b->e, S1, &here, b->mode64 ? 8 : 4);
	emit_store(&b->e, &at, S1, 8);
	emit_lea(&b->e, S0, &more, 4);
	emit_store(&b->e, &next, S0, 1);
}

void build_entry(struct build *b)
{
	emit_align(&b->e, 8);
	b->b->enter = (u32)emit_here(&b->e);
	gen_arrival(b, b->insn_off[0]);
	emit_align(&b->e, 8); /* killing a block replaces this NOP by a jump, at once */
	b->b->body = (u32)emit_here(&b->e);
	emit_bytes(&b->e, nop5, sizeof(nop5));
	if (b->key & MODE_KEY_ARRIVALS)
		gen_record(b, b->insn_off[0]);
}

static void emit_dead_stub(struct build *b, u32 start_off)
{
	struct tr_site *s = NULL;

	b->page_off = start_off;
	s = build_site(b, SITE_DEAD);
	b->b->dead_stub = (u32)build_leave_apart(b, site_number(b, s));
}

bool build_block(struct build *b, gpa_t gpa)
{
	gpa_t page = gpa & PAGE_MASK;
	u32 start = (u32)(gpa & ~PAGE_MASK), key = b->key;
	bool falls = true;

	b->page_gpa = page;
	b->page_off = start;
	if (b->checked)
		check_snapshot(b, gpa);
	scan_block(b, page);
	if (!b->total)
		return false;
	b->b->begin = (u32)emit_here(&b->e);
	if (b->checked)
		gen_check(b);
	else
		build_entry(b);
	if (b->second)
		gen_cross(b);
	while (!b->ended && b->n < b->total && !b->full) {
		b->in = b->code[b->n];
		b->b->vectors |= b->in.desc->cls != IC_INT;
		build_room(b, 48);
		note_insn(b);
		if (b->label[b->n]) {
			hold_forget(b);
			b->s1_guest = INSN_NO_REG;
		}
		if (b->label[b->n] & LABEL_BACKWARD && !b->checked)
			gen_loop_head(b);
		if (b->key & MODE_KEY_COUNT)
			gen_count(b);
		emit_insn(b);
		hold_after_insn(b);
		b->n++;
		b->page_off = b->insn_off[b->n];
		if (b->checked && b->emulated)
			b->total = b->n;
	}
	note_insn(b);
	falls = !b->ended;
	if (falls) {
		gen_x87_flush(b);
		gen_next(b);
	}
	b->ended = true;
	build_islands_after_jump(b);
	gen_exits(b);
	build_set_key(b, key);
	b->b->bytes = (u16)(b->page_off - start);
	emit_dead_stub(b, start);
	set_resumes(b, falls);
	b->b->ninsns = (u16)b->n;
	b->b->end = (u32)emit_here(&b->e);
	return !b->full && !b->e.full;
}
