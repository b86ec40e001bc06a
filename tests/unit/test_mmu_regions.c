/* Memory slots and the dirty log: what KVM_SET_USER_MEMORY_REGION takes and refuses, and what the guest sees after it. */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>
#include "mmu_fake.h"

#define AT 0x100000000ull

static struct kvm_userspace_memory_region region(u32 slot, gpa_t gpa, u64 size, u32 flags)
{
	return (struct kvm_userspace_memory_region){slot, flags, gpa, size, 0x70000000 + slot * 0x1000000ull};
}

/* As the API does it: the file is ours again if the request is refused. */
static int set(struct kvm_userspace_memory_region r, int fd, u64 offset)
{
	int ret = mmu_set_region(&fake.vm, &r, fd, offset);

	fake_go_on();

	if (ret < 0 && fd >= 0)
		close(fd);
	return ret;
}

static void refused(void **s)
{
	struct kvm_userspace_memory_region r;

	fake_start();
	assert_int_equal(set(region(1, AT, 0x2000, 0), fake_fd(0x2000), 0), 0);
	assert_int_equal(set(region(2, AT + 0x1000, 0x2000, 0), fake_fd(0x2000), 0), -EEXIST);
	assert_int_equal(set(region(2, AT - 0x1000, 0x2000, 0), fake_fd(0x2000), 0), -EEXIST);
	assert_int_equal(set(region(2, AT - 0x1000, 0x8000, 0), fake_fd(0x8000), 0), -EEXIST);
	assert_int_equal(set(region(2, AT + 0x2001, 0x1000, 0), fake_fd(0x1000), 0), -EINVAL);
	assert_int_equal(set(region(2, AT + 0x2000, 0x1001, 0), fake_fd(0x2000), 0), -EINVAL);
	assert_int_equal(set(region(2, AT + 0x2000, 0x1000, 4), fake_fd(0x1000), 0), -EINVAL);
	assert_int_equal(set(region(VM_MAX_SLOTS, AT + 0x2000, 0x1000, 0), fake_fd(0x1000), 0), -EINVAL);
	assert_int_equal(set(region(0x10001, AT + 0x2000, 0x1000, 0), fake_fd(0x1000), 0), -EINVAL);
	assert_int_equal(set(region(2, ENG_GPA_LIMIT - 0x1000, 0x2000, 0), fake_fd(0x2000), 0), -EINVAL);
	assert_int_equal(set(region(2, ENG_GPA_LIMIT, 0x1000, 0), fake_fd(0x1000), 0), -EINVAL);
	assert_int_equal(set(region(2, ~0xfffull, 0x2000, 0), fake_fd(0x2000), 0), -EINVAL);
	assert_int_equal(set(region(2, 0x5000000, ~0xfffull, 0), fake_fd(0x2000), 0), -EINVAL);
	/* the file must hold the whole slot */
	assert_int_equal(set(region(2, AT + 0x2000, 0x2000, 0), fake_fd(0x1000), 0), -EINVAL);
	assert_int_equal(set(region(2, AT + 0x2000, 0x2000, 0), fake_fd(0x2000), 0x1000), -EINVAL);
	assert_int_equal(set(region(2, AT + 0x2000, 0x2000, 0), fake_fd(0x2000), ~0xfffull), -EINVAL);
	assert_int_equal(set(region(2, AT + 0x2000, 0x1000, 0), fake_fd(0x2000), 0x800), -EINVAL);
	assert_int_equal(set(region(2, AT + 0x2000, 0x1000, 0), -1, 0), -EINVAL);
	/* deletion of what is not there */
	assert_int_equal(set(region(5, 0, 0, 0), -1, 0), -EINVAL);
	/* an existing slot keeps its size, its memory and its read-only flag */
	assert_int_equal(set(region(1, AT, 0x1000, 0), fake_fd(0x2000), 0), -EINVAL);
	assert_int_equal(set(region(1, AT, 0x2000, KVM_MEM_READONLY), fake_fd(0x2000), 0), -EINVAL);
	r = region(1, AT, 0x2000, 0);
	r.userspace_addr += 0x1000;
	assert_int_equal(set(r, fake_fd(0x2000), 0), -EINVAL);
	/* a slot may not move onto another */
	assert_int_equal(set(region(1, FAKE_RAM - 0x1000, 0x2000, 0), fake_fd(0x2000), 0), -EEXIST);
	assert_true(phys_is_ram(AT) && phys_is_ram(AT + 0x1000));
	assert_false(phys_is_ram(AT + 0x2000));
	assert_false(phys_is_ram(AT - 0x1000));
	assert_false(fake.vm.slots[2].used);
}

