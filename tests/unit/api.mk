TESTS += $(B)/tests/unit/test_kvm_api
$(B)/tests/unit/test_kvm_api: tests/unit/test_kvm_api.c tests/unit/kvm_vm.h $(B)/libdoppel.a $(B)/doppel-engine
	@mkdir -p $(@D)
	$(CC) $(V_CFLAGS) -Itests/unit -o $@ $< $(B)/libdoppel.a $(V_LIBS) -lcmocka
