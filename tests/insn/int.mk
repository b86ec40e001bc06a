TESTS += $(B)/tests/insn_int $(B)/tests/insn_blocks
INSN_HARNESS := $(B)/tests/insn/harness_guest.o

$(B)/tests/insn/harness_guest.o: tests/insn/harness_guest.c
	@mkdir -p $(@D)
	@echo CC $< && $(CC) $(E_CFLAGS) -I. -c -o $@ $<
$(B)/tests/insn_int: tests/insn/int_main.c tests/insn/harness.c tests/insn/harness_block.c tests/insn/harness.h $(INSN_HARNESS) $(B)/libengine.a
	@mkdir -p $(@D)
	@echo LD $@ && $(CC) $(ET_CFLAGS) -I. -static -no-pie -o $@ $(filter %.c,$^) $(INSN_HARNESS) $(B)/libengine.a -lpthread

$(B)/tests/insn/bench_guest.o: tests/insn/bench_guest.c
	@mkdir -p $(@D)
	@echo CC $< && $(CC) $(E_CFLAGS) -I. -c -o $@ $<
$(B)/tests/insn_blocks: tests/insn/blocks.c tests/insn/harness.c $(B)/tests/insn/bench_guest.o $(INSN_HARNESS) $(B)/libengine.a
	@mkdir -p $(@D)
	@echo LD $@ && $(CC) $(ET_CFLAGS) -I. -static -no-pie -o $@ $(filter %.c %.o %.a,$^) -lpthread

# Not a test: `make build/tests/insn_bench`
$(B)/tests/insn_bench: tests/insn/bench.c tests/insn/harness.c $(B)/tests/insn/bench_guest.o $(INSN_HARNESS) $(B)/libengine.a
	@mkdir -p $(@D)
	@echo LD $@ && $(CC) $(ET_CFLAGS) -I. -static -no-pie -o $@ $(filter %.c %.o %.a,$^) -lpthread
# the same loops on a whole engine, interpreter and translator: `make build/tests/bench_loops`, bench/run
$(B)/tests/bench_loops: tests/insn/bench_loops.c $(B)/libdoppel.a $(B)/doppel-engine
	@mkdir -p $(@D)
	@echo LD $@ && $(CC) $(V_CFLAGS) -o $@ $< $(B)/libdoppel.a $(V_LIBS)
