/*
 * Page-table walks (SDM 3A ch. 4): 2-level, PAE and 4-level, in one loop over a table that describes the format. Sets A and D
 * bits as the processor does: atomically, A in every entry used once the translation is known to be good, D on a write.
 */
#include "engine/mmu/mmu_int.h"
#include "engine/trace/trace.h"

#define PTE_P   BIT64(0)
#define PTE_W   BIT64(1)
#define PTE_U   BIT64(2)
#define PTE_A   BIT64(5)
#define PTE_D   BIT64(6)
#define PTE_PS  BIT64(7)
#define PTE_G   BIT64(8)
#define PTE_NX  BIT64(63)

#define ADDR_MASK    ((ENG_GPA_LIMIT - 1) & PAGE_MASK)
#define RSVD_HIGH    (0x000fffffffffffffull & ~(ENG_GPA_LIMIT - 1)) /* bits 51..MAXPHYADDR */

struct paging_format {
	u8 levels;
	u8 entry_size;
	u8 shift[4];      /* of the index at each level, top first */
	u16 index_mask;
	bool large[4];    /* PS allowed there */
};

static const struct paging_format formats[] = {
	[PAGING_32] = {.levels = 2, .entry_size = 4, .shift = {22, 12}, .index_mask = 1023, .large = {true, false}},
	[PAGING_PAE] = {.levels = 2, .entry_size = 8, .shift = {21, 12}, .index_mask = 511, .large = {true, false}},
	[PAGING_4] = {.levels = 4, .entry_size = 8, .shift = {39, 30, 21, 12}, .index_mask = 511,
		      .large = {false, true, true, false}},
};

enum paging_kind mmu_paging_kind(const struct vcpu *cpu)
{
	if (!(cpu->cr0 & CR0_PG))
		return PAGING_OFF;
	if (cpu->efer & EFER_LMA)
		return PAGING_4;
	return cpu->cr4 & CR4_PAE ? PAGING_PAE : PAGING_32;
}

/* One entry. Tables outside RAM read as absent. */
static u64 read_entry(gpa_t a, unsigned size)
{
	if (!phys_is_ram(a))
		return 0;
	if (size == 4)
		return __atomic_load_n((u32 *)gpa_to_hva(a), __ATOMIC_RELAXED);
	return __atomic_load_n((u64 *)gpa_to_hva(a), __ATOMIC_RELAXED);
}

/* Sets bits in an entry if it is still what was read; false: it changed, walk again. */
static bool set_bits(struct vcpu *cpu, gpa_t a, unsigned size, u64 old, u64 bits)
{
	u8 attr;

	if ((old & bits) == bits)
		return true;
	attr = __atomic_load_n(page_attr(a), __ATOMIC_RELAXED);
	if (attr & PA_RO)
		return true; /* a table in ROM keeps its bits */
	mmu_note_write(cpu, a, size);
	if (TRACING(cpu, PT))
		trace_table_store(cpu, a, old, old | bits, size, true);
	if (size == 4) {
		u32 o = (u32)old;

		return __atomic_compare_exchange_n((u32 *)gpa_to_hva(a), &o, o | (u32)bits, false, __ATOMIC_SEQ_CST,
						   __ATOMIC_RELAXED);
	}
	return __atomic_compare_exchange_n((u64 *)gpa_to_hva(a), &old, old | bits, false, __ATOMIC_SEQ_CST,
					   __ATOMIC_RELAXED);
}

/* Reserved bits of an entry (SDM 3A 4.4.2, 4.5.5 and tables 4-14 ff). */
static u64 reserved_bits(const struct vcpu *cpu, enum paging_kind kind, unsigned level, u64 e)
{
	const struct paging_format *f = &formats[kind];
	u64 r;

	if (kind == PAGING_32) {
		if (level == 0 && e & PTE_PS && cpu->cr4 & CR4_PSE)
			return BIT64(21) | (0x1fe000ull & ~((((1ull << (ENG_GPA_BITS - 32)) - 1) << 13) & 0x1fe000));
		return 0;
	}
	r = RSVD_HIGH;
	if (!(cpu->efer & EFER_NXE))
		r |= PTE_NX;
	if (kind == PAGING_PAE)
		r |= 0x7ff0000000000000ull;
	if (e & PTE_PS) {
		if (f->large[level])
			r |= (BIT64(f->shift[level]) - 1) & ~0x1fffull;
		else if (f->shift[level] != 12)
			r |= PTE_PS;
	}
	return r;
}

