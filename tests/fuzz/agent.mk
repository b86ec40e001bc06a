FUZZERS += $(B)/tests/fuzz/fuzz_vsock $(B)/tests/fuzz/fuzz_agent
AGENT_SAN := -fsanitize=address,undefined -fno-sanitize-recover=undefined
$(B)/tests/fuzz/fuzz_vsock: tests/fuzz/fuzz_vsock.c tests/unit/vsock_driver.h tests/unit/fake_machine.c tests/unit/virtio_driver.c \
	$(wildcard src/devices/*vsock*.[ch]) src/backends/dialer.c
	@mkdir -p $(@D)
	@echo LD $@ && $(CC) $(V_CFLAGS) $(AGENT_SAN) -Itests/unit -o $@ $< tests/unit/fake_machine.c tests/unit/virtio_driver.c \
		src/devices/*.c src/backends/*.c src/base/loop.c src/base/err.c src/base/vhost_user.c $(V_LIBS)
$(B)/tests/fuzz/fuzz_agent: tests/fuzz/fuzz_agent.c $(wildcard src/guest/proto.* src/guest/change.* src/guest/request.* src/cli/changes.*)
	@mkdir -p $(@D)
	@echo LD $@ && $(CC) $(V_CFLAGS) $(AGENT_SAN) -o $@ $< src/guest/proto.c src/guest/change.c src/guest/request.c src/cli/changes.c
