# The MMU room over real arenas, everything around it faked.
MMU_TESTS := $(addprefix $(B)/tests/unit/test_mmu_,walk tlb access regions windows)
TESTS += $(MMU_TESTS)
MMU_TEST_OBJ := $(patsubst %,$(B)/src/engine/%.o,mmu/walk mmu/tlb mmu/access mmu/regions mmu/window mmu/phys cpu/breakpoints)

$(MMU_TESTS): $(B)/tests/unit/%: tests/unit/%.c tests/unit/mmu_fake.c tests/unit/mmu_fake.h $(MMU_TEST_OBJ)
	@mkdir -p $(@D)
	$(CC) -std=gnu17 -O1 -g -Wall -Wextra -Werror -Wno-unused-parameter -Wno-clobbered -Isrc -Itests/unit \
		-D_GNU_SOURCE -no-pie -o $@ $< tests/unit/mmu_fake.c $(MMU_TEST_OBJ) -lcmocka