struct walk_step {
	gpa_t addr;
	u64 entry;
};

static bool permitted(const struct vcpu *cpu, const struct walk *w, enum access_type t, enum mmu_idx idx)
{
	if (idx_is_user(idx)) {
		if (!w->user || (t == ACC_WRITE && !w->writable))
			return false;
	} else {
		if (t == ACC_EXEC) {
			if (w->user && cpu->cr4 & CR4_SMEP)
				return false;
		} else if (w->user && cpu->cr4 & CR4_SMAP && idx != MMU_KERNEL_AC) {
			return false;
		}
		if (t == ACC_WRITE && !w->writable && cpu->cr0 & CR0_WP)
			return false;
	}
	return t != ACC_EXEC || !w->nx;
}

static u32 error_code(const struct vcpu *cpu, enum access_type t, enum mmu_idx idx)
{
	bool fetch = t == ACC_EXEC && (cpu->cr4 & CR4_SMEP || (cpu->cr4 & CR4_PAE && cpu->efer & EFER_NXE));

	return (t == ACC_WRITE ? PF_W : 0) | (idx_is_user(idx) ? PF_U : 0) | (fetch ? PF_I : 0);
}

/* Descends; fills w and the steps. Returns a fault's P and RSVD bits, or ~0 if the entry is found. */
static u32 descend(const struct vcpu *cpu, enum paging_kind kind, gva_t a, struct walk *w, struct walk_step *s,
		   unsigned *steps)
{
	const struct paging_format *f = &formats[kind];
	gpa_t table = cpu->cr3 & ADDR_MASK;

	*w = (struct walk){.writable = true, .user = true};
	*steps = 0;
	if (kind == PAGING_PAE) {
		u64 pdpte = cpu->pdpte[(a >> 30) & 3];

		if (!(pdpte & PTE_P))
			return 0;
		table = pdpte & ADDR_MASK;
	}
	for (unsigned level = 0; level < f->levels; level++) {
		unsigned shift = f->shift[level];
		gpa_t at = table + ((a >> shift) & f->index_mask) * f->entry_size;
		u64 e = read_entry(at, f->entry_size);
		bool leaf;

		s[*steps] = (struct walk_step){at, e};
		w->tables = (u8)(level + 1);
		if (!(e & PTE_P))
			return 0;
		if (e & reserved_bits(cpu, kind, level, e))
			return PF_P | PF_RSVD;
		(*steps)++;
		w->writable &= !!(e & PTE_W);
		w->user &= !!(e & PTE_U);
		w->nx |= e & PTE_NX && cpu->efer & EFER_NXE && kind != PAGING_32;
		leaf = level == f->levels - 1u ||
		       (e & PTE_PS && f->large[level] && (kind != PAGING_32 || cpu->cr4 & CR4_PSE));
		if (!leaf) {
			table = e & ADDR_MASK;
			continue;
		}
		w->shift = (u8)shift;
		w->global = e & PTE_G && cpu->cr4 & CR4_PGE;
		w->dirty = e & PTE_D;
		if (kind == PAGING_32 && shift == 22) /* PSE-36 */
			w->gpa = ((e & 0xffc00000) | ((e & 0x1fe000) << 19)) & ADDR_MASK;
		else
			w->gpa = e & ADDR_MASK & ~(BIT64(shift) - 1);
		w->gpa |= a & (BIT64(shift) - 1) & PAGE_MASK;
		return ~0u;
	}
	return 0;
}

