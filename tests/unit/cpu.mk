# The CPU room over a flat fake memory.
CPU_TESTS := $(addprefix $(B)/tests/unit/test_cpu_,events segments registers)
TESTS += $(CPU_TESTS)
CPU_TEST_OBJ := $(patsubst %,$(B)/src/engine/cpu/%.o,exception mode descriptor segment stack reset interrupt iret far \
	task syscall flags cr dr msr cpuid pvclock pvsched) \
	$(patsubst src/%.c,$(B)/src/%.o,$(wildcard src/engine/isa/*.c))

$(CPU_TESTS): $(B)/tests/unit/%: tests/unit/%.c tests/unit/cpu_fake.c tests/unit/cpu_fake.h $(CPU_TEST_OBJ)
	@mkdir -p $(@D)
	@echo LD $@ && $(CC) -std=gnu17 -O1 -g -Wall -Wextra -Werror -Wno-unused-parameter -Isrc -Itests/unit -D_GNU_SOURCE -no-pie -o $@ \
		$< tests/unit/cpu_fake.c $(CPU_TEST_OBJ) -lcmocka
