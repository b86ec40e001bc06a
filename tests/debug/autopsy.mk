# Disassembly, symbols, unwinding, autopsy, profile, coverage.
AUTOPSY_UNIT := $(patsubst %,$(B)/tests/debug/test_debug_%,disasm symbols unwind)
TESTS += $(AUTOPSY_UNIT)
$(AUTOPSY_UNIT): $(B)/%: %.c $(B)/libdoppel.a
	@mkdir -p $(@D)
	@echo LD $@ && $(CC) $(V_CFLAGS) -o $@ $< $(B)/libdoppel.a $(V_LIBS) -lcmocka
# The commands, on a guest that crashes and on a Debian kernel.
AUTOPSY_RUN := $(B)/tests/debug/autopsy
TESTS += $(AUTOPSY_RUN)
$(B)/tests/debug/triple.elf $(B)/tests/debug/overflow.elf: $(B)/%.elf: %.S
	@mkdir -p $(@D)
	@echo GUEST $@ && $(CC) -nostdlib -static -no-pie -Wl,-Ttext=0x100000,-N,--build-id=none -Wl,-z,noexecstack,--no-warn-rwx-segments -o $@.64 $< && \
		objcopy -O elf32-i386 $@.64 $@
$(AUTOPSY_RUN): tests/debug/autopsy $(B)/tests/debug/triple.elf $(B)/tests/debug/overflow.elf $(B)/doppel $(B)/doppel-engine $(B)/doppel-fs $(B)/doppel-init
	@printf '#!/bin/sh\nexec tests/debug/autopsy $(abspath $(B))/doppel $(abspath $(B))/tests/debug/triple.elf $(abspath $(B))/tests/debug/overflow.elf\n' >$@ && chmod +x $@
