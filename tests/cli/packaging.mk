# Bad input and life cycle, from outside.
CLI_BAD := $(B)/tests/cli/bad-input-run
CLI_LIFE := $(B)/tests/cli/lifecycle-run
TESTS += $(CLI_BAD) $(if $(wildcard tests/cli/lifecycle),$(CLI_LIFE))
$(CLI_BAD) $(CLI_LIFE): $(B)/tests/cli/%-run: tests/cli/% tests/cli/common.sh $(B)/tests/cli/guest.elf $(B)/doppel $(B)/doppel-engine $(B)/doppel-fs $(B)/doppel-disk
	@mkdir -p $(@D)
	@printf '#!/bin/sh\nexec tests/cli/$* $(abspath $(B))/doppel $(abspath $(B))/tests/cli/guest.elf\n' >$@ && chmod +x $@
