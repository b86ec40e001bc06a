GUEST_SRC := $(wildcard tests/guest/*.guest.c)
GUESTS := $(GUEST_SRC:tests/guest/%.guest.c=$(B)/tests/guest/%.bin)
GUEST_CFLAGS := -std=gnu17 -O1 -m64 -ffreestanding -nostdlib -static -no-pie -fno-pie -mno-red-zone -mgeneral-regs-only \
	-fno-stack-protector -fcf-protection=none -Wall -Wextra -Werror -Itests/guest/rt \
	-Wl,-T,tests/guest/rt/guest.ld -Wl,--build-id=none -Wl,-z,noexecstack -Wl,--no-warn-rwx-segments
$(B)/tests/guest/%.bin: tests/guest/%.guest.c tests/guest/rt/start.S tests/guest/rt/rt.c $(wildcard tests/guest/rt/*.h) tests/guest/rt/guest.ld
	@mkdir -p $(@D)
	@echo GUEST $< && $(CC) $(GUEST_CFLAGS) -o $@.elf tests/guest/rt/start.S tests/guest/rt/rt.c $< && objcopy -O binary $@.elf $@
$(B)/tests/guest/guests: tests/guest/runner.c $(B)/libdoppel.a $(B)/doppel-engine $(GUESTS)
	@mkdir -p $(@D)
	@echo LD $@ && $(CC) $(V_CFLAGS) -o $@ $< $(B)/libdoppel.a $(V_LIBS)
# one program for the test runner, with its guests as arguments
$(B)/tests/guest/run-guests: $(B)/tests/guest/guests
	@printf '#!/bin/sh\nexec %s %s\n' "$(abspath $(B))/tests/guest/guests" "$(abspath $(GUESTS))" >$@ && chmod +x $@
# the same on a translator that does rare things often: CONTRIBUTING.md
$(B)/tests/guest/run-guests-stress: $(B)/tests/guest/guests
	@printf '#!/bin/sh\nfor s in hot,one hot,tiny hot,miss hot,check hot,nopext hot,one,tiny,miss,flush cell; do DOPPEL_TR_STRESS=$$s %s --kvm engine %s; done | awk '"'"'/passed/ { p += $$1; f += $$3; next } { print } END { print p " passed, " f " failed"; exit f != 0 }'"'"'\n' "$(abspath $(B))/tests/guest/guests" "$(abspath $(GUESTS))" >$@ && chmod +x $@
# in lock-step with the interpreter; only guests with one vCPU
$(B)/tests/guest/run-guests-check: $(B)/tests/guest/guests
	@printf '#!/bin/sh\nDOPPEL_TR_STRESS=hot exec %s --kvm check %s\n' "$(abspath $(B))/tests/guest/guests" "$(abspath $(patsubst tests/guest/%.guest.c,$(B)/tests/guest/%.bin,$(filter-out tests/guest/smp%,$(GUEST_SRC))))" >$@ && chmod +x $@
TESTS += $(B)/tests/guest/run-guests $(B)/tests/guest/run-guests-stress $(B)/tests/guest/run-guests-check
