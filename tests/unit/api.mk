API_TESTS := test_kvm_api test_one_cpu
TESTS += $(API_TESTS:%=$(B)/tests/unit/%)
$(API_TESTS:%=$(B)/tests/unit/%): $(B)/tests/unit/%: tests/unit/%.c tests/unit/kvm_vm.h $(B)/libdoppel.a $(B)/doppel-engine
	@mkdir -p $(@D)
	$(CC) $(V_CFLAGS) -Itests/unit -o $@ $< $(B)/libdoppel.a $(V_LIBS) -lcmocka
