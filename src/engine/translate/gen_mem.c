/* Guest memory in translated code: effective addresses and the look-up in the address tables. */
#include "engine/translate/tr_int.h"

bool is_spilled(unsigned guest)
{
	return guest == R_14 || guest == R_15;
}

unsigned host_of(unsigned guest)
{
	return guest == R_CX ? HOST_CX : guest;
}

void gen_get(struct build *b, unsigned host, unsigned guest)
{
	struct hostmem slot = mem_gs(offsetof(struct vcpu, gpr) + 8 * guest);

	if (is_spilled(guest))
		emit_load(&b->e, host, &slot, 8);
	else if (host != host_of(guest))
		emit_mov(&b->e, host, host_of(guest), 8);
}

void gen_put(struct build *b, unsigned guest, unsigned host)
{
	struct hostmem slot = mem_gs(offsetof(struct vcpu, gpr) + 8 * guest);

	if (guest == b->s1_guest && host != S1)
		b->s1_guest = INSN_NO_REG;
	if (is_spilled(guest))
		emit_store(&b->e, &slot, host, 8);
	else if (host != host_of(guest))
		emit_mov(&b->e, host_of(guest), host, 8);
}

/* reg += base of FS or GS, with LEA: the sum of two registers needs a second one, so the base is loaded first. */
static size_t seg_base_offset(unsigned seg)
{
	return offsetof(struct vcpu, seg) + seg * sizeof(struct segment) + offsetof(struct segment, base);
}

/* In 64-bit mode a segment base other than 0 can only be that of FS or GS; in the flat 32-bit modes too. */
static bool has_seg_base(const struct insn_mem *m)
{
	return m->seg == SEG_FS || m->seg == SEG_GS;
}

bool gen_addressable(const struct build *b)
{
	const struct insn_mem *m = &b->in.mem;

	if (b->in.adsize < 4 || m->vsib || m->disp != (s32)m->disp)
		return false;
	if (m->rip_relative && (m->disp > 0x7fff0000 || m->disp < -0x7fff0000))
		return false;
	/* outside 64-bit mode FS and GS have limits, and CS cannot be written */
	return b->mode64 || !(has_seg_base(m) || m->seg == SEG_CS);
}

/* A plain base register in a host register, no index: the operand can be named directly. */
static bool is_simple(const struct build *b)
{
	const struct insn_mem *m = &b->in.mem;

	return b->mode64 && b->in.adsize == 8 && m->disp < 0x7fffff00 && m->base != INSN_NO_REG && !m->rip_relative && !is_spilled(m->base) &&
	       m->index == INSN_NO_REG && !has_seg_base(m);
}

static void lea_final(struct build *b, unsigned reg, const struct hostmem *m)
{
	unsigned size = b->in.adsize == 4 ? 4 : 8;

	if (m->base == H_NONE && m->index == H_NONE) {
		emit_mov_imm(&b->e, reg, size == 4 ? (u32)m->disp : (u64)(s64)m->disp);
		return;
	}
	emit_lea(&b->e, reg, m, size);
}

/* base + index * scale + disp, without segment, in the address size. */
void gen_offset(struct build *b, unsigned reg, s32 add)
{
	const struct insn_mem *m = &b->in.mem;
	struct hostmem a = {.base = H_NONE, .index = H_NONE, .disp = (s32)m->disp + add};
	struct hostmem va = MEM_VCPU(tr.page_va);
	bool base_spilled = m->base != INSN_NO_REG && is_spilled(m->base);
	bool index_spilled = m->index != INSN_NO_REG && is_spilled(m->index);

	if (m->rip_relative) {
		emit_load(&b->e, reg, &va, 8);
		a.base = (u8)reg;
		a.disp += (s32)(b->page_off + b->in.len);
		lea_final(b, reg, &a);
		return;
	}
	if (m->base != INSN_NO_REG)
		a.base = (u8)host_of(m->base);
	if (m->index != INSN_NO_REG) {
		a.index = (u8)host_of(m->index);
		a.shift = (u8)__builtin_ctz(m->scale);
	}
	if (index_spilled) {
		gen_get(b, reg, m->index);
		a.index = (u8)reg;
		if (base_spilled) { /* both: scale the index, then add the base from memory by a second LEA */
			unsigned other = reg == S0 ? S1 : S0;

			gen_get(b, other, m->base);
			a.base = (u8)other;
		}
	} else if (base_spilled) {
		gen_get(b, reg, m->base);
		a.base = (u8)reg;
	}
	lea_final(b, reg, &a);
}

