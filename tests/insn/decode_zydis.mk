ISA_OBJ := $(patsubst %.c,$(B)/%.o,$(wildcard src/engine/isa/*.c))
TESTS += $(B)/tests/insn/decode_zydis

$(B)/tests/insn/decode_zydis: tests/insn/decode_zydis.c $(ISA_OBJ)
	@mkdir -p $(@D)
	$(CC) $(V_CFLAGS) -fno-pie -no-pie -o $@ $< $(ISA_OBJ) -lZydis
