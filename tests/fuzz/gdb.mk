# The gdb server's packets, the screen's control sequences.
FUZZERS += $(B)/tests/fuzz/fuzz_gdb
GDB_FUZZ_SRC := $(patsubst %,src/debug/%.c,gdb_packet gdb_command gdb_query gdb_regs gdb_memory gdb_break gdb_run gdb_monitor cpu_state inspect \
	screen)
$(B)/tests/fuzz/fuzz_gdb: tests/fuzz/fuzz_gdb.c $(GDB_FUZZ_SRC)
	@mkdir -p $(@D)
	@echo LD $@ && $(CC) $(FUZZ_FLAGS) -o $@ $^ $(V_LIBS)
