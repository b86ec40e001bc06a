/* The address tables of translated code: filling, dropping, switching address spaces. See state.h for the scheme. */
#include <sys/mman.h>
#include <sys/syscall.h>

#include "engine/lib/lib.h"
#include "engine/translate/check.h"
#include "engine/translate/stress.h"
#include "engine/translate/tr_int.h"

#define MAX_TABLE_PAGES 2048 /* host pages a table may keep over a flush */

static inline u64 *entry(const struct tt_table *p, unsigned write, u64 page)
{
	return &p->t[(u32)(page >> 11) ^ (write ? TT_WRITE : 0)];
}

static unsigned touched_bit(u64 page)
{
	return (page >> 20 ^ page >> 32) & 4095;
}

static u64 space(const struct vcpu *cpu)
{
	return (u64)cpu - ENG_VCPU_STATE;
}

u64 tt_user_area(const struct vcpu *cpu, unsigned slot)
{
	return space(cpu) + ENG_TT_USER + slot * ENG_TT_USER_EACH;
}

bool tt_start(struct vcpu *cpu)
{
	u64 at = space(cpu) + ENG_TT_KERNEL, size = ENG_VCPU_SPACE - ENG_TT_KERNEL;

	_Static_assert(ENG_VCPU_LOW + ENG_VCPU_SPACE * ENG_VCPU_NLOW <= ENG_RAM_BASE + (4ull << 40), "the lower ones end there");
	_Static_assert(ENG_VCPU_HIGH >= ENG_RAM_BASE + ENG_GPA_LIMIT + (4ull << 40), "the upper ones begin behind");
	_Static_assert(ENG_VCPU_HIGH + ENG_VCPU_SPACE * (ENG_VCPU_NTABLES - ENG_VCPU_NLOW) <= ENG_TOP, "they lie in our space");
	_Static_assert(ENG_TT_SIZE == TT_SIZE && TT_USER_CTX == 4, "tables fit");
	if (eng_vcpu_at(at) >= ENG_VCPU_NTABLES)
		return false;
	if (sys_call(SYS_mmap, at, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) != (long)at)
		return false;
	for (unsigned i = 0; i < TT_USER_CTX; i++)
		cpu->tr.table[i].t = (u64 *)(tt_user_area(cpu, i) + ENG_JC_USER_SIZE);
	cpu->tr.table[TTP_KERNEL].t = (u64 *)(space(cpu) + ENG_TT_KERNEL);
	cpu->tr.table[TTP_KERNEL_AC].t = (u64 *)(space(cpu) + ENG_TT_KERNEL_AC);
	cpu->tr.tt_ac = cpu->tr.table[TTP_KERNEL_AC].t;
	return true;
}

static void flush_table(struct tt_table *p)
{
	for (u32 i = 0; i < p->nlog; i++) {
		u64 e = p->log[i];

		*entry(p, e & 1 ? 0 : 1, e) = 0;
	}
	p->nlog = 0;
	p->has_low = false;
	if (p->npages <= MAX_TABLE_PAGES)
		return;
	sys_call(SYS_madvise, p->t, TT_SIZE, MADV_DONTNEED);
	memset(p->touched, 0, sizeof(p->touched));
	p->npages = 0;
}

static struct tt_table *table_of(struct vcpu *cpu, enum mmu_idx idx)
{
	return &cpu->tr.table[idx == MMU_USER ? cpu->tr.user_slot : idx == MMU_KERNEL ? TTP_KERNEL : TTP_KERNEL_AC];
}

static enum tt_fill install(struct tt_table *p, u64 page, unsigned write, u64 addend)
{
	u64 *e = entry(p, write, page);
	unsigned n = touched_bit(page);

	if (*e == addend)
		return TT_SAME;
	if (p->nlog == TT_LOG || unlikely(tr_stress()->miss))
		flush_table(p);
	if (!(p->touched[n >> 6] >> (n & 63) & 1)) {
		p->touched[n >> 6] |= BIT64(n & 63);
		p->npages++;
	}
	p->log[p->nlog++] = page | (write ? 2 : 1);
	p->has_low |= !(page >> 63);
	*e = addend;
	return TT_FILLED;
}

