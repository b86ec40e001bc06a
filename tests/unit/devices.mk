DEV_OBJ := $(patsubst %.c,$(B)/%.o,$(wildcard src/devices/*.c src/backends/*.c) src/base/loop.c src/base/err.c src/base/paths.c src/base/vhost_user.c)
DEV_FAKES := $(B)/tests/unit/fake_machine.o $(B)/tests/unit/virtio_driver.o $(B)/tests/unit/blk_local.o
DEV_TESTS := $(patsubst %.c,$(B)/%,$(wildcard tests/unit/test_dev_*.c tests/unit/test_virtio_*.c tests/unit/test_backend_*.c))
TESTS += $(DEV_TESTS)

$(DEV_FAKES): $(B)/%.o: %.c
	@mkdir -p $(@D)
	@echo CC $< && $(CC) $(V_CFLAGS) -c -o $@ $<
$(B)/tests/unit/test_backend_net: $(B)/doppel-net
$(B)/tests/unit/test_virtio_disk: $(B)/doppel-disk
$(DEV_TESTS): $(B)/%: %.c $(DEV_FAKES) $(DEV_OBJ)
	@mkdir -p $(@D)
	@echo LD $@ && $(CC) $(V_CFLAGS) -Itests/unit -o $@ $< $(DEV_FAKES) $(DEV_OBJ) $(V_LIBS) -lcmocka
