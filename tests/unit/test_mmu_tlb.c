/*
 * The software TLB against a memory that is never cached: random changes of mappings, each followed by exactly the invalidation
 * the SDM asks for (3A 4.10.4), random switches of address space, random accesses. Every data page holds its own address, so a
 * stale entry shows as a wrong value.
 */
#include "mmu_fake.h"

#define SPACES 6
#define VAS    ARRAY_SIZE(vas)

/* Addresses that share TLB sets, lie in both halves, and sit inside what can become 2 MiB and 1 GiB pages. */
static const gva_t vas[] = {
	0x400000, 0x401000, 0x800000, 0x801000, 0x40000000, 0x40400000, 0x7fff00400000, 0x7fff00800000,
	0xffff800000400000, 0xffff800000401000, 0xffff800000800000, 0xffffffff80400000, 0xffffffff80800000,
};
static const u16 pcids[SPACES] = {1, 2, 65, 66, 129, 0xfff}; /* several share a slot of the PCID table */

struct space {
	gpa_t root;
	u16 pcid;
	gpa_t page[VAS]; /* what the tables say; 0: absent */
	bool global[VAS], writable[VAS];
	bool stale; /* tables changed with no invalidation yet: must be flushed before it is used again */
};

struct world {
	struct vcpu *cpu;
	struct space sp[SPACES];
	unsigned cur;
	gpa_t next_table;
};

static gpa_t new_table(struct world *w)
{
	gpa_t t = w->next_table;

	w->next_table += PAGE_SIZE;
	assert_true(w->next_table <= 0x400000);
	return t;
}

static gpa_t *entry_of(struct world *w, struct space *s, gva_t va, unsigned level)
{
	gpa_t t = s->root;

	for (unsigned l = 4; l > level; l--) {
		u64 *e = (u64 *)gpa_to_hva(t) + (va >> (3 + 9 * l) & 511);

		if (!(*e & P))
			*e = new_table(w) | P | W | U;
		t = *e & 0xfffffffffffff000 & ~NX;
	}
	return (u64 *)gpa_to_hva(t) + (va >> (3 + 9 * level) & 511);
}

static void set_mapping(struct world *w, struct space *s, unsigned i, gpa_t page, bool global, bool writable)
{
	s->page[i] = page;
	s->global[i] = global;
	s->writable[i] = writable;
	*entry_of(w, s, vas[i], 1) = page ? page | P | U | (writable ? W : 0) | (global ? G : 0) : 0;
}

static gpa_t random_page(void)
{
	return fake_rnd(10) ? 0x800000 + fake_rnd(4096) * PAGE_SIZE : 0;
}

static u64 cr3_of(const struct space *s)
{
	return s->root | s->pcid;
}

static void build(struct world *w)
{
	struct vcpu *cpu = fake_start();

	*w = (struct world){.cpu = cpu, .next_table = 0x1000};
	for (gpa_t a = 0x800000; a < FAKE_RAM; a += PAGE_SIZE)
		set64(a, a);
	cpu->cr0 = CR0_PG | CR0_WP | 1;
	cpu->cr4 = CR4_PAE | CR4_PGE | CR4_PCIDE;
	cpu->efer = EFER_LMA | EFER_NXE;
	mmu_update_paging(cpu, 0, 0, 0);
	for (unsigned n = 0; n < SPACES; n++) {
		w->sp[n].root = new_table(w);
		w->sp[n].pcid = pcids[n];
		for (unsigned i = 0; i < VAS; i++)
			set_mapping(w, &w->sp[n], i, random_page(), false, fake_rnd(2));
	}
	mmu_set_cr3(cpu, cr3_of(&w->sp[0]), false);
}

