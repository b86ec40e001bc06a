# Differential test of vector and x87 instructions against the host CPU.
TESTS += $(B)/tests/insn/vec_host
VEC_TEST_OBJ := $(patsubst src/%.c,$(B)/src/%.o,$(wildcard src/engine/interp/vec*.c src/engine/interp/stub*.c) \
	src/engine/cpu/fpu.c src/engine/cpu/xstate.c $(wildcard src/engine/isa/*.c))
$(B)/tests/insn/vec_%.o: tests/insn/vec_%.c
	@mkdir -p $(@D)
	@echo CC $< && $(CC) $(E_CFLAGS) -fno-builtin -I. -Wno-format -MMD -MP -c -o $@ $<
$(B)/tests/insn/vec_host: $(B)/tests/insn/vec_host.o $(B)/tests/insn/vec_fake.o $(VEC_TEST_OBJ)
	@echo LD $@ && $(CC) -no-pie -o $@ $^
