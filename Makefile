# doppel: `make run` (a shell in a VM), `make test` (all tests). See README.md.
SHELL := /bin/bash
MAKEFLAGS += -r
ifeq ($(origin CC),default)
CC := gcc
endif
B ?= build
PREFIX ?= /usr/local
IS_CLANG := $(findstring clang,$(CC))
V_CFLAGS := -std=gnu17 -O2 -g -Wall -Wextra -Werror -Wno-unused-parameter -fno-strict-aliasing -Isrc -D_GNU_SOURCE -MMD -MP
# KVM's own structs end in arrays, and are meant to be followed by their elements.
V_CFLAGS += $(if $(IS_CLANG),-Wno-gnu-variable-sized-type-not-at-end)
E_CFLAGS := $(V_CFLAGS) -mgeneral-regs-only -mno-red-zone -fno-pie -fno-stack-protector -fcf-protection=none
E_CFLAGS += $(if $(IS_CLANG),,-fno-tree-loop-distribute-patterns)
# Test programs that link engine objects (fixed addresses, own mem*): hosted code, but never under ASan.
ET_CFLAGS := $(V_CFLAGS) -fno-pie
# `make asan`: all of ASan and UBSan for the VMM. For the engine, which has no runtime, UBSan that traps (but null: it makes calls of
# tail calls, and the interpreter is threaded code).
E_CFLAGS += $(if $(SAN),-fsanitize=undefined -fno-sanitize=alignment -fno-sanitize=null -fsanitize-undefined-trap-on-error)
PKGS := libarchive liburing libseccomp libcjson zlib libzstd
V_CFLAGS += $(SAN) $(shell pkg-config --cflags $(PKGS) 2>/dev/null) -fPIE
# libzydis has no .pc file in Debian 12
V_LIBS := $(shell pkg-config --libs $(PKGS) 2>/dev/null) -lZydis -lpthread

