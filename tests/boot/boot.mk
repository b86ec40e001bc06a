# The Debian cloud kernel, booted.
BOOT_RUN := $(B)/tests/boot/boot-run
TESTS += $(BOOT_RUN)
$(BOOT_RUN): tests/boot/boot tests/boot/init $(B)/doppel $(B)/doppel-engine
	@mkdir -p $(@D)
	@printf '#!/bin/sh\nexec tests/boot/boot $(abspath $(B))/doppel\n' >$@ && chmod +x $@
