NET_TESTS := $(patsubst %.c,$(B)/%,$(wildcard tests/unit/test_net_*.c))
TESTS += $(NET_TESTS)
$(NET_TESTS): $(B)/%: %.c $(B)/src/net/filter.o $(B)/src/net/closing.o $(B)/src/net/reassemble.o $(B)/src/net/queue.o $(B)/src/backends/net_offload.o
	@mkdir -p $(@D)
	@echo LD $@ && $(CC) $(V_CFLAGS) -o $@ $(filter %.c %.o,$^) -lcmocka
