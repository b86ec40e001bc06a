FUZZERS += $(B)/tests/fuzz/fuzz_qcow2
$(B)/tests/fuzz/fuzz_qcow2: tests/fuzz/fuzz_qcow2.c tests/unit/fake_machine.c $(wildcard src/devices/*.c src/backends/*.c src/backends/*.h)
	@mkdir -p $(@D)
	@echo LD $@ && $(CC) $(V_CFLAGS) -fsanitize=address,undefined -fno-sanitize-recover=undefined -Itests/unit -o $@ \
		tests/fuzz/fuzz_qcow2.c tests/unit/fake_machine.c \
		src/devices/*.c src/backends/*.c src/base/loop.c src/base/err.c src/base/paths.c src/base/vhost_user.c $(V_LIBS)
