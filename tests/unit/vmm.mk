# Unit tests of base, vmm and cli.
VMM_TESTS := test_base_base test_vmm_loader test_vmm_acpi test_vmm_bus test_vmm_control test_vmm_sandbox
TESTS += $(VMM_TESTS:%=$(B)/tests/unit/%)
LOADER_OBJ := $(patsubst %,$(B)/src/%.o,vmm/loader vmm/load_elf vmm/load_linux64 vmm/load_bzimage vmm/load_multiboot vmm/memmap \
	devices/guestmem devices/bus base/err)
$(B)/tests/unit/test_base_base $(B)/tests/unit/test_vmm_acpi $(B)/tests/unit/test_vmm_control $(B)/tests/unit/test_vmm_sandbox: $(B)/tests/unit/%: tests/unit/%.c \
		$(B)/libdoppel.a
	@mkdir -p $(@D)
	@echo LD $@ && $(CC) $(V_CFLAGS) -o $@ $< $(B)/libdoppel.a $(V_LIBS) -lcmocka
$(B)/tests/unit/test_vmm_loader $(B)/tests/unit/test_vmm_bus: $(B)/tests/unit/%: tests/unit/%.c tests/unit/fake_guest.c $(LOADER_OBJ)
	@mkdir -p $(@D)
	@echo LD $@ && $(CC) $(V_CFLAGS) -Itests/unit -o $@ $(filter %.c %.o,$^) $(V_LIBS) -lcmocka