static void neighbours(void **s)
{
	u8 buf[0x2000];

	fake_start();
	assert_int_equal(set(region(1, FAKE_RAM, 0x1000, 0), fake_fd(0x1000), 0), 0);
	assert_int_equal(set(region(2, FAKE_RAM + 0x1000, 0x1000, 0), fake_fd(0x1000), 0), 0);
	assert_int_equal(set(region(3, ENG_GPA_LIMIT - 0x1000, 0x1000, 0), fake_fd(0x1000), 0), 0);
	assert_true(phys_read(FAKE_RAM - 0x800, buf, 0x2000)); /* across slots */
	assert_true(phys_is_ram(ENG_GPA_LIMIT - 1));
}

/* Each pass through a slot and its file: what the guest writes is in the file at the right offset. */
static void shared_with_file(void **s)
{
	struct vcpu *cpu = fake_start();
	int fd = fake_fd(0x5000), mine = dup(fd);
	u64 v = 0;

	assert_int_equal(set(region(1, 0x8000000, 0x2000, 0), fd, 0x3000), 0);
	mmu_write64(cpu, 0x8001008, 0x1234);
	assert_int_equal(pread(mine, &v, 8, 0x4008), 8);
	assert_int_equal(v, 0x1234);
	v = 0x5678;
	assert_int_equal(pwrite(mine, &v, 8, 0x3000), 8);
	assert_int_equal(mmu_read64(cpu, 0x8000000), 0x5678);
	close(mine);
}

static void delete_slot(void **s)
{
	struct vcpu *cpu = fake_start();
	int fd = fake_fd(0x2000);

	assert_int_equal(set(region(1, 0x8000000, 0x2000, 0), fd, 0), 0);
	mmu_write64(cpu, 0x8000000, 1);
	mmu_mark_code(cpu, 0x8001000);
	fake.nflush_code = 0;
	assert_int_equal(fake.nmmio, 0);
	assert_int_equal(set(region(1, 0, 0, 0), -1, 0), 0);
	assert_int_equal(fake.nflush_code, 1);
	assert_int_equal(fcntl(fd, F_GETFD), -1); /* closed with the slot */
	mmu_write64(cpu, 0x8000000, 2);
	assert_int_equal(fake.nmmio, 1);
	assert_int_equal(*page_attr(0x8000000), 0);
	assert_int_equal(*page_attr(0x8001000), 0);
	/* the number and the place are free */
	assert_int_equal(set(region(1, 0x8001000, 0x1000, KVM_MEM_READONLY), fake_fd(0x1000), 0), 0);
	assert_int_equal(mmu_read64(cpu, 0x8001000), 0);
}

static void move_slot(void **s)
{
	struct vcpu *cpu = fake_start();
	int fd = fake_fd(0x3000);

	assert_int_equal(set(region(1, 0x8000000, 0x3000, 0), fd, 0), 0);
	mmu_write64(cpu, 0x8000010, 77);
	/* overlapping its own old place is fine */
	assert_int_equal(set(region(1, 0x8001000, 0x3000, 0), dup(fd), 0), 0);
	assert_int_equal(mmu_read64(cpu, 0x8001010), 77);
	assert_false(phys_is_ram(0x8000000));
	assert_true(phys_is_ram(0x8003000));
	fake.nmmio = 0;
	mmu_read64(cpu, 0x8000010);
	assert_int_equal(fake.nmmio, 1);
}

static bool dirty(u32 slot, unsigned page)
{
	u64 map[2] = {0};

	assert_int_equal(mmu_get_dirty_log(&fake.vm, slot, map, sizeof(map)), 0);
	return map[page / 64] >> (page % 64) & 1;
}

