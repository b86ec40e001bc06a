TESTS += $(B)/tests/unit/test_kvm_smoke
$(B)/tests/unit/test_kvm_smoke: tests/unit/test_kvm_smoke.c tests/unit/kvm_vm.h $(B)/libdoppel.a $(B)/doppel-engine
	@mkdir -p $(@D)
	@echo LD $@ && $(CC) $(V_CFLAGS) -Itests/unit -o $@ $< $(B)/libdoppel.a $(V_LIBS) -lcmocka