u32 mmu_walk(struct vcpu *cpu, gva_t a, enum access_type t, enum mmu_idx idx, struct walk *w)
{
	enum paging_kind kind = mmu_paging_kind(cpu);
	struct walk_step s[4];
	unsigned steps;

	cpu->stats.tlb_walks++;
	if (kind == PAGING_OFF) {
		*w = (struct walk){.gpa = a & PAGE_MASK & 0xffffffff, .writable = true, .user = true, .dirty = true,
				   .global = true, .shift = 12};
		return 0;
	}
	for (;;) {
		bool stable = true;
		u32 r = descend(cpu, kind, a, w, s, &steps);

		for (unsigned i = 0; TRACING(cpu, PT) && i < w->tables; i++)
			trace_mark_table(cpu, s[i].addr);
		if (r != ~0u)
			return PF_FAULT | r | error_code(cpu, t, idx);
		if (!permitted(cpu, w, t, idx))
			return PF_FAULT | PF_P | error_code(cpu, t, idx);
		for (unsigned i = 0; i < steps && stable; i++) {
			u64 bits = PTE_A | (i == steps - 1 && t == ACC_WRITE ? PTE_D : 0);

			stable = set_bits(cpu, s[i].addr, formats[kind].entry_size, s[i].entry, bits);
		}
		if (stable) {
			w->dirty |= t == ACC_WRITE;
			return 0;
		}
	}
}

bool mmu_translate_debug(struct vcpu *cpu, gva_t a, gpa_t *gpa, bool *writable, bool *user)
{
	enum paging_kind kind = mmu_paging_kind(cpu);
	struct walk_step s[4];
	struct walk w;
	unsigned steps;

	if (kind == PAGING_OFF) {
		*gpa = a & 0xffffffff;
		*writable = *user = true;
		return true;
	}
	if (descend(cpu, kind, a, &w, s, &steps) != ~0u)
		return false;
	*gpa = w.gpa | (a & ~PAGE_MASK);
	*writable = w.writable;
	*user = w.user;
	return true;
}

static void combine(const struct vcpu *cpu, struct mmu_span *s, u64 e)
{
	s->writable &= !!(e & PTE_W);
	s->user &= !!(e & PTE_U);
	s->nx |= e & PTE_NX && cpu->efer & EFER_NXE;
	s->accessed &= !!(e & PTE_A);
}

bool mmu_span_find(const struct vcpu *cpu, gva_t a, struct mmu_span *s)
{
	const struct paging_format *f = &formats[PAGING_4];
	gpa_t table = cpu->cr3 & ADDR_MASK;

	*s = (struct mmu_span){.writable = true, .user = true, .accessed = true};
	for (unsigned level = 0; level < 3; level++) {
		unsigned shift = f->shift[level];
		u64 e = read_entry(table + ((a >> shift) & f->index_mask) * 8, 8);

		if (!(e & PTE_P) || e & reserved_bits(cpu, PAGING_4, level, e))
			return false;
		if (e & PTE_PS && f->large[level]) {
			s->large = e;
			s->first = (e & ADDR_MASK & ~(BIT64(shift) - 1)) | (a & (BIT64(shift) - 1) & ~(BIT64(21) - 1));
			return true;
		}
		combine(cpu, s, e);
		table = e & ADDR_MASK;
	}
	s->table = table;
	return true;
}

bool mmu_span_page(const struct vcpu *cpu, const struct mmu_span *s, unsigned i, struct walk *w)
{
	u64 e = s->large ? s->large : read_entry(s->table + i * 8, 8);
	struct mmu_span all = *s;

	if (!(e & PTE_P) || (!s->large && e & reserved_bits(cpu, PAGING_4, 3, e)))
		return false;
	combine(cpu, &all, e);
	*w = (struct walk){.gpa = s->large ? s->first + ((u64)i << PAGE_SHIFT) : e & ADDR_MASK, .shift = 12, .writable = all.writable,
			   .user = all.user, .nx = all.nx, .dirty = e & PTE_D, .accessed = all.accessed};
	return true;
}

bool mmu_load_pdptes(struct vcpu *cpu, u64 cr3)
{
	gpa_t at = cr3 & 0xffffffe0;
	u64 e[4];

	for (unsigned i = 0; i < 4; i++) {
		e[i] = read_entry(at + i * 8, 8);
		if (e[i] & PTE_P && e[i] & (RSVD_HIGH | 0xfff00000000001e6ull))
			return false;
	}
	memcpy(cpu->pdpte, e, sizeof(e));
	return true;
}