static void log_rules(void **s)
{
	u64 map[2] = {0};
	int fd = fake_fd(0x2000);

	fake_start();
	assert_int_equal(mmu_get_dirty_log(&fake.vm, 0, map, sizeof(map)), -ENOENT);
	assert_int_equal(mmu_get_dirty_log(&fake.vm, 1, map, sizeof(map)), -ENOENT);
	assert_int_equal(mmu_get_dirty_log(&fake.vm, 0x10000, map, sizeof(map)), -ENOENT);
	assert_int_equal(set(region(1, 0x8000000, 0x2000, KVM_MEM_LOG_DIRTY_PAGES), dup(fd), 0), 0);
	assert_int_equal(mmu_get_dirty_log(&fake.vm, 1, map, sizeof(map)), 0);
	assert_int_equal(map[0], 0);
	/* logging off and on again: the flags of a slot may change, and the log starts clean */
	assert_true(phys_write(0x8000000, map, 8));
	assert_int_equal(set(region(1, 0x8000000, 0x2000, 0), dup(fd), 0), 0);
	assert_int_equal(mmu_get_dirty_log(&fake.vm, 1, map, sizeof(map)), -ENOENT);
	assert_int_equal(set(region(1, 0x8000000, 0x2000, KVM_MEM_LOG_DIRTY_PAGES), dup(fd), 0), 0);
	assert_false(dirty(1, 0));
	close(fd);
}

/* Each way of writing shows, each time after a reading of the log; reading memory does not. */
static void log_writes(void **s)
{
	struct vcpu *cpu = fake_start();
	u64 v = 1;

	assert_int_equal(set(region(1, 0x8000000, 0x45000, KVM_MEM_LOG_DIRTY_PAGES), fake_fd(0x45000), 0), 0);
	for (unsigned round = 0; round < 3; round++) {
		for (unsigned page = 0; page < 0x45; page += 17) {
			gpa_t a = 0x8000000 + page * PAGE_SIZE;

			assert_false(dirty(1, page));
			mmu_read64(cpu, a);
			mmu_fetch_page(cpu, a);
			assert_non_null(mmu_ptr(cpu, a, 8, ACC_READ, MMU_KERNEL));
			assert_false(dirty(1, page));
			mmu_write64(cpu, a, 1);
			assert_true(dirty(1, page));
			mmu_write64(cpu, a, 1);
			mmu_write64(cpu, a, 2);
			assert_true(dirty(1, page));
			assert_non_null(mmu_rmw_ptr(cpu, a, 4));
			assert_true(dirty(1, page));
			assert_true(phys_write(a, &v, 8));
			assert_true(dirty(1, page));
			mmu_write64(cpu, a + 0xffc, 1);
			assert_true(dirty(1, page));
			mmu_write64(cpu, a, 2); /* and the neighbour, when there is one, was cleared with it */
			assert_true(dirty(1, page));
		}
	}
}

/* Bits of several pages, and the walker's own writes of A and D into tables. */
static void log_tables(void **s)
{
	struct vcpu *cpu = fake_start();
	u64 map[1] = {0};

	assert_int_equal(set(region(1, 0x8000000, 0x5000, KVM_MEM_LOG_DIRTY_PAGES), fake_fd(0x5000), 0), 0);
	for (unsigned i = 0; i < 3; i++)
		set64(0x8000000 + i * PAGE_SIZE, (0x8000000 + (i + 1) * PAGE_SIZE) | P | W | (i == 1 ? A : 0));
	set64(0x8003000, 0x5000 | P | W | A);
	cpu->cr0 = CR0_PG | 1;
	cpu->cr4 = CR4_PAE;
	cpu->efer = EFER_LMA;
	cpu->mode.mmu_idx = MMU_KERNEL;
	mmu_update_paging(cpu, 0, 0, 0);
	mmu_set_cr3(cpu, 0x8000000, false);
	assert_int_equal(TRY(mmu_read64(cpu, 0x10)), EV_NONE);
	assert_int_equal(mmu_get_dirty_log(&fake.vm, 1, map, 8), 0);
	assert_int_equal(map[0], 5); /* A was missing in the first and third table */
	map[0] = 0;
	assert_int_equal(TRY(mmu_write64(cpu, 0x10, 1)), EV_NONE);
	assert_int_equal(mmu_get_dirty_log(&fake.vm, 1, map, 8), 0);
	assert_int_equal(map[0], 8); /* D */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(refused), cmocka_unit_test(neighbours), cmocka_unit_test(shared_with_file),
		cmocka_unit_test(delete_slot), cmocka_unit_test(move_slot), cmocka_unit_test(log_rules),
		cmocka_unit_test(log_writes), cmocka_unit_test(log_tables),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
