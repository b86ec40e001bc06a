TESTS += $(B)/tests/unit/test_cell_scan

$(B)/tests/unit/test_cell_scan: tests/unit/test_cell_scan.c $(patsubst %.c,$(B)/%.o,$(wildcard src/engine/isa/*.c) src/engine/cell/scan.c)
	@mkdir -p $(@D)
	@echo LD $@ && $(CC) $(ET_CFLAGS) -no-pie -o $@ $(filter %.c %.o,$^) -lcmocka