void gen_ea(struct build *b, unsigned reg, s32 add)
{
	const struct insn_mem *m = &b->in.mem;
	unsigned other = reg == S0 ? S1 : S0;
	struct hostmem base = mem_gs(seg_base_offset(m->seg)), sum = {.base = (u8)reg, .index = (u8)other};

	if (!has_seg_base(m)) {
		gen_offset(b, reg, add);
		return;
	}
	gen_offset(b, reg, add);
	emit_load(&b->e, other, &base, 8);
	emit_lea(&b->e, reg, &sum, b->mode64 ? 8 : 4);
}

/* The entry whose index is in reg into S0. Where no segment register reaches the table its address goes into S0 first. */
static void load_entry(struct build *b, unsigned reg)
{
	struct hostmem ac = MEM_VCPU(tr.tt_ac), entry = {.base = H_NONE, .index = (u8)reg, .shift = 3};

	if (b->idx == MMU_KERNEL_AC) {
		emit_load(&b->e, S0, &ac, 8);
		entry.base = S0;
	} else {
		entry.fs = b->idx == MMU_USER;
		entry.gs = !entry.fs;
		entry.disp = entry.fs ? ENG_JC_USER_SIZE - ENG_JC_USER_FS : ENG_TT_KERNEL - ENG_VCPU_STATE;
	}
	emit_load(&b->e, S0, &entry, 8);
}

void gen_entry(struct build *b, bool one, bool write)
{
	struct hostmem sum = {.base = S1, .index = one ? S1 : S0, .disp = write ? (s32)TT_WRITE : 0};

	emit_lea(&b->e, S1, &sum, 4);
	load_entry(b, S1);
}

/* S1 holds the page number of the first byte, S0 that of the last (one: the same). */
static void look_up(struct build *b, bool one, bool write, struct tr_site *s)
{
	gen_entry(b, one, write);
	build_pending(b, s);
}

/* S1 holds the address of an operand in one page, and keeps it. */
static void look_up_one(struct build *b, bool write, struct tr_site *s)
{
	struct hostmem twice = {.base = S0, .index = S0, .disp = write ? (s32)TT_WRITE : 0};

	emit_rorx(&b->e, S0, S1, 12);
	emit_lea(&b->e, S0, &twice, 4);
	load_entry(b, S0);
	build_pending(b, s);
}

static struct tr_site *new_site(struct build *b, unsigned size, bool write)
{
	struct tr_site *s = build_site(b, SITE_MEM);

	s->size = (u16)size;
	s->write = s->own_write = write;
	s->holding = hold_any(b);
	s->waits = b->in.desc->cls == IC_X87 || b->in.desc->cls == IC_MMX;
	for (unsigned i = 0; i < b->in.nops; i++)
		s->waits |= b->in.op[i].kind == OPK_MMX;
	return s;
}

/* Page numbers of [base + lo, base + lo + size) into S1 and S0, for a base in a host register. */
static void page_numbers(struct build *b, unsigned base, s32 lo, unsigned size)
{
	struct hostmem first = mem_at(base, lo), last = mem_at(base, lo + (s32)size - 1);
	unsigned from = base;

	if (!b->mode64) { /* the address is cut to 32 bits first */
		emit_lea(&b->e, S1, &first, 4);
		last = mem_at(S1, (s32)size - 1);
		from = S1;
	} else if (lo) {
		emit_lea(&b->e, S1, &first, 8);
		from = S1;
	}
	if (size > 1)
		emit_lea(&b->e, S0, &last, 8);
	emit_rorx(&b->e, S1, from, 12);
	if (size > 1)
		emit_rorx(&b->e, S0, S0, 12);
}