static void access(struct world *w, unsigned i)
{
	struct space *s = &w->sp[w->cur];
	enum mmu_idx idx = fake_rnd(2) ? MMU_USER : MMU_KERNEL;
	unsigned kind = (unsigned)fake_rnd(3);
	u64 v = 0;

	if (!s->page[i]) {
		assert_fault(v = mmu_read64_idx(w->cpu, vas[i], idx), EXC_PF, idx == MMU_USER ? PF_U : 0);
	} else if (kind == 0 && !s->writable[i]) {
		assert_fault(mmu_write64_idx(w->cpu, vas[i] + 8, 1, idx), EXC_PF, PF_P | PF_W | (idx == MMU_USER ? PF_U : 0));
	} else if (kind == 0) {
		u64 token = fake_rnd(BIT64(40));

		assert_int_equal(TRY(mmu_write64_idx(w->cpu, vas[i] + 8, token, idx)), EV_NONE);
		assert_int_equal(ram64(s->page[i] + 8), token);
	} else if (kind == 1) {
		assert_int_equal(TRY(v = mmu_read64_idx(w->cpu, vas[i], idx)), EV_NONE);
		assert_int_equal(v, s->page[i]);
	} else {
		w->cpu->mode.cpl = idx == MMU_USER ? 3 : 0;
		assert_int_equal(TRY(v = mmu_fetch_page(w->cpu, vas[i] + 5)), EV_NONE);
		assert_int_equal(v, s->page[i]);
	}
}

/* A private page of one space changes. */
static void change(struct world *w, unsigned n, unsigned i)
{
	struct space *s = &w->sp[n];

	if (s->global[i])
		return;
	set_mapping(w, s, i, random_page(), false, fake_rnd(2));
	if (n == w->cur) {
		if (fake_rnd(3))
			mmu_invlpg(w->cpu, vas[i] | fake_rnd(4096));
		else if (fake_rnd(2))
			mmu_invpcid(w->cpu, fake_rnd(2) ? 0 : 1, s->pcid, vas[i]);
		else
			mmu_flush_nonglobal(w->cpu);
	} else if (fake_rnd(2)) {
		mmu_invpcid(w->cpu, fake_rnd(2) ? 0 : 1, s->pcid, vas[i]);
	} else {
		s->stale = true;
	}
}

/* A page becomes global (the same in all spaces), changes, or ceases to be. */
static void change_global(struct world *w, unsigned i)
{
	gpa_t page = random_page();
	bool global = fake_rnd(3), writable = fake_rnd(2);

	for (unsigned n = 0; n < SPACES; n++)
		set_mapping(w, &w->sp[n], i, global ? page : random_page(), global && page, writable);
	if (fake_rnd(2)) { /* toggling CR4.PGE drops everything, in all PCIDs */
		w->cpu->cr4 ^= CR4_PGE;
		mmu_update_paging(w->cpu, w->cpu->cr0, w->cpu->cr4 ^ CR4_PGE, w->cpu->efer);
		w->cpu->cr4 ^= CR4_PGE;
		mmu_update_paging(w->cpu, w->cpu->cr0, w->cpu->cr4 ^ CR4_PGE, w->cpu->efer);
	} else {
		mmu_invpcid(w->cpu, 2, 0, 0);
	}
	for (unsigned n = 0; n < SPACES; n++)
		w->sp[n].stale = false;
}

static void switch_space(struct world *w)
{
	unsigned n = (unsigned)fake_rnd(SPACES);
	struct space *s = &w->sp[n];
	bool noflush = !s->stale && fake_rnd(4);

	w->cur = n;
	s->stale = false;
	mmu_set_cr3(w->cpu, cr3_of(s), noflush);
}

static void step(struct world *w)
{
	unsigned i = (unsigned)fake_rnd(VAS), n = (unsigned)fake_rnd(SPACES);

	switch (fake_rnd(20)) {
	case 0:
		switch_space(w);
		break;
	case 1:
	case 2:
		change(w, fake_rnd(2) ? w->cur : n, i);
		break;
	case 3:
		if (!fake_rnd(10))
			change_global(w, i);
		break;
	case 4:
		if (!fake_rnd(10)) {
			mmu_invpcid(w->cpu, 3, 0, 0);
			for (n = 0; n < SPACES; n++)
				w->sp[n].stale = false;
		}
		break;
	default:
		access(w, i);
	}
}

static void random_operations(void **s)
{
	struct world w;

	build(&w);
	for (unsigned k = 0; k < 400000; k++)
		step(&w);
	assert_true(w.cpu->stats.tlb_misses < 300000); /* it does cache */
}

/* A change of a global page is seen after INVLPG, whichever PCID is current. */
static void global_invlpg(void **s)
{
	struct world w;

	build(&w);
	for (unsigned k = 0; k < 20000; k++) {
		unsigned i = (unsigned)fake_rnd(VAS);
		gpa_t page = 0x800000 + fake_rnd(4096) * PAGE_SIZE;

		for (unsigned n = 0; n < SPACES; n++)
			set_mapping(&w, &w.sp[n], i, page, true, true);
		mmu_invlpg(w.cpu, vas[i]);
		for (unsigned n = 0; n < SPACES; n++)
			w.sp[n].stale = true; /* it was private there before */
		switch_space(&w);
		access(&w, i);
		access(&w, i);
	}
}

