TESTS += $(B)/tests/unit/test_tr_emit

TR_EMIT_OBJ := $(patsubst %.c,$(B)/%.o,$(wildcard src/engine/isa/*.c) src/engine/translate/emit.c src/engine/translate/reencode.c)
$(B)/tests/unit/test_tr_emit: tests/unit/test_tr_emit.c $(TR_EMIT_OBJ)
	@mkdir -p $(@D)
	@echo LD $@ && $(CC) $(ET_CFLAGS) -no-pie -o $@ $(filter %.c %.o,$^) -lcmocka -lZydis
