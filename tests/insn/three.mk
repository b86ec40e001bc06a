# The translator against the interpreter and the host CPU, as it is and in its stress modes.
TESTS += $(B)/tests/insn_three $(B)/tests/insn_three_stress
$(B)/tests/insn/three_guest.o: tests/insn/three_guest.c tests/insn/three.h
	@mkdir -p $(@D)
	@echo CC $< && $(CC) $(E_CFLAGS) -I. -c -o $@ $<
$(B)/tests/insn_three: tests/insn/three_main.c tests/insn/three_gen.c tests/insn/three_state.c tests/insn/three_host.c tests/insn/three.h $(B)/tests/insn/three_guest.o $(B)/libengine.a
	@mkdir -p $(@D)
	@echo LD $@ && $(CC) $(ET_CFLAGS) -I. -static -no-pie -o $@ $(filter %.c %.o %.a,$^) -lpthread
$(B)/tests/insn_three_stress: $(B)/tests/insn_three
	@printf '#!/bin/sh\nfor s in hot,one hot,tiny hot,miss hot,flush hot,check hot,nopext,flush hot,one,tiny,miss,flush,check; do DOPPEL_TR_STRESS=$$s %s --seconds 2 || exit 1; done\n' "$(abspath $(B))/tests/insn_three" >$@ && chmod +x $@
