# Duplicates of this machine, with the Debian kernel.
DUP_RUN := $(B)/tests/duplicate/run
TESTS += $(DUP_RUN)
$(DUP_RUN): tests/duplicate/duplicate tests/duplicate/terminal.py all
	@mkdir -p $(@D)
	@printf '#!/bin/sh\nexec tests/duplicate/duplicate $(abspath $(B))/doppel\n' >$@ && chmod +x $@
