# The command from outside, with a guest of a few instructions.
CLI_RUN := $(B)/tests/cli/run
TESTS += $(CLI_RUN)
$(B)/tests/cli/guest.elf: tests/cli/guest.S
	@mkdir -p $(@D)
	@echo LD $@ && $(CC) -m32 -nostdlib -static -no-pie -Wl,-Ttext=0x100000,--build-id=none -Wl,-z,noexecstack -o $@ $<
$(CLI_RUN): tests/cli/cli_test $(B)/tests/cli/guest.elf $(B)/doppel $(B)/doppel-engine
	@printf '#!/bin/sh\nexec tests/cli/cli_test $(abspath $(B))/doppel $(abspath $(B))/tests/cli/guest.elf\n' >$@ && chmod +x $@
