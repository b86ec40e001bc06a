/* The software TLB: contexts, installing, dropping. See tlb.h for the scheme. */
#include "engine/cell/cell.h"
#include "engine/interp/interp.h"
#include "engine/mmu/mmu_int.h"
#include "engine/translate/tr.h"

#define PCID_SLOTS 64
#define NO_PCID    0xffff

static void drop_everything(struct vcpu *cpu)
{
	struct tlb *t = &cpu->tlb;

	for (unsigned i = 0; i < MMU_IDX_COUNT; i++)
		for (unsigned j = 0; j < TLB_SIZE; j++)
			t->e[i][j].tag_r = t->e[i][j].tag_w = t->e[i][j].tag_x = TLB_INVALID_TAG;
	for (unsigned i = 0; i < PCID_SLOTS; i++)
		t->as.pcid_tag[i] = NO_PCID;
	memset(t->as.large_2m, 0, sizeof(t->as.large_2m));
	memset(t->as.large_1g, 0, sizeof(t->as.large_1g));
	t->as.nhigh_nonglobal = 0;
	t->as.next = 1;
	tr_tlb_reset(cpu);
	if (cpu->cells)
		cell_contexts_reset(cpu);
	interp_forget_lookups(cpu); /* their tags hold context numbers, which are now used anew */
}

static u16 current_pcid(const struct vcpu *cpu)
{
	return cpu->cr4 & CR4_PCIDE ? cpu->cr3 & 0xfff : 0;
}

/* A context number never used since the last wrap-around. May drop everything, contexts in use included. */
static u16 new_context(struct vcpu *cpu)
{
	struct tlb *t = &cpu->tlb;

	if (t->as.next > TLB_CTX_MAX) {
		drop_everything(cpu);
		t->ctx[0] = t->as.next++;
		t->ctx[1] = t->as.next++;
	}
	return t->as.next++;
}

static void renew_high(struct vcpu *cpu)
{
	cpu->tlb.ctx[1] = new_context(cpu);
	cpu->tlb.as.nhigh_nonglobal = 0;
}

static void renew_low(struct vcpu *cpu)
{
	struct tlb *t = &cpu->tlb;
	u16 pcid = current_pcid(cpu), c = new_context(cpu);

	t->ctx[0] = c;
	t->as.pcid_tag[pcid % PCID_SLOTS] = pcid;
	t->as.pcid_ctx[pcid % PCID_SLOTS] = c;
}

/* The address tables of translated code follow the contexts. */
static void contexts_changed(struct vcpu *cpu)
{
	const u64 *ctx = cpu->tlb.ctx;
	u64 *seen = cpu->tr.seen_ctx;

	if (ctx[1] != seen[1]) {
		seen[1] = ctx[1];
		tr_tlb_high_changed(cpu);
	}
	if (ctx[0] != seen[0]) {
		seen[0] = ctx[0];
		tr_tlb_low_changed(cpu);
	}
	if (cpu->cells)
		cell_space_changed(cpu);
}

void mmu_reset(struct vcpu *cpu)
{
	drop_everything(cpu);
	mmu_flush_all(cpu);
}

void mmu_flush_all(struct vcpu *cpu)
{
	struct tlb *t = &cpu->tlb;

	cpu->stats.tlb_flushes++;
	for (unsigned i = 0; i < PCID_SLOTS; i++)
		t->as.pcid_tag[i] = NO_PCID;
	memset(t->as.large_2m, 0, sizeof(t->as.large_2m));
	memset(t->as.large_1g, 0, sizeof(t->as.large_1g));
	renew_high(cpu);
	renew_low(cpu);
	contexts_changed(cpu);
}

static void drop_page(struct vcpu *cpu, gva_t a)
{
	tr_tlb_drop_page(cpu, a);
	if (cpu->cells)
		cell_drop_page(cpu, a);
	for (unsigned i = 0; i < MMU_IDX_COUNT; i++) {
		struct tlb_entry *e = &cpu->tlb.e[i][tlb_index(a)];

		e->tag_r = e->tag_w = e->tag_x = TLB_INVALID_TAG;
	}
}