/*
 * More flushes than there are context numbers: the numbers come again, the entries must not; nor the interpreter's lookups, which
 * hold the numbers too.
 */
static void wraparound(void **s)
{
	unsigned wraps = 0, forgot = 0;
	struct world w;

	build(&w);
	forgot = fake.nforget;
	for (unsigned k = 0; k < 3 * TLB_CTX_MAX; k++) {
		unsigned i = (unsigned)(k % VAS);
		u64 before = w.cpu->tlb.ctx[0];

		access(&w, i);
		set_mapping(&w, &w.sp[w.cur], i, random_page(), false, true);
		if (k & 1)
			mmu_flush_all(w.cpu);
		else
			mmu_flush_nonglobal(w.cpu);
		assert_true(w.cpu->tlb.ctx[0] != w.cpu->tlb.ctx[1]);
		assert_true(w.cpu->tlb.ctx[0] <= TLB_CTX_MAX && w.cpu->tlb.ctx[1] <= TLB_CTX_MAX);
		wraps += w.cpu->tlb.ctx[0] < before;
		access(&w, i);
	}
	assert_true(wraps && fake.nforget - forgot >= wraps);
}

/* INVLPG of any address of a large page drops the whole of it. */
static void large_page(unsigned level, gva_t va)
{
	u64 size = BIT64(3 + 9 * level);
	struct world w;
	u64 *e;

	build(&w);
	e = entry_of(&w, &w.sp[0], va, level);
	for (unsigned k = 0; k < 500; k++) {
		gpa_t base = level == 3 ? 0 : 0x800000 + fake_rnd(16) * 0x200000;

		*e = base | P | W | U | PS | (fake_rnd(2) ? G : 0);
		mmu_invlpg(w.cpu, va + fake_rnd(size));
		for (unsigned j = 0; j < 20; j++) {
			u64 off = level == 3 ? 0x800000 + fake_rnd(4096) * PAGE_SIZE : fake_rnd(512) * PAGE_SIZE;
			u64 v = 0;

			assert_int_equal(TRY(v = mmu_read64_idx(w.cpu, va + off, MMU_KERNEL)), EV_NONE);
			assert_int_equal(v, base + off);
		}
		*e = 0;
		mmu_invlpg(w.cpu, va + fake_rnd(size));
		assert_fault(mmu_read64_idx(w.cpu, va + 0x800000 % size, MMU_KERNEL), EXC_PF, 0);
		for (unsigned j = 0; j < 20; j++) {
			u64 off = fake_rnd(size / PAGE_SIZE) * PAGE_SIZE;

			assert_fault(mmu_read64_idx(w.cpu, va + off, MMU_KERNEL), EXC_PF, 0);
		}
	}
}

static void large_2m(void **s)
{
	large_page(2, 0xc0000000);
	large_page(2, 0xffffffffc0200000);
}

static void large_1g(void **s)
{
	large_page(3, 0x8000000000);
	large_page(3, 0xffffff8040000000);
}

/* SMAP and AC choose different arrays: a page seen with AC set is not visible with AC clear. */
static void smap_indices(void **s)
{
	struct world w;

	build(&w);
	w.cpu->cr4 |= CR4_SMAP;
	mmu_update_paging(w.cpu, w.cpu->cr0, w.cpu->cr4 & ~CR4_SMAP, w.cpu->efer);
	set_mapping(&w, &w.sp[0], 0, 0x900000, false, true);
	assert_int_equal(TRY(mmu_read64_idx(w.cpu, vas[0], MMU_KERNEL_AC)), EV_NONE);
	assert_fault(mmu_read64_idx(w.cpu, vas[0], MMU_KERNEL), EXC_PF, PF_P);
	assert_fault(mmu_write64_idx(w.cpu, vas[0], 1, MMU_KERNEL), EXC_PF, PF_P | PF_W);
	assert_int_equal(TRY(mmu_read64_idx(w.cpu, vas[0], MMU_USER)), EV_NONE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(random_operations), cmocka_unit_test(global_invlpg), cmocka_unit_test(wraparound),
		cmocka_unit_test(large_2m), cmocka_unit_test(large_1g), cmocka_unit_test(smap_indices),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
