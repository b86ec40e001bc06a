# Fuzzers of what the VMM parses, always with sanitizers: sources are compiled here, not taken from the build.
FUZZ_VMM := fuzz_loader fuzz_qmp
FUZZERS += $(FUZZ_VMM:%=$(B)/tests/fuzz/%)
FUZZ_FLAGS := $(filter-out -fPIE -MMD -MP,$(V_CFLAGS)) -O1 -fsanitize=address,undefined -fno-sanitize-recover=all -Itests/unit
$(B)/tests/fuzz/fuzz_loader: tests/fuzz/fuzz_loader.c tests/unit/fake_guest.c src/vmm/loader.c src/vmm/load_elf.c \
		src/vmm/load_linux64.c src/vmm/load_bzimage.c src/vmm/load_multiboot.c src/vmm/memmap.c src/devices/guestmem.c \
		src/base/err.c
	@mkdir -p $(@D)
	@echo LD $@ && $(CC) $(FUZZ_FLAGS) -o $@ $^ $(V_LIBS)
$(B)/tests/fuzz/fuzz_qmp: tests/fuzz/fuzz_qmp.c src/vmm/qmp.c src/vmm/qmp_commands.c $(B)/libdoppel.a
	@mkdir -p $(@D)
	@echo LD $@ && $(CC) $(FUZZ_FLAGS) -o $@ $^ $(V_LIBS)
