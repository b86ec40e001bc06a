# Disassembly, symbols, unwinding, autopsy, profile, coverage.
AUTOPSY_UNIT := $(patsubst %,$(B)/tests/debug/test_debug_%,disasm)
TESTS += $(AUTOPSY_UNIT)
$(AUTOPSY_UNIT): $(B)/%: %.c $(B)/libdoppel.a
	@mkdir -p $(@D)
	@echo LD $@ && $(CC) $(V_CFLAGS) -o $@ $< $(B)/libdoppel.a $(V_LIBS) -lcmocka
