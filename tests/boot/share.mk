# Shared folders, with the Debian cloud kernel.
SHARE_RUN := $(B)/tests/boot/share-run
TESTS += $(SHARE_RUN)
$(SHARE_RUN): tests/boot/share tests/boot/share-init $(B)/doppel $(B)/doppel-engine $(B)/doppel-fs $(B)/doppel-disk
	@mkdir -p $(@D)
	@printf '#!/bin/sh\nexec tests/boot/share $(abspath $(B))\n' >$@ && chmod +x $@
