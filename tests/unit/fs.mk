# The server of shared folders.
FS_LIB := $(filter-out $(B)/$(FS_MAIN:.c=.o),$(FS_OBJ))
FS_TESTS := $(B)/tests/unit/test_fs_requests
TESTS += $(FS_TESTS)
$(B)/tests/unit/test_fs_requests: tests/unit/test_fs_requests.c tests/unit/fs_client.c tests/unit/fs_client.h $(FS_LIB)
	@mkdir -p $(@D)
	@echo LD $@ && $(CC) $(V_CFLAGS) -Itests/unit -o $@ $(filter %.c %.o,$^) $(V_LIBS) -lcmocka
