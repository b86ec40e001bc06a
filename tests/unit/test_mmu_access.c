/* Slow paths of memory accesses: crossings, MMIO, read-only memory, code pages, alignment, watched pages, fetches. */
#include <sys/mman.h>
#include "mmu_fake.h"
#include "engine/cpu/breakpoints.h"

#define MMIO 0x8000000ull /* no slot there */

/* Four-level tables at 0x1000; map_page() makes single 4 KiB mappings below 1 GiB and at the top. */
static struct vcpu *paged(void)
{
	struct vcpu *cpu = fake_start();

	cpu->cr0 = CR0_PG | CR0_WP | 1;
	cpu->cr4 = CR4_PAE;
	cpu->efer = EFER_LMA | EFER_NXE;
	mmu_update_paging(cpu, 0, 0, 0);
	set64(0x1000, 0x2000 | P | W | U);
	set64(0x1ff8, 0x2000 | P | W | U);
	set64(0x2000, 0x3000 | P | W | U);
	set64(0x2ff8, 0x3000 | P | W | U);
	set64(0x3000, 0x4000 | P | W | U);
	set64(0x3ff8, 0x4000 | P | W | U);
	mmu_set_cr3(cpu, 0x1000, false);
	cpu->mode.mmu_idx = MMU_KERNEL;
	return cpu;
}

static void map_page(gva_t va, u64 pte)
{
	set64(0x4000 + (va >> 12 & 511) * 8, pte);
}

static void crossing_read(void **s)
{
	struct vcpu *cpu = paged();
	u64 v = 0;

	map_page(0x10000, 0x20000 | P);
	map_page(0x11000, 0x50000 | P);
	set64(0x20ff8, 0x1122334455667788);
	set64(0x50000, 0x99aabbccddeeff00);
	assert_int_equal(TRY(v = mmu_read64(cpu, 0x10ffd)), EV_NONE);
	assert_int_equal(v, 0xccddeeff00112233);
}

static void crossing_write(void **s)
{
	struct vcpu *cpu = paged();

	map_page(0x10000, 0x20000 | P | W);
	map_page(0x11000, 0x50000 | P); /* not writable: the first half must stay as it was */
	assert_fault(mmu_write32(cpu, 0x10ffe, 0x11223344), EXC_PF, PF_P | PF_W);
	assert_int_equal(fake.cr2, 0x11000);
	assert_int_equal(ram64(0x20ff8), 0);
	map_page(0x11000, 0x50000 | P | W);
	assert_int_equal(TRY(mmu_write32(cpu, 0x10ffe, 0x11223344)), EV_NONE);
	assert_int_equal(ram64(0x20ff8), 0x3344000000000000);
	assert_int_equal(ram64(0x50000), 0x1122);
	/* the first half faults: CR2 is the address itself */
	map_page(0x12000, 0);
	map_page(0x13000, 0x50000 | P | W);
	assert_fault(mmu_write32(cpu, 0x12fff, 1), EXC_PF, PF_W);
	assert_int_equal(fake.cr2, 0x12fff);
	assert_int_equal(TRY(mmu_probe(cpu, 0x10ffe, 4, ACC_WRITE, MMU_KERNEL)), EV_NONE);
	assert_fault(mmu_probe(cpu, 0x12fff, 2, ACC_WRITE, MMU_KERNEL), EXC_PF, PF_W);
	assert_null(mmu_rmw_ptr(cpu, 0x10ffe, 4));
	assert_ptr_equal(mmu_rmw_ptr(cpu, 0x10ff8, 8), gpa_to_hva(0x20ff8));
}

