/*
 * Page-table walks against a second, plain reading of SDM 3A ch. 4: random tables, every kind of access; results, error codes
 * and all of memory (A and D bits) must agree.
 */
#include "mmu_fake.h"

#define TABLES 16ull /* the first pages of RAM hold tables */

enum mode { M_32, M_PAE, M_4 };

struct result {
	bool fault;
	u32 error;
	gpa_t gpa;
	bool writable, user, nx, global;
	unsigned n;
	struct {
		gpa_t at;
		u64 set;
	} step[4];
};

struct query {
	enum mode mode;
	gva_t va;
	bool user, write, fetch, ac;
};

static u64 fetch_entry(gpa_t at, unsigned size)
{
	u64 v = 0;

	if (at >= FAKE_RAM)
		return 0;
	memcpy(&v, gpa_to_hva(at), size);
	return v;
}

/* One entry of a 64-bit format: 0 absent, 1 good, 2 reserved bit set. */
static int judge(const struct vcpu *cpu, enum mode m, unsigned depth, u64 e)
{
	if (!(e & 1))
		return 0;
	for (unsigned bit = ENG_GPA_BITS; bit <= 51; bit++)
		if (e >> bit & 1)
			return 2;
	if (m == M_PAE && (e >> 52 & 0x7ff))
		return 2;
	if (e >> 63 && !(cpu->efer & EFER_NXE))
		return 2;
	if (e & PS && depth == 4) /* a PML4 entry maps no page */
		return 2;
	if (e & PS && depth == 3 && (e & 0x3fffe000))
		return 2;
	if (e & PS && depth == 2 && (e & 0x1fe000))
		return 2;
	return 1;
}

static bool use(struct result *r, gpa_t at, u64 e, const struct query *q, bool leaf, bool nx)
{
	r->writable &= !!(e & W);
	r->user &= !!(e & U);
	r->nx |= nx;
	r->step[r->n].at = at;
	r->step[r->n++].set = A | (leaf && q->write ? D : 0);
	if (leaf)
		r->global = e & G;
	return leaf;
}

static u32 present_fault(const struct vcpu *cpu, struct result *r, const struct query *q)
{
	bool bad;

	if (q->user)
		bad = !r->user || (q->write && !r->writable);
	else if (q->fetch)
		bad = r->user && cpu->cr4 & CR4_SMEP;
	else
		bad = (r->user && cpu->cr4 & CR4_SMAP && !q->ac) || (q->write && !r->writable && cpu->cr0 & CR0_WP);
	return bad || (q->fetch && r->nx) ? PF_P : 0;
}

static struct result model(const struct vcpu *cpu, const struct query *q)
{
	struct result r = {.writable = true, .user = true};
	u32 kind = (q->write ? PF_W : 0) | (q->user ? PF_U : 0);
	bool nx_on = cpu->efer & EFER_NXE && q->mode != M_32;
	u32 code = 0;
	bool found = false;

	if (q->fetch && (nx_on || cpu->cr4 & CR4_SMEP))
		kind |= PF_I;
	if (q->mode == M_32) {
		gpa_t at = (cpu->cr3 & 0xfffff000) + (q->va >> 22) * 4;
		u64 e = fetch_entry(at, 4);

		if (e & 1 && e & PS && cpu->cr4 & CR4_PSE) {
			if (e & BIT64(21))
				code = PF_P | PF_RSVD;
			else
				found = use(&r, at, e, q, true, false);
			r.gpa = (e & 0xffc00000) + ((e >> 13 & 0xff) << 32) + (q->va & 0x3ff000);
		} else if (e & 1) {
			use(&r, at, e, q, false, false);
			at = (e & 0xfffff000) + (q->va >> 12 & 1023) * 4;
			e = fetch_entry(at, 4);
			if (e & 1)
				found = use(&r, at, e, q, true, false);
			r.gpa = e & 0xfffff000;
		}
	} else {
		gpa_t table = cpu->cr3 & (ENG_GPA_LIMIT - 1) & ~0xfffull;
		unsigned depth = q->mode == M_4 ? 4 : 2;

		if (q->mode == M_PAE) {
			u64 e = cpu->pdpte[q->va >> 30];

			table = e & (ENG_GPA_LIMIT - 1) & ~0xfffull;
			if (!(e & 1))
				depth = 0;
		}
		for (; depth && !found && !code; depth--) {
			unsigned shift = 3 + 9 * depth;
			gpa_t at = table + (q->va >> shift & 511) * 8;
			u64 e = fetch_entry(at, 8), low = BIT64(shift) - 1;
			int j = judge(cpu, q->mode, depth, e);

			if (j == 0)
				break;
			if (j == 2) {
				code = PF_P | PF_RSVD;
				break;
			}
			found = use(&r, at, e, q, depth == 1 || e & PS, nx_on && e >> 63);
			table = e & (ENG_GPA_LIMIT - 1) & ~0xfffull;
			if (found)
				r.gpa = (table & ~low) | (q->va & low & ~0xfffull);
		}
	}
	r.fault = !found;
	if (found) {
		code = present_fault(cpu, &r, q);
		r.fault = code;
	}
	r.error = code | kind;
	return r;
}

