# Interrupt controllers: their objects and the arena, the rest of the engine faked.
IRQ_OBJ := $(patsubst %.c,$(B)/%.o,$(wildcard src/engine/irqchip/*.c)) \
	$(B)/src/engine/lib/alloc.o $(B)/src/engine/lib/lock.o
IRQ_TESTS := test_irq_lapic test_irq_timer test_irq_chips test_irq_stress test_irq_fuzz test_irq_wake
TESTS += $(IRQ_TESTS:%=$(B)/tests/unit/%) $(B)/tests/unit/test_irq_lib
$(IRQ_TESTS:%=$(B)/tests/unit/%): $(B)/tests/unit/%: tests/unit/%.c \
		tests/unit/irq_fakes.c tests/unit/irq_fakes.h src/base/wake.c $(IRQ_OBJ)
	@mkdir -p $(@D)
	@echo LD $@ && $(CC) $(ET_CFLAGS) -no-pie -o $@ $< tests/unit/irq_fakes.c src/base/wake.c $(IRQ_OBJ) -lcmocka -lpthread
# The engine's own library and main loop, linked statically as in the engine: mem* must win over glibc's.
IRQ_LIB_OBJ := $(patsubst %.c,$(B)/%.o,$(wildcard src/engine/lib/*.c))
$(B)/tests/unit/test_irq_lib: tests/unit/test_irq_lib.c $(IRQ_LIB_OBJ)
	@mkdir -p $(@D)
	@echo LD $@ && $(CC) $(ET_CFLAGS) -static -no-pie -o $@ $< $(IRQ_LIB_OBJ) -lpthread
