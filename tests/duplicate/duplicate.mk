# Duplicates of this machine, with the Debian kernel.
DUP_RUN := $(patsubst %,$(B)/tests/duplicate/%,duplicate terminal screen confined install large direct)
TESTS += $(DUP_RUN)
$(DUP_RUN): $(B)/tests/duplicate/%: tests/duplicate/% $(B)/doppel $(B)/doppel-engine $(B)/doppel-fs $(B)/doppel-disk $(B)/doppel-init
	@mkdir -p $(@D)
	@printf '#!/bin/sh\nexec tests/duplicate/$* $(abspath $(B))/doppel\n' >$@ && chmod +x $@
DUP_MANY := $(B)/tests/duplicate/many
SLOW_TESTS += $(DUP_MANY)
$(DUP_MANY): tests/duplicate/many $(B)/doppel $(B)/doppel-engine $(B)/doppel-fs $(B)/doppel-disk $(B)/doppel-init
	@mkdir -p $(@D)
	@printf '#!/bin/sh\nexec tests/duplicate/many $(abspath $(B))/doppel\n' >$@ && chmod +x $@
