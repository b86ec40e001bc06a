FUZZERS += $(B)/tests/fuzz/fuzz_fs
$(B)/tests/fuzz/fuzz_fs: tests/fuzz/fuzz_fs.c tests/unit/fs_client.c $(FS_SRC)
	@mkdir -p $(@D)
	@echo LD $@ && $(CC) $(V_CFLAGS) -fsanitize=address,undefined -fno-sanitize-recover=undefined -Itests/unit -o $@ \
		tests/fuzz/fuzz_fs.c tests/unit/fs_client.c $(filter-out $(FS_MAIN),$(FS_SRC)) \
		$(patsubst %,src/%.c,devices/virtio_ring devices/guestmem base/vhost_user base/err base/file) $(V_LIBS)