enum tt_fill tt_fill(struct vcpu *cpu, gva_t a, unsigned size, bool write, enum mmu_idx idx)
{
	const struct tlb_entry *e = &cpu->tlb.e[idx][tlb_index(a)];
	u64 page = a & PAGE_MASK, tag = page | cpu->tlb.ctx[a >> 63];

	if ((a & ~PAGE_MASK) + size > PAGE_SIZE || idx == MMU_USER_AC || (write ? e->tag_w : e->tag_r) != tag)
		return TT_NONE;
	return install(table_of(cpu, idx), page, write, e->addend);
}

void tt_drop_write(struct vcpu *cpu, gva_t page, enum mmu_idx idx)
{
	*entry(table_of(cpu, idx), 1, page) = 0;
}

/* ---- the TLB changed ---- */

void tr_tlb_reset(struct vcpu *cpu)
{
	if (!cpu->tr.on)
		return;
	cpu->tr.drops++;
	for (unsigned i = 0; i < TTP_COUNT; i++) {
		flush_table(&cpu->tr.table[i]);
		cpu->tr.table[i].ctx = 0;
	}
	tr_forget_targets(cpu);
}

void tr_tlb_low_changed(struct vcpu *cpu)
{
	struct tr_state *s = &cpu->tr;
	u32 ctx = (u32)cpu->tlb.ctx[0], n = 0;

	if (!s->on)
		return;
	s->drops++;
	for (unsigned i = TTP_KERNEL; i <= TTP_KERNEL_AC; i++)
		if (s->table[i].has_low)
			flush_table(&s->table[i]);
	jc_forget_low(cpu);
	while (n < TT_USER_CTX && s->table[n].ctx != ctx)
		n++;
	if (n == TT_USER_CTX) {
		s->victim = (s->victim + 1) % TT_USER_CTX;
		n = s->victim;
		flush_table(&s->table[n]);
		s->table[n].ctx = ctx;
		jc_forget_slot(cpu, n);
	}
	if (s->user_slot != n)
		jc_switch(cpu, n);
}

void tr_tlb_high_changed(struct vcpu *cpu)
{
	if (!cpu->tr.on)
		return;
	cpu->tr.drops++;
	flush_table(&cpu->tr.table[TTP_KERNEL]);
	flush_table(&cpu->tr.table[TTP_KERNEL_AC]);
	tr_forget_targets(cpu);
}

static void drop(struct tt_table *p, u64 page)
{
	unsigned n = touched_bit(page);

	if (!(p->touched[n >> 6] >> (n & 63) & 1))
		return;
	for (unsigned w = 0; w < 2; w++)
		if (*entry(p, w, page))
			*entry(p, w, page) = 0;
}

void tr_tlb_drop_range(struct vcpu *cpu)
{
	if (!cpu->tr.on)
		return;
	cpu->tr.drops++;
	flush_table(&cpu->tr.table[cpu->tr.user_slot]);
	flush_table(&cpu->tr.table[TTP_KERNEL]);
	flush_table(&cpu->tr.table[TTP_KERNEL_AC]);
}

void tr_tlb_drop_page(struct vcpu *cpu, u64 a)
{
	struct tr_state *s = &cpu->tr;

	if (!s->on)
		return;
	s->drops++;
	for (unsigned i = 0; i < TT_USER_CTX; i++)
		if (a >> 63 || i == s->user_slot)
			drop(&s->table[i], a & PAGE_MASK);
	drop(&s->table[TTP_KERNEL], a & PAGE_MASK);
	drop(&s->table[TTP_KERNEL_AC], a & PAGE_MASK);
}

void tr_tlb_drop_writes(struct vcpu *cpu, u64 gpa)
{
	if (!cpu->tr.on)
		return;
	cpu->tr.drops++;
	for (unsigned i = 0; i < TTP_COUNT; i++) {
		struct tt_table *p = &cpu->tr.table[i];

		for (u32 j = 0; j < p->nlog; j++) {
			u64 page = p->log[j] & PAGE_MASK, *e = NULL;

			if (!(p->log[j] & 2))
				continue;
			e = entry(p, 1, page);
			if (*e && (gpa == ~0ull || *e + page == (u64)gpa_to_hva(gpa & PAGE_MASK)))
				*e = 0;
		}
	}
}
