# Disks in whole VMs.
DISKS_RUN := $(B)/tests/disks/disks-run
TESTS += $(DISKS_RUN)
$(B)/tests/disks/guest: tests/disks/guest.c
	@mkdir -p $(@D)
	@echo LD $@ && $(CC) -std=gnu17 -O2 -Wall -Wextra -Werror -static -o $@ $< -lpthread
$(DISKS_RUN): tests/disks/disks tests/disks/common.sh tests/disks/init $(B)/tests/disks/guest $(B)/doppel $(B)/doppel-engine $(B)/doppel-disk
	@mkdir -p $(@D)
	@printf '#!/bin/sh\nexec tests/disks/disks $(abspath $(B))/doppel $(abspath $(B))/tests/disks/guest\n' >$@ && chmod +x $@
CRASH_RUN := $(B)/tests/disks/crash-run
SLOW_TESTS += $(CRASH_RUN)
$(CRASH_RUN): tests/disks/crash tests/disks/common.sh tests/disks/init $(B)/tests/disks/guest $(B)/doppel $(B)/doppel-engine $(B)/doppel-disk
	@mkdir -p $(@D)
	@printf '#!/bin/sh\nexec tests/disks/crash $(abspath $(B))/doppel $(abspath $(B))/tests/disks/guest\n' >$@ && chmod +x $@
DEBIAN_RUN := $(B)/tests/disks/debian-run
SLOW_TESTS += $(DEBIAN_RUN)
$(DEBIAN_RUN): tests/disks/debian $(B)/doppel $(B)/doppel-engine $(B)/doppel-disk
	@mkdir -p $(@D)
	@printf '#!/bin/sh\nexec tests/disks/debian $(abspath $(B))/doppel\n' >$@ && chmod +x $@