/* Of what a new address space does not share: few pages, as a rule, and the others are to stay. */
static void drop_high_nonglobal(struct vcpu *cpu)
{
	const struct tlb *t = &cpu->tlb;

	if (t->as.nhigh_nonglobal > TLB_NONGLOBAL) {
		renew_high(cpu);
		return;
	}
	for (u32 i = 0; i < t->as.nhigh_nonglobal; i++) {
		drop_page(cpu, t->as.high_nonglobal[i]);
		interp_forget_page(cpu, t->as.high_nonglobal[i]);
	}
	cpu->tlb.as.nhigh_nonglobal = 0;
}

void mmu_flush_nonglobal(struct vcpu *cpu)
{
	cpu->stats.tlb_flushes++;
	drop_high_nonglobal(cpu);
	renew_low(cpu);
	contexts_changed(cpu);
}

void mmu_set_cr3(struct vcpu *cpu, u64 cr3, bool noflush)
{
	struct tlb *t = &cpu->tlb;
	u16 pcid;

	cpu->cr3 = cr3;
	pcid = current_pcid(cpu);
	drop_high_nonglobal(cpu);
	if (noflush && t->as.pcid_tag[pcid % PCID_SLOTS] == pcid) {
		t->ctx[0] = t->as.pcid_ctx[pcid % PCID_SLOTS];
	} else {
		cpu->stats.tlb_flushes++;
		renew_low(cpu);
	}
	contexts_changed(cpu);
}

/* All pieces of a large page: entries whose address lies in its range. */
static void drop_range(struct vcpu *cpu, gva_t base, u64 size)
{
	tr_tlb_drop_range(cpu);
	if (cpu->cells)
		cell_drop_range(cpu);
	for (unsigned i = 0; i < MMU_IDX_COUNT; i++) {
		for (unsigned j = 0; j < TLB_SIZE; j++) {
			struct tlb_entry *e = &cpu->tlb.e[i][j];

			if (e->tag_r - base < size || e->tag_w - base < size || e->tag_x - base < size)
				e->tag_r = e->tag_w = e->tag_x = TLB_INVALID_TAG;
		}
	}
}

static bool hint(const u64 *map, unsigned words, u64 n)
{
	n %= words * 64;
	return map[n / 64] >> (n % 64) & 1;
}

void mmu_invlpg(struct vcpu *cpu, gva_t a)
{
	const struct tlb *t = &cpu->tlb;

	if (hint(t->as.large_1g[a >> 63], 8, a >> 30)) {
		drop_range(cpu, a & ~0x3fffffffull, BIT64(30));
		interp_forget_lookups(cpu);
	} else if (hint(t->as.large_2m[a >> 63], 64, a >> 21) || hint(t->as.large_2m[a >> 63], 64, (a >> 21) ^ 1)) {
		drop_range(cpu, a & ~0x3fffffull, BIT64(22)); /* 4 MiB pages too */
		interp_forget_lookups(cpu);
	} else {
		drop_page(cpu, a);
		interp_forget_page(cpu, a);
	}
}

void mmu_invpcid(struct vcpu *cpu, unsigned type, u16 pcid, gva_t a)
{
	struct tlb *t = &cpu->tlb;

	if (type == 2) {
		mmu_flush_all(cpu);
		return;
	}
	if (type == 3) {
		for (unsigned i = 0; i < PCID_SLOTS; i++)
			t->as.pcid_tag[i] = NO_PCID;
		mmu_flush_nonglobal(cpu);
		return;
	}
	if (pcid != current_pcid(cpu)) {
		if (t->as.pcid_tag[pcid % PCID_SLOTS] == pcid)
			t->as.pcid_tag[pcid % PCID_SLOTS] = NO_PCID;
	} else if (type == 0) {
		mmu_invlpg(cpu, a);
	} else {
		mmu_flush_nonglobal(cpu);
	}
}

void mmu_update_paging(struct vcpu *cpu, u64 old_cr0, u64 old_cr4, u64 old_efer)
{
	u64 cr0 = old_cr0 ^ cpu->cr0, cr4 = old_cr4 ^ cpu->cr4, efer = old_efer ^ cpu->efer;

	if (cr0 & (CR0_PG | CR0_WP) ||
	    cr4 & (CR4_PSE | CR4_PAE | CR4_PGE | CR4_PCIDE | CR4_SMEP | CR4_SMAP) || efer & (EFER_LMA | EFER_NXE))
		mmu_flush_all(cpu);
}

