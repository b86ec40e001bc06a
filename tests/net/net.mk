# The network, from inside a Debian guest.
NETPERF := $(B)/tests/net/netperf
NET_RUN := $(B)/tests/net/net-run
NET_SOAK := $(B)/tests/net/net-soak
TESTS += $(NET_RUN)
SLOW_TESTS += $(NET_SOAK)
$(NETPERF): tests/net/netperf.c
	@mkdir -p $(@D)
	@echo LD $@ && $(CC) -std=gnu17 -O2 -Wall -Wextra -Werror -D_GNU_SOURCE -static -s -o $@ $<
$(NET_RUN) $(NET_SOAK): tests/net/net tests/net/init tests/net/dhcp $(NETPERF) $(B)/doppel $(B)/doppel-engine $(B)/doppel-net
	@printf '#!/bin/sh\n$(if $(findstring soak,$@),SOAK=1 )exec tests/net/net $(abspath $(B))/doppel $(abspath $(NETPERF))\n' >$@ && chmod +x $@
