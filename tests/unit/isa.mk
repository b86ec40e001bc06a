TESTS += $(B)/tests/unit/test_isa_decode

$(B)/tests/unit/test_isa_decode: tests/unit/test_isa_decode.c $(patsubst %.c,$(B)/%.o,$(wildcard src/engine/isa/*.c))
	@mkdir -p $(@D)
	@echo LD $@ && $(CC) $(ET_CFLAGS) -no-pie -o $@ $(filter %.c %.o,$^) -lcmocka
