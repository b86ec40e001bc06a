# The server of shared folders.
FS_LIB := $(filter-out $(B)/$(FS_MAIN:.c=.o),$(FS_OBJ))
FS_TESTS := $(patsubst %,$(B)/tests/unit/test_fs_%,requests fill habit dax vhost sandbox)
TESTS += $(FS_TESTS)
$(FS_TESTS): $(B)/%: %.c tests/unit/fs_client.c tests/unit/fs_client.h $(FS_LIB)
	@mkdir -p $(@D)
	@echo LD $@ && $(CC) $(V_CFLAGS) -Itests/unit -o $@ $(filter %.c %.o,$^) $(V_LIBS) -lcmocka
