TESTS += $(B)/tests/insn/decode_zydis

$(B)/tests/insn/decode_zydis: tests/insn/decode_zydis.c $(patsubst %.c,$(B)/%.o,$(wildcard src/engine/isa/*.c))
	@mkdir -p $(@D)
	@echo LD $@ && $(CC) $(ET_CFLAGS) -no-pie -o $@ $(filter %.c %.o,$^) -lZydis
