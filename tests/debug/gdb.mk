# The gdb server: with real gdb on a bare-metal guest, and the small Linux of the kernel kit if it is there.
DEBUG_GUEST_FLAGS := -std=gnu17 -O1 -g -m64 -ffreestanding -nostdlib -static -no-pie -fno-pie -mno-red-zone -mgeneral-regs-only \
	-fno-stack-protector -fcf-protection=none -fno-asynchronous-unwind-tables -fno-omit-frame-pointer -fno-optimize-sibling-calls \
	-Wall -Wextra -Werror -Wl,--build-id=none -Wl,-z,noexecstack -Wl,--no-warn-rwx-segments
$(B)/tests/debug/guest.elf: tests/debug/guest/start.S tests/debug/guest/main.c tests/debug/guest/guest.ld
	@mkdir -p $(@D)
	@echo GUEST $@ && $(CC) $(DEBUG_GUEST_FLAGS) -Wl,-T,tests/debug/guest/guest.ld -o $@ $(filter %.S %.c,$^)
$(B)/tests/debug/gdb: tests/debug/gdb tests/debug/gdb-guest.py tests/debug/gdb-linux.py $(B)/tests/debug/guest.elf all
	@mkdir -p $(@D)
	@printf '#!/bin/sh\nB=%s exec %s "$$@"\n' "$(abspath $(B))" "$(abspath $<)" >$@ && chmod +x $@
TESTS += $(B)/tests/debug/gdb
$(B)/tests/debug/test_debug_gdb: tests/debug/test_debug_gdb.c $(B)/libdoppel.a
	@mkdir -p $(@D)
	@echo LD $@ && $(CC) $(V_CFLAGS) -o $@ $< $(B)/libdoppel.a $(V_LIBS) -lcmocka
TESTS += $(B)/tests/debug/test_debug_gdb