/* Every size at every offset round a page border, against bytes. */
static void crossing_all(void **s)
{
	struct vcpu *cpu = paged();

	map_page(0x10000, 0x20000 | P | W);
	map_page(0x11000, 0x50000 | P | W);
	for (unsigned size = 1; size <= 64; size++) {
		for (unsigned off = 0xfc0; off <= 0x1000; off++) {
			u8 in[64], out[64];

			for (unsigned i = 0; i < size; i++)
				in[i] = (u8)fake_rnd(256);
			assert_int_equal(TRY(mmu_write_slow(cpu, 0x10000 + off, in, size, MMU_KERNEL)), EV_NONE);
			for (unsigned i = 0; i < size; i++)
				assert_int_equal(*gpa_to_hva(off + i < 0x1000 ? 0x20000 + off + i : 0x4f000 + off + i), in[i]);
			assert_int_equal(TRY(mmu_read_slow(cpu, 0x10000 + off, out, size, MMU_KERNEL)), EV_NONE);
			assert_memory_equal(in, out, size);
		}
	}
}

static void mmio_pieces(void **s)
{
	static const struct {
		unsigned off, size, n, len[9];
	} cases[] = {
		{0, 1, 1, {1}}, {0, 8, 1, {8}}, {4, 8, 2, {4, 4}}, {1, 8, 4, {1, 2, 4, 1}}, {2, 4, 2, {2, 2}},
		{0, 16, 2, {8, 8}}, {0, 10, 2, {8, 2}}, {3, 2, 2, {1, 1}}, {0, 64, 8, {8, 8, 8, 8, 8, 8, 8, 8}},
	};
	struct vcpu *cpu = fake_start();

	for (unsigned i = 0; i < ARRAY_SIZE(cases) * 2; i++) {
		gpa_t at = MMIO + cases[i / 2].off;
		unsigned size = cases[i / 2].size;
		u8 buf[64];

		for (unsigned k = 0; k < size; k++)
			buf[k] = (u8)(at + k);
		fake.nmmio = 0;
		if (i & 1)
			assert_int_equal(TRY(mmu_write_slow(cpu, at, buf, size, MMU_KERNEL)), EV_NONE);
		else
			assert_int_equal(TRY(mmu_read_slow(cpu, at, buf, size, MMU_KERNEL)), EV_NONE);
		assert_int_equal(fake.nmmio, cases[i / 2].n);
		for (unsigned k = 0; k < fake.nmmio; k++) {
			assert_int_equal(fake.mmio[k].write, i & 1);
			assert_int_equal(fake.mmio[k].gpa, at);
			assert_int_equal(fake.mmio[k].len, cases[i / 2].len[k]);
			assert_int_equal(fake.mmio[k].gpa % fake.mmio[k].len, 0);
			if (i & 1)
				assert_int_equal((u8)fake.mmio[k].data, (u8)at);
			at += fake.mmio[k].len;
		}
		for (unsigned k = 0; k < size; k++)
			assert_int_equal(buf[k], (u8)(MMIO + cases[i / 2].off + k));
	}
	assert_null(mmu_ptr(cpu, MMIO, 8, ACC_READ, MMU_KERNEL));
	assert_int_equal(TRY(mmu_fetch_page(cpu, MMIO)), EV_EMULATION);
}

/* Half RAM, half MMIO; and beyond the guest's physical address space. */
static void mmio_mixed(void **s)
{
	struct vcpu *cpu = fake_start();
	u64 v = 0;

	*(u32 *)gpa_to_hva(FAKE_RAM - 4) = 0xcafebabe;
	assert_int_equal(TRY(v = mmu_read64(cpu, FAKE_RAM - 4)), EV_NONE);
	assert_int_equal(v, 0x03020100cafebabe);
	assert_int_equal(fake.nmmio, 1);
	assert_int_equal(fake.mmio[0].gpa, FAKE_RAM);
	assert_int_equal(fake.mmio[0].len, 4);
}