static u64 chance(unsigned percent, u64 bits)
{
	return fake_rnd(100) < percent ? bits : 0;
}

static u64 random_entry(enum mode m, unsigned rsvd)
{
	u64 e = fake_rnd(TABLES) << 12 | chance(92, P) | chance(80, W) | chance(75, U) | chance(50, A) |
		chance(50, D) | chance(30, G) | chance(8, PS);

	if (e & PS)
		e = (e & (~0x1ff000ull | chance(10, 0x1ff000))) | chance(rsvd, BIT64(21));
	if (e & PS && m != M_32)
		e &= ~0x3fe00000ull | chance(50, 0x3fe00000);
	if (m == M_32)
		return (e | chance(rsvd, BIT64(fake_rnd(32)))) & 0xffffffff;
	return e | chance(rsvd, BIT64(12 + fake_rnd(51))) | chance(12, NX);
}

static void random_tables(enum mode m, unsigned rsvd)
{
	for (gpa_t a = 0; a < TABLES << 12; a += m == M_32 ? 4 : 8) {
		u64 e = random_entry(m, rsvd);

		memcpy(gpa_to_hva(a), &e, m == M_32 ? 4 : 8);
	}
}

static void random_state(struct vcpu *cpu, enum mode m)
{
	cpu->cr0 = CR0_PG | 1 | chance(50, CR0_WP);
	cpu->cr4 = chance(50, CR4_SMEP) | chance(50, CR4_SMAP) | chance(50, CR4_PGE) | chance(50, CR4_PSE) |
		   (m != M_32 ? CR4_PAE : 0);
	cpu->efer = chance(60, EFER_NXE) | (m == M_4 ? EFER_LMA | BIT64(8) : 0);
	cpu->cr3 = fake_rnd(TABLES) << 12 | (m == M_4 ? chance(50, 0x18) : 0);
	if (m == M_PAE)
		for (unsigned i = 0; i < 4; i++)
			cpu->pdpte[i] = fake_rnd(TABLES) << 12 | chance(85, P);
}

static gva_t random_va(enum mode m)
{
	u64 v = fake_rnd(BIT64(48));

	return m == M_4 ? (u64)((s64)(v << 16) >> 16) : v & 0xffffffff;
}

static enum mmu_idx index_of(const struct query *q)
{
	return q->user ? q->ac && !q->fetch ? MMU_USER_AC : MMU_USER : q->ac ? MMU_KERNEL_AC : MMU_KERNEL;
}

static void apply(u8 *shadow, const struct result *r)
{
	for (unsigned i = 0; i < r->n && !r->fault; i++)
		shadow[r->step[i].at] |= (u8)r->step[i].set;
}

/* How often each outcome was met: a test that only faults proves little. */
struct tally {
	unsigned good, large, absent, denied, reserved;
};

static void compare(struct vcpu *cpu, enum mode m, u8 *shadow, struct tally *t)
{
	struct query q = {.mode = m, .va = random_va(m), .user = fake_rnd(2), .ac = fake_rnd(2)};
	struct result r;
	struct walk w;
	u32 got;

	q.write = fake_rnd(3) == 0;
	q.fetch = !q.write && fake_rnd(2);
	r = model(cpu, &q);
	got = mmu_walk(cpu, q.va, q.write ? ACC_WRITE : q.fetch ? ACC_EXEC : ACC_READ, index_of(&q), &w);
	if (r.fault) {
		assert_int_equal(got, PF_FAULT | r.error);
		t->absent += !(r.error & PF_P);
		t->reserved += !!(r.error & PF_RSVD);
		t->denied += (r.error & (PF_P | PF_RSVD)) == PF_P;
	} else {
		t->good++;
		t->large += w.shift > 12;
		assert_int_equal(got, 0);
		assert_int_equal(w.gpa, r.gpa);
		assert_int_equal(w.writable, r.writable);
		assert_int_equal(w.user, r.user);
		assert_int_equal(w.nx, r.nx);
		assert_int_equal(w.global, r.global && cpu->cr4 & CR4_PGE);
	}
	apply(shadow, &r);
	for (unsigned i = 0; i < r.n; i++)
		assert_memory_equal(shadow + (r.step[i].at & ~7ull), gpa_to_hva(r.step[i].at & ~7ull), 8);
}