void gen_access_at(struct build *b, unsigned base, s32 disp, unsigned size, bool write)
{
	struct ea ea = {.base = (u8)base, .index = INSN_NO_REG, .disp = disp};
	struct group g = {.lo = disp, .hi = disp + (s64)size, .write = write, .last = b->n};
	struct tr_site *s = NULL;

	build_room(b, 75);
	s = new_site(b, size, write);
	s->base = (u8)base;
	s->index = INSN_NO_REG;
	s->seg = SEG_DS;
	s->disp = disp;
	s->asize = b->mode64 ? 8 : 4;
	if (hold_find(b, &ea, size, write)) {
		gen_mark(b);
		return;
	}
	scan_group(b, &ea, &g);
	s->group = g.lo != disp || g.hi != disp + (s64)size || g.write != write;
	s->disp = (s32)g.lo;
	s->size = (u16)(g.hi - g.lo);
	s->write = g.write;
	s->host = (u32)emit_here(&b->e);
	page_numbers(b, host_of(base), (s32)g.lo, s->size);
	look_up(b, s->size == 1, g.write, s);
	hold_keep(b, &ea, &g);
	gen_mark(b);
}

/* The instruction's operand as an address that can be shared. */
static bool shareable(const struct build *b, struct ea *ea)
{
	const struct insn_mem *m = &b->in.mem;

	*ea = (struct ea){.base = m->rip_relative ? 16 : m->base, .index = m->index, .disp = m->disp,
			  .shift = m->scale ? (u8)__builtin_ctz(m->scale) : 0};
	if (m->rip_relative)
		ea->disp += b->page_off + b->in.len;
	return b->mode64 && b->in.adsize == 8 && !has_seg_base(m) && ea->disp > -0x70000000ll &&
	       ea->disp < 0x70000000ll;
}

/* Where a look-up needs S0 itself for the address, the addend waits in memory. */
static bool ea_needs_both(const struct build *b)
{
	const struct insn_mem *m = &b->in.mem;

	return has_seg_base(m) || (m->base != INSN_NO_REG && is_spilled(m->base) && m->index != INSN_NO_REG &&
				   is_spilled(m->index));
}

/* Code bytes that gen_ea() makes. */
static unsigned ea_bytes(const struct build *b)
{
	const struct insn_mem *m = &b->in.mem;
	unsigned n = 9;

	n += m->rip_relative || (m->base != INSN_NO_REG && is_spilled(m->base)) ? 9 : 0;
	n += m->index != INSN_NO_REG && is_spilled(m->index) ? 9 : 0;
	return n + (has_seg_base(m) ? 14 : 0);
}

/* Relative to RIP: where in its page the operand lies is known. */
static bool is_in_one_page(const struct build *b, const struct tr_site *s)
{
	return s->base == SITE_BASE_RIP && s->seg < SEG_FS && ((b->page_off + (u32)s->disp) & (PAGE_SIZE - 1)) + s->size <= PAGE_SIZE;
}

/* Address of the last byte into S0; that of the first, add from the operand's, is in S1. */
static void last_address(struct build *b, s32 add, unsigned size, bool plain)
{
	const struct insn_mem *m = &b->in.mem;
	struct hostmem last = mem_at(S1, (s32)size - 1);

	plain = plain && !m->rip_relative && (m->base == INSN_NO_REG || !is_spilled(m->base)) &&
		(m->index == INSN_NO_REG || !is_spilled(m->index));
	if (plain) /* it need not wait for the other */
		gen_ea(b, S0, add + (s32)size - 1);
	else
		emit_lea(&b->e, S0, &last, 8);
}

