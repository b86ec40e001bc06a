# The worked examples of docs/learn, guests of doppel explain. 64-bit code in a 32-bit ELF file, which is what multiboot takes.
LEARN := popf tables trap smc interrupts balloon
LEARN_ELF := $(LEARN:%=$(B)/learn/%.elf)
LEARN_CFLAGS := -std=gnu17 -O1 -m64 -ffreestanding -nostdlib -static -no-pie -fno-pie -mno-red-zone -mgeneral-regs-only \
	-fno-stack-protector -fcf-protection=none -fno-asynchronous-unwind-tables -mcmodel=small -Wall -Wextra -Werror -Wno-unused-parameter \
	-Wl,-T,tests/guest/learn/learn.ld -Wl,--build-id=none -Wl,-z,noexecstack -Wl,--no-warn-rwx-segments
$(LEARN_ELF): $(B)/learn/%.elf: tests/guest/learn/%.c tests/guest/learn/start.S tests/guest/learn/learn.c tests/guest/learn/learn.h tests/guest/learn/learn.ld
	@mkdir -p $(@D)
	@echo GUEST $< && $(CC) $(LEARN_CFLAGS) -o $@.64 tests/guest/learn/start.S tests/guest/learn/learn.c $< && objcopy -O elf32-i386 $@.64 $@
all: $(LEARN_ELF)
