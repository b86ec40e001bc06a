TESTS += $(B)/tests/insn/reencode_zydis

REENC_OBJ := $(patsubst %.c,$(B)/%.o,$(wildcard src/engine/isa/*.c) src/engine/translate/emit.c src/engine/translate/reencode.c)
$(B)/tests/insn/reencode_zydis: tests/insn/reencode_zydis.c $(REENC_OBJ)
	@mkdir -p $(@D)
	@echo LD $@ && $(CC) $(ET_CFLAGS) -no-pie -o $@ $(filter %.c %.o,$^) -lZydis