/* Paging off, 32-bit: the address wraps at 4 GiB. */
static void wrap_4g(void **s)
{
	struct vcpu *cpu = fake_start();
	u32 v = 0;

	*(u16 *)gpa_to_hva(0) = 0x5566;
	assert_int_equal(TRY(v = mmu_read32(cpu, 0xfffffffe)), EV_NONE);
	assert_int_equal(v, 0x5566fffe);
	assert_int_equal(fake.nmmio, 1);
	assert_int_equal(fake.mmio[0].gpa, 0xfffffffe);
	assert_int_equal(TRY(v = mmu_read32(cpu, 0x100000000)), EV_NONE);
	assert_int_equal(v, 0x5566);
}

/* 32-bit code under long mode wraps; 64-bit code does not. */
static void wrap_compat(void **s)
{
	struct vcpu *cpu = paged();
	u64 v = 0;

	set64(0x2000 + 3 * 8, 0x3000 | P | W | U); /* the last GiB below 4 GiB looks like the first */
	map_page(0xfffff000, 0x20000 | P | W);     /* and so the last page of its first 2 MiB ... */
	set64(0x3000 + 511 * 8, 0x4000 | P | W | U);
	map_page(0, 0x50000 | P | W);
	set64(0x20ff8, 0x1122334455667788);
	set64(0x50000, 0x99aabbccddeeff00);
	cpu->mode.long64 = false;
	assert_int_equal(TRY(v = mmu_read64(cpu, 0xfffffffd)), EV_NONE);
	assert_int_equal(v, 0xccddeeff00112233);
	cpu->mode.long64 = true;
	assert_fault(mmu_read64(cpu, 0xfffffffd), EXC_PF, 0);
	assert_int_equal(fake.cr2, 0x100000000);
}

static void canonical_check(void **s)
{
	static const gva_t bad[] = {0x800000000000, 0xffff7fffffffffff, 0x8000000000000000, 0x00007ffffffffffd};
	struct vcpu *cpu = paged();

	map_page(0x7ffffffff000, 0x20000 | P | W | U);
	set64(0x17f8, 0x2000 | P | W | U);
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_fault(mmu_read32(cpu, bad[i]), EXC_GP, 0);
		assert_fault(mmu_write32(cpu, bad[i], 1), EXC_GP, 0);
	}
	assert_int_equal(ram64(0x20ff8), 0);
	assert_int_equal(TRY(mmu_read32(cpu, 0x7ffffffffffc)), EV_NONE);
}

static void read_only(void **s)
{
	struct vcpu *cpu = fake_start();
	struct kvm_userspace_memory_region r = {.slot = 1, .flags = KVM_MEM_READONLY, .guest_phys_addr = MMIO,
						.memory_size = 0x2000, .userspace_addr = 0x20000000};

	assert_int_equal(mmu_set_region(&fake.vm, &r, fake_fd(0x2000), 0), 0);
	set64(MMIO, 42);
	assert_int_equal(mmu_read64(cpu, MMIO), 42);
	assert_int_equal(fake.nmmio, 0);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(TRY(mmu_write64(cpu, MMIO, 7)), EV_NONE);
		assert_int_equal(fake.nmmio, i + 1);
		assert_int_equal(fake.mmio[i].data, 7);
		assert_int_equal(ram64(MMIO), 42);
	}
	assert_null(mmu_rmw_ptr(cpu, MMIO, 8));
	assert_non_null(mmu_ptr(cpu, MMIO, 8, ACC_READ, MMU_KERNEL));
	assert_int_equal(mmu_fetch_page(cpu, MMIO + 5), MMIO);
}

