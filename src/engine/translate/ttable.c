/* The address tables of translated code: filling, dropping, switching address spaces. See state.h for the scheme. */
#include <sys/mman.h>
#include <sys/syscall.h>

#include "engine/lib/lib.h"
#include "engine/translate/check.h"
#include "engine/translate/stress.h"
#include "engine/translate/tr_int.h"

#define MAX_TABLE_PAGES 2048 /* host pages a pair may keep over a flush */

static u64 table_base(const struct vcpu *cpu, unsigned pair, unsigned write)
{
	unsigned n = (unsigned)(((u64)cpu - ENG_VCPU_BASE) / ENG_VCPU_STRIDE);

	return ENG_TT_BASE + n * ENG_TT_STRIDE + (pair * 2 + write) * TT_SIZE;
}

static inline u64 *entry(const struct tt_pair *p, unsigned write, u64 page)
{
	return &p->t[write][(u32)(page >> 11)];
}

static unsigned touched_bit(u64 page)
{
	return (page >> 20 ^ page >> 32) & 4095;
}

bool tt_start(struct vcpu *cpu)
{
	u64 base = table_base(cpu, 0, 0);
	struct tr_state *s = &cpu->tr;

	_Static_assert(ENG_TT_BASE + ENG_TT_STRIDE * ENG_TT_VCPUS <= ENG_TOP, "tables lie in our space");
	_Static_assert(TT_VCPU_SIZE <= ENG_TT_STRIDE, "a vCPU's tables fit");
	if (base + TT_VCPU_SIZE > ENG_TT_BASE + ENG_TT_STRIDE * ENG_TT_VCPUS)
		return false;
	if (sys_call(SYS_mmap, base, TT_VCPU_SIZE, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) != (long)base)
		return false;
	for (unsigned i = 0; i < TTP_COUNT; i++) {
		s->pair[i].t[0] = (u64 *)table_base(cpu, i, 0);
		s->pair[i].t[1] = (u64 *)table_base(cpu, i, 1);
	}
	for (unsigned i = 0; i < 2; i++) {
		s->tt[i] = s->pair[0].t[i];
		s->tt[2 + i] = s->pair[TTP_KERNEL].t[i];
		s->tt[4 + i] = s->pair[TTP_KERNEL_AC].t[i];
	}
	return true;
}

static void flush_pair(struct tt_pair *p)
{
	for (u32 i = 0; i < p->nlog; i++) {
		u64 e = p->log[i];

		*entry(p, e & 1 ? 0 : 1, e) = 0;
	}
	p->nlog = 0;
	p->has_low = false;
	if (p->npages <= MAX_TABLE_PAGES)
		return;
	sys_call(SYS_madvise, p->t[0], TT_SIZE, MADV_DONTNEED);
	sys_call(SYS_madvise, p->t[1], TT_SIZE, MADV_DONTNEED);
	memset(p->touched, 0, sizeof(p->touched));
	p->npages = 0;
}

static struct tt_pair *pair_of(struct vcpu *cpu, enum mmu_idx idx)
{
	return &cpu->tr.pair[idx == MMU_USER ? cpu->tr.user_slot : idx == MMU_KERNEL ? TTP_KERNEL : TTP_KERNEL_AC];
}

static enum tt_fill install(struct tt_pair *p, u64 page, unsigned write, u64 addend)
{
	u64 *e = entry(p, write, page);
	unsigned n = touched_bit(page);

	if (*e == addend)
		return TT_SAME;
	if (p->nlog == TT_LOG || unlikely(tr_stress()->miss))
		flush_pair(p);
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
	return install(pair_of(cpu, idx), page, write, e->addend);
}

void tt_drop_write(struct vcpu *cpu, gva_t page, enum mmu_idx idx)
{
	*entry(pair_of(cpu, idx), 1, page) = 0;
}

/* ---- the TLB changed ---- */

void tr_tlb_reset(struct vcpu *cpu)
{
	if (!cpu->tr.on)
		return;
	cpu->tr.drops++;
	for (unsigned i = 0; i < TTP_COUNT; i++) {
		flush_pair(&cpu->tr.pair[i]);
		cpu->tr.pair[i].ctx = 0;
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
		if (s->pair[i].has_low)
			flush_pair(&s->pair[i]);
	jc_forget_low(cpu);
	while (n < TT_USER_CTX && s->pair[n].ctx != ctx)
		n++;
	if (n == TT_USER_CTX) {
		s->victim = (s->victim + 1) % TT_USER_CTX;
		n = s->victim;
		flush_pair(&s->pair[n]);
		s->pair[n].ctx = ctx;
		jc_forget_slot(cpu, n);
	}
	if (s->user_slot != n)
		jc_switch(cpu, n);
	s->tt[0] = s->pair[n].t[0];
	s->tt[1] = s->pair[n].t[1];
}

void tr_tlb_high_changed(struct vcpu *cpu)
{
	if (!cpu->tr.on)
		return;
	cpu->tr.drops++;
	flush_pair(&cpu->tr.pair[TTP_KERNEL]);
	flush_pair(&cpu->tr.pair[TTP_KERNEL_AC]);
	tr_forget_targets(cpu);
}

static void drop(struct tt_pair *p, u64 page)
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
	flush_pair(&cpu->tr.pair[cpu->tr.user_slot]);
	flush_pair(&cpu->tr.pair[TTP_KERNEL]);
	flush_pair(&cpu->tr.pair[TTP_KERNEL_AC]);
}

void tr_tlb_drop_page(struct vcpu *cpu, u64 a)
{
	struct tr_state *s = &cpu->tr;

	if (!s->on)
		return;
	s->drops++;
	for (unsigned i = 0; i < TT_USER_CTX; i++)
		if (a >> 63 || i == s->user_slot)
			drop(&s->pair[i], a & PAGE_MASK);
	drop(&s->pair[TTP_KERNEL], a & PAGE_MASK);
	drop(&s->pair[TTP_KERNEL_AC], a & PAGE_MASK);
}

void tr_tlb_drop_writes(struct vcpu *cpu, u64 gpa)
{
	if (!cpu->tr.on)
		return;
	cpu->tr.drops++;
	for (unsigned i = 0; i < TTP_COUNT; i++) {
		struct tt_pair *p = &cpu->tr.pair[i];

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
