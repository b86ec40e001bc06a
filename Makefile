# doppel: `make run` (a shell in a VM), `make test` (all tests). See README.md.
SHELL := /bin/bash
CC ?= gcc
B ?= build
PREFIX ?= /usr/local
V_CFLAGS := -std=gnu17 -O2 -g -Wall -Wextra -Werror -Wno-unused-parameter -fno-strict-aliasing -Isrc -D_GNU_SOURCE -MMD -MP
E_CFLAGS := $(V_CFLAGS) -mgeneral-regs-only -mno-red-zone -fno-pie -fno-stack-protector -fno-tree-loop-distribute-patterns -fcf-protection=none
PKGS := libarchive liburing libseccomp libcjson
V_CFLAGS += $(SAN) $(shell pkg-config --cflags $(PKGS) 2>/dev/null) -fPIE
V_LIBS := $(shell pkg-config --libs $(PKGS) 2>/dev/null) -lpthread

ENGINE_SRC := $(shell find src/engine -name '*.c')
V_SRC := $(shell find src/base src/kvm src/vmm src/devices src/backends src/cli -name '*.c')
V_MAIN := src/cli/main.c
E_MAIN := src/engine/main.c
ENGINE_OBJ := $(ENGINE_SRC:%.c=$(B)/%.o)
V_OBJ := $(V_SRC:%.c=$(B)/%.o)

.DEFAULT_GOAL := all
all: $(B)/doppel $(B)/doppel-engine

$(B)/src/engine/%.o: src/engine/%.c
	@mkdir -p $(@D)
	$(CC) $(E_CFLAGS) -c -o $@ $<
$(B)/src/%.o: src/%.c
	@mkdir -p $(@D)
	$(CC) $(V_CFLAGS) -c -o $@ $<

$(B)/libengine.a: $(filter-out $(B)/$(E_MAIN:.c=.o),$(ENGINE_OBJ))
	rm -f $@ && ar rcs $@ $^
$(B)/libdoppel.a: $(filter-out $(B)/$(V_MAIN:.c=.o),$(V_OBJ))
	rm -f $@ && ar rcs $@ $^
$(B)/doppel-engine: $(B)/$(E_MAIN:.c=.o) $(B)/libengine.a
	$(CC) -static -no-pie -o $@ $< -Wl,--whole-archive $(B)/libengine.a -Wl,--no-whole-archive -lpthread
$(B)/doppel: $(B)/$(V_MAIN:.c=.o) $(B)/libdoppel.a
	$(CC) $(SAN) -pie -o $@ $< $(B)/libdoppel.a $(V_LIBS)

# Tests: each room adds a fragment tests/*/*.mk that appends to TESTS (programs to run) and says how to build them.
TESTS :=
-include $(wildcard tests/*/*.mk)

check: all $(TESTS)
	@tests/run-tests $(TESTS)

clean:
	rm -rf $(B)

.PHONY: all check clean
-include $(shell find $(B) -name '*.d' 2>/dev/null)
