# Tracing: the ring by itself, guests whose events are known, real kernels, the worked examples.
TESTS += $(B)/tests/debug/test_trace_ring $(B)/tests/debug/run-explain $(B)/tests/debug/run-trace
$(B)/tests/debug/test_trace_ring: tests/debug/test_trace_ring.c $(B)/libdoppel.a $(B)/src/engine/trace/ring.o
	@mkdir -p $(@D)
	@echo LD $@ && $(CC) $(V_CFLAGS) -o $@ $< $(B)/src/engine/trace/ring.o $(B)/libdoppel.a $(V_LIBS) -lcmocka -no-pie
$(B)/tests/debug/count.elf: tests/debug/count.S
	@mkdir -p $(@D)
	@echo LD $@ && $(CC) -m32 -nostdlib -static -no-pie -Wl,-Ttext=0x100000,--build-id=none -Wl,-z,noexecstack -o $@ $<
$(B)/tests/debug/run-explain: tests/debug/explain.py $(B)/doppel $(B)/doppel-engine $(B)/tests/debug/count.elf $(B)/tests/cli/guest.elf
	@mkdir -p $(@D)
	@printf '#!/bin/sh\nexec python3 tests/debug/explain.py $(abspath $(B))\n' >$@ && chmod +x $@
$(B)/tests/debug/run-trace: tests/debug/trace.py $(B)/doppel $(B)/doppel-engine $(B)/tests/cli/guest.elf
	@mkdir -p $(@D)
	@printf '#!/bin/sh\nexec python3 tests/debug/trace.py $(abspath $(B))\n' >$@ && chmod +x $@