static void code_pages(void **s)
{
	struct vcpu *cpu = fake_start();
	u64 v = 0xabcd;

	mmu_write64(cpu, 0x5008, 1); /* a write tag is there */
	mmu_mark_code(cpu, 0x5000);
	assert_int_equal(fake.ninval, 0);
	mmu_write64(cpu, 0x5008, 2);
	assert_int_equal(fake.ninval, 1);
	assert_int_equal(fake.inval_gpa, 0x5008);
	assert_int_equal(fake.inval_size, 8);
	assert_int_equal(fake.inval_saw, 2); /* a decode begun now finds the new bytes */
	mmu_write64(cpu, 0x4ffc, 3);
	assert_int_equal(fake.ninval, 2);
	assert_int_equal(fake.inval_gpa, 0x5000);
	assert_int_equal(fake.inval_size, 4);
	assert_true(phys_write(0x5010, &v, 8));
	assert_int_equal(fake.ninval, 3);
	assert_int_equal(fake.inval_saw, 0xabcd);
	/* through a pointer: before, and once more afterwards */
	assert_non_null(mmu_rmw_ptr(cpu, 0x5020, 4));
	assert_int_equal(fake.ninval, 4);
	assert_int_equal(cpu->late_gpa, 0x5020);
	assert_int_equal(cpu->late_size, 4);
	assert_int_equal(fake.nkick, 1);
	assert_non_null(mmu_rmw_ptr(cpu, 0x5030, 8)); /* a second one in the same block does not lose the first */
	assert_int_equal(fake.ninval, 6);
	assert_int_equal(cpu->late_gpa, 0x5030);
	mmu_clear_code(0x5000);
	mmu_write64(cpu, 0x5008, 5);
	mmu_write64(cpu, 0x5008, 6);
	assert_int_equal(fake.ninval, 6);
	/* with other vCPUs the marking stops them first */
	fake.vm.nvcpus = 2;
	fake.vm.vcpus[1] = cpu;
	mmu_mark_code(cpu, 0x6000);
	mmu_mark_code(cpu, 0x6000);
	assert_int_equal(fake.nsafe, 1);
}

/* An alias of a code page is caught too. */
static void code_alias(void **s)
{
	struct vcpu *cpu = paged();

	map_page(0x10000, 0x20000 | P | W);
	map_page(0x15000, 0x20000 | P | W);
	mmu_write64(cpu, 0x10000, 1);
	mmu_write64(cpu, 0x15000, 2);
	mmu_mark_code(cpu, 0x20000);
	mmu_write64(cpu, 0x15000, 3);
	mmu_write64(cpu, 0x10000, 4);
	assert_int_equal(fake.ninval, 2);
	assert_int_equal(ram64(0x20000), 4);
}

static void alignment(void **s)
{
	struct vcpu *cpu = paged();

	map_page(0x10000, 0x20000 | P | W | U);
	cpu->mode.mmu_idx = MMU_USER_AC;
	for (unsigned i = 0; i < 8; i++) {
		int e2 = TRY(mmu_read16(cpu, 0x10000 + i)), e4 = TRY(mmu_write32(cpu, 0x10000 + i, 1));
		int e8 = TRY(mmu_rmw_ptr(cpu, 0x10000 + i, 8));

		assert_int_equal(e2, i % 2 ? EV_EXC : EV_NONE);
		assert_int_equal(e4, i % 4 ? EV_EXC : EV_NONE);
		assert_int_equal(e8, i % 8 ? EV_EXC : EV_NONE);
		assert_int_equal(TRY(mmu_read8(cpu, 0x10000 + i)), EV_NONE);
	}
	assert_fault(mmu_read64(cpu, 0x10004), EXC_AC, 0);
	cpu->mode.mmu_idx = MMU_USER;
	assert_int_equal(TRY(mmu_read64(cpu, 0x10001)), EV_NONE);
	cpu->mode.mmu_idx = MMU_USER_AC; /* the tag MMU_USER has now is not ours */
	assert_fault(mmu_read64(cpu, 0x10001), EXC_AC, 0);
}