static void note_writable(struct tlb *t, gpa_t gpa)
{
	u64 n = gpa >> PAGE_SHIFT;

	if (n < TLB_LOW_PAGES)
		t->writable[n / 64] |= BIT64(n % 64);
}

static void note_nonglobal(struct tlb *t, gva_t page)
{
	u32 n = t->as.nhigh_nonglobal;

	for (u32 i = 0; i < MIN(n, TLB_NONGLOBAL); i++)
		if (t->as.high_nonglobal[i] == page)
			return;
	if (n < TLB_NONGLOBAL)
		t->as.high_nonglobal[n] = page;
	if (n <= TLB_NONGLOBAL)
		t->as.nhigh_nonglobal++;
}

void tlb_install(struct vcpu *cpu, gva_t a, const struct walk *w, enum access_type t, enum mmu_idx idx)
{
	struct tlb *tlb = &cpu->tlb;
	struct tlb_entry *e = &tlb->e[idx][tlb_index(a)];
	u64 page = a & PAGE_MASK, tag = page | tlb->ctx[a >> 63];
	u64 addend = (u64)gpa_to_hva(w->gpa) - page;
	u8 attr = __atomic_load_n(page_attr(w->gpa), __ATOMIC_RELAXED);

	if (idx == MMU_USER_AC || mmu_watched_page(cpu, page))
		return;
	if (a >> 63 && !w->global)
		note_nonglobal(tlb, page);
	if (w->shift >= 30)
		tlb->as.large_1g[a >> 63][(a >> 30) % 512 / 64] |= BIT64((a >> 30) % 64);
	else if (w->shift > 12)
		tlb->as.large_2m[a >> 63][(a >> 21) % 4096 / 64] |= BIT64((a >> 21) % 64);
	if (e->addend != addend || (e->tag_r != tag && e->tag_w != tag && e->tag_x != tag))
		e->tag_r = e->tag_w = e->tag_x = TLB_INVALID_TAG;
	e->addend = addend;
	if (t == ACC_EXEC) {
		e->tag_x = tag;
		return;
	}
	e->tag_r = tag;
	if (t == ACC_WRITE && !(attr & (PA_RO | PA_CODE | PA_TABLE)) && (!(attr & PA_LOG) || attr & PA_DIRTY)) {
		e->tag_w = tag;
		note_writable(tlb, w->gpa);
	}
}

/* Whether an entry may allow writing to the page; from now on none will. */
static bool forget_writable(struct tlb *t, gpa_t gpa)
{
	u64 n = gpa >> PAGE_SHIFT, bit = BIT64(n % 64);
	bool was = false;

	if (n >= TLB_LOW_PAGES)
		return true;
	was = t->writable[n / 64] & bit;
	t->writable[n / 64] &= ~bit;
	return was;
}

void tlb_note_writable(struct vcpu *cpu, gpa_t gpa)
{
	note_writable(&cpu->tlb, gpa);
}

/* The page has code now, or its log was read: nobody may write it without the slow path. gpa ~0: any page. */
void tlb_drop_writes(struct vcpu *cpu, gpa_t gpa)
{
	if (gpa != ~0ull && !forget_writable(&cpu->tlb, gpa))
		return;
	tr_tlb_drop_writes(cpu, gpa);
	if (cpu->cells)
		cell_drop_writes(cpu, gpa);
	for (unsigned i = 0; i < MMU_IDX_COUNT; i++) {
		for (unsigned j = 0; j < TLB_SIZE; j++) {
			struct tlb_entry *e = &cpu->tlb.e[i][j];

			if (e->tag_w == TLB_INVALID_TAG)
				continue;
			if (gpa == ~0ull || (e->tag_w & PAGE_MASK) + e->addend == (u64)gpa_to_hva(gpa))
				e->tag_w = TLB_INVALID_TAG;
		}
	}
}