static void gen_access_any(struct build *b, unsigned size, bool write)
{
	const struct insn_mem *m = &b->in.mem;
	struct ea ea;
	bool can = shareable(b, &ea);
	struct group g = {.lo = ea.disp, .hi = ea.disp + (s64)size, .write = write, .last = b->n};
	struct tr_site *s = NULL;

	build_room(b, 75 + 2 * ea_bytes(b) + (ea_needs_both(b) ? 18 : 0)); /* the address is made twice */
	s = new_site(b, size, write);
	s->base = m->rip_relative ? SITE_BASE_RIP : m->base;
	s->index = m->index;
	s->shift = ea.shift;
	s->seg = m->seg;
	s->asize = b->in.adsize;
	s->disp = (s32)m->disp + (m->rip_relative ? b->in.len : 0);
	if (can && hold_find(b, &ea, size, write)) {
		gen_mark(b);
		return;
	}
	if (can)
		scan_group(b, &ea, &g);
	s->group = can && (g.lo != ea.disp || g.hi != ea.disp + (s64)size || g.write != write);
	s->disp += (s32)(g.lo - ea.disp);
	s->size = (u16)(g.hi - g.lo);
	s->write = g.write;
	s->host = (u32)emit_here(&b->e);
	hold_drop(b); /* the address may need S0 too */
	gen_ea(b, S1, (s32)(g.lo - ea.disp));
	if (s->size > 1 && !is_in_one_page(b, s)) {
		last_address(b, (s32)(g.lo - ea.disp), s->size, can);
		emit_rorx(&b->e, S0, S0, 12);
		emit_rorx(&b->e, S1, S1, 12);
		look_up(b, false, g.write, s);
	} else if (b->idx != MMU_KERNEL_AC) {
		look_up_one(b, g.write, s);
		b->s1_operand = true;
		b->s1_behind = (s32)(ea.disp - g.lo);
	} else {
		emit_rorx(&b->e, S1, S1, 12);
		look_up(b, true, g.write, s);
	}
	if (can)
		hold_keep(b, &ea, &g);
	gen_mark(b);
}

void gen_access_stored(struct build *b, unsigned size, bool write)
{
	struct hostmem address = MEM_VCPU(tr.address), last = mem_at(S1, (s32)size - 1);
	struct tr_site *s = NULL;

	build_room(b, 75);
	s = new_site(b, size, write);
	s->base = SITE_BASE_STORED;
	s->index = INSN_NO_REG;
	s->seg = SEG_DS;
	s->asize = 8;
	s->host = (u32)emit_here(&b->e);
	emit_load(&b->e, S1, &address, 8); /* again: after a miss the registers are not what they were */
	emit_lea(&b->e, S0, &last, 8);
	emit_rorx(&b->e, S0, S0, 12);
	emit_rorx(&b->e, S1, S1, 12);
	look_up(b, size == 1, write, s);
	gen_mark(b);
}

void gen_access(struct build *b, unsigned size, bool write)
{
	const struct insn_mem *m = &b->in.mem;

	b->s1_operand = false;
	if (is_simple(b))
		gen_access_at(b, m->base, (s32)m->disp, size, write);
	else
		gen_access_any(b, size, write);
}

static void park_addend(struct build *b, bool back)
{
	struct hostmem slot = MEM_VCPU(tr.addend);

	if (back)
		emit_load(&b->e, S0, &slot, 8);
	else
		emit_store(&b->e, &slot, S0, 8);
}

void gen_mark(struct build *b)
{
	b->site[b->nsites - 1].at = (u32)emit_here(&b->e);
}

struct hostmem gen_operand(struct build *b)
{
	const struct insn_mem *m = &b->in.mem;

	if (is_simple(b))
		return (struct hostmem){.base = (u8)host_of(m->base), .index = S0, .disp = (s32)m->disp};
	if (b->s1_operand)
		return (struct hostmem){.base = S1, .index = S0, .disp = b->s1_behind};
	if (ea_needs_both(b)) {
		park_addend(b, false);
		gen_ea(b, S1, 0);
		park_addend(b, true);
	} else {
		gen_ea(b, S1, 0);
	}
	gen_mark(b);
	return (struct hostmem){.base = S1, .index = S0};
}

void gen_operand_in_s0(struct build *b)
{
	struct hostmem m = gen_operand(b);

	emit_lea(&b->e, S0, &m, 8);
	hold_drop(b);
	gen_mark(b);
}