static void run_mode(enum mode m, unsigned rsvd)
{
	static u8 shadow[FAKE_RAM];
	struct vcpu *cpu = fake_start();
	struct tally t = {0};

	for (unsigned round = 0; round < 60; round++) {
		random_tables(m, rsvd);
		memcpy(shadow, gpa_to_hva(0), TABLES << 12);
		for (unsigned i = 0; i < 2000; i++) {
			random_state(cpu, m);
			compare(cpu, m, shadow, &t);
		}
		assert_memory_equal(shadow, gpa_to_hva(0), TABLES << 12);
	}
	assert_true(t.good > 10000 && t.large > 500 && t.absent > 1000 && t.denied > 1000 && (!rsvd || t.reserved > 50));
}

static void walk_2level(void **s) { run_mode(M_32, 3); }
static void walk_pae(void **s) { run_mode(M_PAE, 0); }
static void walk_pae_reserved(void **s) { run_mode(M_PAE, 8); }
static void walk_4level(void **s) { run_mode(M_4, 0); }
static void walk_4level_reserved(void **s) { run_mode(M_4, 4); }

/* Loading CR3 in PAE mode checks the four PDPTEs: SDM 3A 4.4.1. */
static void pdptes(void **s)
{
	static const struct {
		u64 entry;
		bool ok;
	} cases[] = {
		{0, true}, {0x1001, true}, {0x1001 | 0x18, true}, {0x1001 | 0xe00, true}, {0x1003, false}, {0x1005, false},
		{0x1021, false}, {0x1041, false}, {0x1081, false}, {0x1101, false}, {0x1001 | NX, false},
		{0x1001 | BIT64(39), true}, {0x1001 | BIT64(40), false}, {0x1001 | BIT64(52), false}, {0x1fe | NX, true},
	};
	struct vcpu *cpu = fake_start();

	for (unsigned i = 0; i < ARRAY_SIZE(cases) * 4; i++) {
		gpa_t at = 0x2000 + 32 * (i % 3);

		memset(gpa_to_hva(0x2000), 0, PAGE_SIZE);
		memset(cpu->pdpte, 0x55, sizeof(cpu->pdpte));
		set64(at + 8 * (i % 4), cases[i / 4].entry);
		assert_int_equal(mmu_load_pdptes(cpu, at | 0x18), cases[i / 4].ok);
		assert_int_equal(cpu->pdpte[i % 4], cases[i / 4].ok ? cases[i / 4].entry : 0x5555555555555555);
	}
}

/* Tables in a read-only slot keep their bits, and a walk through them still works. */
static void table_in_rom(void **s)
{
	struct vcpu *cpu = fake_start();
	struct kvm_userspace_memory_region r = {.slot = 1, .flags = KVM_MEM_READONLY, .guest_phys_addr = FAKE_RAM,
						.memory_size = 0x4000, .userspace_addr = 0x20000000};
	struct walk w;

	assert_int_equal(mmu_set_region(&fake.vm, &r, fake_fd(0x4000), 0), 0);
	for (unsigned i = 0; i < 3; i++)
		set64(FAKE_RAM + i * PAGE_SIZE, (FAKE_RAM + (i + 1) * PAGE_SIZE) | P | W);
	set64(FAKE_RAM + 3 * PAGE_SIZE, 0x5000 | P | W);
	cpu->cr0 = CR0_PG | 1;
	cpu->cr4 = CR4_PAE;
	cpu->efer = EFER_LMA;
	cpu->cr3 = FAKE_RAM;
	assert_int_equal(mmu_walk(cpu, 0, ACC_WRITE, MMU_KERNEL, &w), 0);
	assert_int_equal(w.gpa, 0x5000);
	assert_int_equal(ram64(FAKE_RAM + 3 * PAGE_SIZE), 0x5000 | P | W);
}

/* The debugger's walk sets no bits. */
static void debug_walk(void **s)
{
	struct vcpu *cpu = fake_start();
	gpa_t gpa;
	bool w, u;

	assert_true(mmu_translate_debug(cpu, 0x123456, &gpa, &w, &u));
	assert_int_equal(gpa, 0x123456);
	for (unsigned i = 1; i < 4; i++)
		set64(i * PAGE_SIZE, (i + 1) * PAGE_SIZE | P | W | U);
	set64(4 * PAGE_SIZE, 0x5000 | P | U);
	cpu->cr0 = CR0_PG | 1;
	cpu->cr4 = CR4_PAE;
	cpu->efer = EFER_LMA;
	cpu->cr3 = PAGE_SIZE;
	assert_true(mmu_translate_debug(cpu, 0x234, &gpa, &w, &u));
	assert_int_equal(gpa, 0x5234);
	assert_true(u && !w);
	assert_int_equal(ram64(4 * PAGE_SIZE), 0x5000 | P | U);
	assert_false(mmu_translate_debug(cpu, 0x1000, &gpa, &w, &u));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(walk_2level), cmocka_unit_test(walk_pae), cmocka_unit_test(walk_pae_reserved),
		cmocka_unit_test(walk_4level), cmocka_unit_test(walk_4level_reserved), cmocka_unit_test(pdptes),
		cmocka_unit_test(table_in_rom), cmocka_unit_test(debug_walk),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
