CLI_TESTS := $(patsubst %.c,$(B)/%,$(wildcard tests/unit/test_cli_*.c))
TESTS += $(CLI_TESTS)
$(CLI_TESTS): $(B)/%: %.c $(B)/libdoppel.a
	@mkdir -p $(@D)
	@echo LD $@ && $(CC) $(V_CFLAGS) -o $@ $< $(B)/libdoppel.a $(V_LIBS) -lcmocka