static void data_breakpoints(void **s)
{
	struct vcpu *cpu = fake_start();

	cpu->dr[0] = 0x7010;
	cpu->dr[1] = 0x7020;
	cpu->dr7 = 0x400 | 1 | 1ull << 16 | 3ull << 18 | 4 | 3ull << 20 | 1ull << 22; /* write 4 bytes; access 2 bytes */
	for (unsigned i = 0; i < 2; i++) {
		mmu_write32(cpu, 0x7010, 1);
		assert_int_equal(dbg_data_take(cpu), 1);
		mmu_read32(cpu, 0x7010);
		assert_int_equal(dbg_data_take(cpu), 0);
		mmu_read16(cpu, 0x7020);
		assert_int_equal(dbg_data_take(cpu), 2);
		mmu_write64(cpu, 0x7019, 1);
		assert_int_equal(dbg_data_take(cpu), 2);
		mmu_write64(cpu, 0x7018, 1);
		assert_int_equal(dbg_data_take(cpu), 0);
		mmu_write64(cpu, 0x700f, 1);
		assert_int_equal(dbg_data_take(cpu), 1);
		mmu_rmw_ptr(cpu, 0x7010, 1);
		assert_int_equal(dbg_data_take(cpu), 1);
	}
	for (unsigned i = 0; i < TLB_SIZE; i++)
		assert_true((cpu->tlb.e[MMU_KERNEL][i].tag_w & PAGE_MASK) != 0x7000 ||
			    cpu->tlb.e[MMU_KERNEL][i].tag_w == TLB_INVALID_TAG);
}

static void fetches(void **s)
{
	struct vcpu *cpu = paged();
	u8 buf[15];

	map_page(0x10000, 0x20000 | P | U);
	map_page(0x11000, 0x50000 | P | U | NX);
	map_page(0x12000, 0x51000 | P);
	for (unsigned i = 0; i < 15; i++)
		*gpa_to_hva(i < 8 ? 0x20ff8 + i : 0x50000 + i - 8) = (u8)i;
	assert_int_equal(mmu_fetch_page(cpu, 0x10123), 0x20000);
	assert_int_equal(TRY(assert_int_equal(mmu_fetch_bytes(cpu, 0x10ff8, buf, 15), 8)), EV_NONE);
	assert_int_equal(buf[7], 7);
	assert_fault(mmu_fetch_page(cpu, 0x11000), EXC_PF, PF_P | PF_I);
	map_page(0x11000, 0x50000 | P | U);
	assert_int_equal(TRY(assert_int_equal(mmu_fetch_bytes(cpu, 0x10ff8, buf, 15), 15)), EV_NONE);
	for (unsigned i = 0; i < 15; i++)
		assert_int_equal(buf[i], i);
	cpu->mode.cpl = 3;
	assert_fault(mmu_fetch_page(cpu, 0x12000), EXC_PF, PF_P | PF_U | PF_I);
	assert_int_equal(mmu_fetch_page(cpu, 0x11000), 0x50000);
}

static void physical(void **s)
{
	u64 v = 5, w = 0;

	fake_start();
	assert_true(phys_write(FAKE_RAM - 8, &v, 8));
	assert_true(phys_read(FAKE_RAM - 8, &w, 8));
	assert_int_equal(w, 5);
	w = 9;
	assert_false(phys_read(FAKE_RAM - 4, &w, 8));
	assert_false(phys_write(FAKE_RAM - 4, &w, 8));
	assert_int_equal(ram64(FAKE_RAM - 8), 5);
	assert_false(phys_read(ENG_GPA_LIMIT, &w, 1));
	assert_false(phys_read(~0ull - 3, &w, 8));
	assert_false(phys_read(0, &w, ~0ull));
	assert_int_equal(w, 9);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(crossing_read), cmocka_unit_test(crossing_write), cmocka_unit_test(crossing_all),
		cmocka_unit_test(mmio_pieces), cmocka_unit_test(mmio_mixed), cmocka_unit_test(wrap_4g),	cmocka_unit_test(wrap_compat),
		cmocka_unit_test(canonical_check), cmocka_unit_test(read_only), cmocka_unit_test(code_pages),
		cmocka_unit_test(code_alias), cmocka_unit_test(alignment), cmocka_unit_test(data_breakpoints),
		cmocka_unit_test(fetches), cmocka_unit_test(physical),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
