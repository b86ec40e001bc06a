FUZZERS += $(B)/tests/fuzz/fuzz_devices
$(B)/tests/fuzz/fuzz_devices: tests/fuzz/fuzz_devices.c tests/unit/fake_machine.c tests/unit/virtio_driver.c tests/unit/blk_local.c $(wildcard src/devices/*.c src/backends/*.c)
	@mkdir -p $(@D)
	@echo LD $@ && $(CC) $(V_CFLAGS) -fsanitize=address,undefined -fno-sanitize-recover=undefined -Itests/unit -o $@ \
		tests/fuzz/fuzz_devices.c tests/unit/fake_machine.c tests/unit/virtio_driver.c tests/unit/blk_local.c \
		src/devices/*.c src/backends/*.c src/base/loop.c src/base/err.c src/base/paths.c src/base/vhost_user.c $(V_LIBS)

FUZZERS += $(B)/tests/fuzz/fuzz_net
$(B)/tests/fuzz/fuzz_net: tests/fuzz/fuzz_net.c $(B)/doppel-net
	@mkdir -p $(@D)
	@echo LD $@ && $(CC) $(V_CFLAGS) -o $@ $< $(B)/libdoppel.a