ENGINE_SRC := $(shell find src/engine -name '*.c')
V_SRC := $(shell find src/base src/kvm src/debug src/vmm src/devices src/backends src/cli -name '*.c') src/guest/proto.c src/guest/change.c
# doppel-fs, the server of shared folders, uses the VMM's ring code.
FS_SRC := $(wildcard src/fs/*.c)
FS_MAIN := src/fs/main.c
V_MAIN := src/cli/main.c
N_SRC := $(shell find src/net -name '*.c')
N_OBJ := $(N_SRC:%.c=$(B)/%.o)
E_MAIN := src/engine/main.c
ENGINE_OBJ := $(ENGINE_SRC:%.c=$(B)/%.o)
V_OBJ := $(V_SRC:%.c=$(B)/%.o)
FS_OBJ := $(FS_SRC:%.c=$(B)/%.o) $(patsubst %,$(B)/src/%.o,devices/virtio_ring devices/guestmem base/vhost_user base/wake base/err base/file)

# doppel-disk: a disk's process. The half of virtio-blk that serves, and the disk formats.
DISK_SRC := $(wildcard src/disk/*.c src/backends/disk*.c src/backends/qcow2*.c)
DISK_OBJ := $(DISK_SRC:%.c=$(B)/%.o) \
	$(patsubst %,$(B)/src/%.o,devices/virtio devices/virtio_ring devices/virtio_blk devices/disk_proto devices/guestmem base/loop base/err base/file base/wake)

.DEFAULT_GOAL := all
all: $(B)/doppel $(B)/doppel-engine $(B)/doppel-net $(B)/doppel-fs $(B)/doppel-disk $(B)/doppel-init $(B)/doppel-builtin.elf $(B)/doppel-get-kernel

$(B)/doppel-get-kernel: tools/get-kernel
	@mkdir -p $(@D) && ln -sf $(abspath $<) $@

$(B)/src/engine/%.o: src/engine/%.c
	@mkdir -p $(@D)
	@echo CC $< && $(CC) $(E_CFLAGS) -c -o $@ $<
$(B)/src/%.o: src/%.c
	@mkdir -p $(@D)
	@echo CC $< && $(CC) $(V_CFLAGS) -c -o $@ $<

$(B)/libengine.a: $(filter-out $(B)/$(E_MAIN:.c=.o),$(ENGINE_OBJ))
	@rm -f $@ && ar rcs $@ $^
$(B)/libdoppel.a: $(filter-out $(B)/$(V_MAIN:.c=.o),$(V_OBJ))
	@rm -f $@ && ar rcs $@ $^
$(B)/doppel-engine: $(B)/$(E_MAIN:.c=.o) $(B)/libengine.a
	@echo LD $@ && $(CC) -static -o $@ $< -Wl,--whole-archive $(B)/libengine.a -Wl,--no-whole-archive -lpthread
$(B)/doppel: $(B)/$(V_MAIN:.c=.o) $(B)/libdoppel.a
	@echo LD $@ && $(CC) $(SAN) -pie -o $@ $< $(B)/libdoppel.a $(V_LIBS)

# libslirp.pc asks for the headers of glib, which libslirp.h does not include
$(B)/doppel-net: $(N_OBJ) $(B)/libdoppel.a
	@echo LD $@ && $(CC) $(SAN) -pie -o $@ $^ -lslirp -lseccomp

$(B)/doppel-disk: $(DISK_OBJ)
	@echo LD $@ && $(CC) $(SAN) -pie -o $@ $^ $(shell pkg-config --libs liburing libseccomp zlib libzstd) -lpthread

$(B)/doppel-fs: $(FS_OBJ)
	@echo LD $@ && $(CC) $(SAN) -pie -o $@ $^ $(shell pkg-config --libs libseccomp) -lpthread

# /init of the guest: static, so that the initramfs needs no library
INIT_SRC := $(filter-out src/guest/builtin%,$(wildcard src/guest/*.c))
$(B)/doppel-init: $(INIT_SRC) $(wildcard src/guest/*.h)
	@mkdir -p $(@D)
	@echo LD $@ && $(CC) -std=gnu17 -O2 -Wall -Wextra -Werror -Wno-unused-parameter -Isrc -D_GNU_SOURCE -static -s -o $@ $(INIT_SRC)

# The built-in guest: freestanding 32-bit code; links with no 32-bit library
BUILTIN_FLAGS := -std=gnu17 -O2 -Wall -Wextra -Werror -Isrc -m32 -march=i686 -ffreestanding -fno-pie -fno-stack-protector \
	-fcf-protection=none -fno-asynchronous-unwind-tables -mgeneral-regs-only
$(B)/doppel-builtin.elf: $(wildcard src/guest/builtin*)
	@mkdir -p $(@D)
	@echo LD $@ && $(CC) $(BUILTIN_FLAGS) -nostdlib -static -no-pie -Wl,--build-id=none -Wl,-z,max-page-size=4096 \
		-Wl,-z,noexecstack -Wl,--no-warn-rwx-segments -T src/guest/builtin.ld -o $@ $(filter %.c %.S,$^)

# Tests: each room adds a fragment tests/*/*.mk that appends to TESTS (programs to run) and says how to build them.
# SLOW_TESTS: `make soak`. FUZZERS: `make fuzz`.
TESTS :=
SLOW_TESTS :=
FUZZERS :=
-include $(wildcard tests/*/*.mk tests/guest/learn/*.mk)

setup:
	@tools/setup build
# A second make, because pkg-config is asked when make starts.
run: setup
	@$(MAKE) --no-print-directory all && exec tools/run
test:
	@tools/setup test
	@$(MAKE) --no-print-directory -j2 check
check: all $(TESTS)
	@DOPPEL_ENGINE=$(abspath $(B))/doppel-engine tests/run-tests $(TESTS)
soak: all $(SLOW_TESTS)
	@DOPPEL_ENGINE=$(abspath $(B))/doppel-engine TEST_TIMEOUT=3600 tests/run-tests $(SLOW_TESTS)
fuzz: all $(FUZZERS)
	@tests/run-tests $(FUZZERS)
asan:
	@$(MAKE) --no-print-directory B=build-asan SAN='-fsanitize=address,undefined -fno-omit-frame-pointer' check
bench: all
	@bench/run

D := $(DESTDIR)$(PREFIX)
install: all
	install -d $(D)/bin $(D)/libexec $(D)/share/man/man1 $(D)/share/bash-completion/completions $(D)/share/doppel/learn
	install -m755 $(B)/doppel $(D)/bin/doppel
	install -m755 $(B)/doppel-engine $(B)/doppel-net $(B)/doppel-fs $(B)/doppel-disk $(B)/doppel-init $(D)/libexec/
	install -m755 tools/get-kernel $(D)/libexec/doppel-get-kernel
	install -m644 $(B)/doppel-builtin.elf $(D)/libexec/doppel-builtin.elf
	install -m644 $(LEARN_ELF) $(D)/share/doppel/learn/
	install -m644 docs/doppel.1 $(D)/share/man/man1/doppel.1
	install -m644 docs/completion/doppel.bash $(D)/share/bash-completion/completions/doppel

clean:
	rm -rf build build-asan

.PHONY: all setup run test check soak fuzz asan bench install clean
-include $(shell find $(B) -name '*.d' 2>/dev/null)
