/* Loaders on files made here: what they place, what they refuse, and that a refusal writes nothing. */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>
#include <elf.h>
#include <stdlib.h>
#include "fake_guest.h"

#define RAM (64ull << 20)

struct elf64 {
	Elf64_Ehdr h;
	Elf64_Phdr p[2];
	struct {
		Elf64_Nhdr n;
		char name[4];
		u64 entry;
	} note;
	u8 code[64];
};

static struct elf64 make_elf(void)
{
	struct elf64 e = {.h = {.e_type = ET_EXEC, .e_machine = EM_X86_64, .e_entry = 0x1000000, .e_phoff = offsetof(struct elf64, p),
				.e_phentsize = sizeof(Elf64_Phdr), .e_phnum = 1}};

	memcpy(e.h.e_ident, ELFMAG, SELFMAG);
	e.h.e_ident[EI_CLASS] = ELFCLASS64;
	e.h.e_ident[EI_DATA] = ELFDATA2LSB;
	e.p[0] = (Elf64_Phdr){.p_type = PT_LOAD, .p_offset = offsetof(struct elf64, code), .p_paddr = 0x1000000,
			      .p_filesz = sizeof(e.code), .p_memsz = 8192};
	e.p[1] = (Elf64_Phdr){.p_type = PT_NOTE, .p_offset = offsetof(struct elf64, note), .p_filesz = sizeof(e.note),
			      .p_memsz = sizeof(e.note), .p_align = 4};
	e.note.n = (Elf64_Nhdr){.n_namesz = 4, .n_descsz = 8, .n_type = 18};
	memcpy(e.note.name, "Xen", 4);
	e.note.entry = 0x1000040;
	memset(e.code, 0xcc, sizeof(e.code));
	return e;
}

struct fixture {
	struct machine m;
	struct boot_source src;
	struct boot_state out;
	struct err e;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	*state = f;
	f->src = (struct boot_source){.cmdline = "a=b", .rsdp = MEM_ACPI};
	return fake_guest_init(&f->m, RAM);
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	fake_guest_free(&f->m);
	free(f);
	return 0;
}

static int load(struct fixture *f, const void *p, u64 n)
{
	f->src.map = &f->m.map;
	f->src.kernel = (struct blob){.p = p, .n = n};
	f->e.text[0] = 0;
	return loader_load(&f->m, &f->src, &f->out, &f->e);
}

static bool untouched(struct fixture *f)
{
	for (u64 i = 0; i < RAM; i++)
		if (f->m.ram.slot[0].host[i])
			return false;
	return true;
}

static void elf_64bit_entry(void **state)
{
	struct fixture *f = *state;
	struct elf64 e = make_elf();
	u8 *ram = f->m.ram.slot[0].host;

	memset(ram + 0x1000000, 0xff, 8192); /* what a first boot left: the tail must be zeroed */
	assert_int_equal(load(f, &e, sizeof(e)), 0);
	assert_true(f->out.long_mode);
	assert_int_equal(f->out.entry, 0x1000000);
	assert_int_equal(f->out.rsi, BOOT_ZEROPAGE);
	assert_memory_equal(ram + 0x1000000, e.code, sizeof(e.code));
	assert_int_equal(ram[0x1000000 + sizeof(e.code)], 0);
	assert_string_equal((char *)ram + BOOT_CMDLINE, "a=b");
	assert_int_equal(*(u32 *)(ram + BOOT_ZEROPAGE + 0x228), BOOT_CMDLINE);
	assert_int_equal(ram[BOOT_ZEROPAGE + 0x1e8], f->m.map.n);
	/* one to one: the last entry of the last directory maps 4 GiB - 2 MiB */
	assert_int_equal(((u64 *)(ram + f->out.cr3 + 5 * 4096))[511] & ~0xfffull, 0xffe00000);
}

static void elf_pvh_with_initrd(void **state)
{
	struct fixture *f = *state;
	struct elf64 e = make_elf();
	u8 *ram = f->m.ram.slot[0].host;
	static const u8 initrd[5000] = {1, 2, 3};

	e.h.e_phnum = 2;
	f->src.initrd = (struct blob){.p = initrd, .n = sizeof(initrd)};
	assert_int_equal(load(f, &e, sizeof(e)), 0);
	assert_false(f->out.long_mode);
	assert_int_equal(f->out.entry, 0x1000040);
	assert_int_equal(*(u32 *)(ram + f->out.rbx), 0x336ec578);
	assert_int_equal(*(u32 *)(ram + f->out.rbx + 12), 1);
	assert_memory_equal(ram + RAM - 8192, initrd, sizeof(initrd));
}

/* Every prefix of a good file is either refused or harmless. */
static void elf_truncated(void **state)
{
	struct fixture *f = *state;
	struct elf64 e = make_elf();

	e.h.e_phnum = 2;
	for (u64 n = 0; n < sizeof(e) - sizeof(e.code); n++) {
		u8 *copy = malloc(n ? n : 1); /* exact size: the sanitizer sees an overrun */

		memcpy(copy, &e, n);
		assert_true(load(f, copy, n) < 0);
		assert_true(f->e.text[0]);
		free(copy);
	}
	assert_true(untouched(f));
}

static void elf_hostile(void **state)
{
	struct fixture *f = *state;
	static const struct {
		u64 paddr, offset, filesz, memsz;
	} bad[] = {
		{UINT64_MAX - 16, 0, 32, 64},
		{0x1000000, UINT64_MAX - 16, 32, 64},
		{0x1000000, 0, UINT64_MAX, 64},
		{0x1000000, 0, 32, UINT64_MAX},
		{0x1000000, 0, 64, 32},
		{0x90000, 0, 32, 64},
		{0x8fff0, 0, 32, 64},
		{RAM - 16, 0, 32, 64},
		{MEM_ECAM, 0, 32, 64},
	};

	for (u32 i = 0; i < ARRAY_SIZE(bad); i++) {
		struct elf64 e = make_elf();

		e.p[0].p_paddr = bad[i].paddr;
		e.p[0].p_offset = bad[i].offset;
		e.p[0].p_filesz = bad[i].filesz;
		e.p[0].p_memsz = bad[i].memsz;
		assert_true(load(f, &e, sizeof(e)) < 0);
	}
	assert_true(untouched(f));
}

static void other_machines(void **state)
{
	struct fixture *f = *state;
	struct elf64 e = make_elf();

	e.h.e_machine = EM_AARCH64;
	assert_int_equal(load(f, &e, sizeof(e)), -ENOEXEC);
	assert_int_equal(load(f, "#!/bin/sh\n", 10), -ENOEXEC);
	assert_int_equal(load(f, "", 0), -EINVAL);
}

static void multiboot_by_header(void **state)
{
	struct fixture *f = *state;
	u8 file[256] = {0};
	const u32 h[] = {0x1badb002, 0x10003, -(0x1badb002u + 0x10003), 0x100010, 0x100000, 0, 0x101000, 0x100040};
	u8 *ram = f->m.ram.slot[0].host;

	memcpy(file + 16, h, sizeof(h));
	file[0] = 0xaa;
	assert_int_equal(load(f, file, sizeof(file)), 0);
	assert_int_equal(f->out.entry, 0x100040);
	assert_int_equal(f->out.rax, 0x2badb002);
	assert_int_equal(ram[0x100000], 0xaa);
	assert_int_equal(*(u32 *)(ram + f->out.rbx) & 0x45, 0x45); /* memory, command line, map */
}

static void multiboot_hostile(void **state)
{
	struct fixture *f = *state;
	static const u32 addrs[][5] = { /* header, load, load_end, bss_end, entry */
		{0x100000, 0x100010, 0, 0, 0},   {0x200000, 0x100000, 0, 0, 0},      {0x100010, 0x100000, 0xfffffff0, 0, 0},
		{0x100010, 0x100000, 0x80, 0, 0}, {0x100010, 0x100000, 0, 0x100001, 0}, {0x10, 0, 0, 0, 0x90000},
		{0x100010, 0x100000, 0, 0xffffffff, 0},
	};

	for (u32 i = 0; i < ARRAY_SIZE(addrs); i++) {
		u8 file[0x90100] = {0};
		u32 h[8] = {0x1badb002, 0x10000, -(0x1badb002u + 0x10000)};

		memcpy(h + 3, addrs[i], sizeof(addrs[i]));
		memcpy(file + 16, h, sizeof(h));
		assert_true(load(f, file, i == 5 ? sizeof(file) : 256) < 0);
	}
	assert_true(untouched(f));
}

static void initrd_too_large(void **state)
{
	struct fixture *f = *state;
	struct elf64 e = make_elf();

	f->src.initrd = (struct blob){.p = (u8 *)&e, .n = RAM};
	assert_int_equal(load(f, &e, sizeof(e)), -ENOMEM);
}

static void cmdline_too_long(void **state)
{
	struct fixture *f = *state;
	struct elf64 e = make_elf();
	char long_line[3000];

	memset(long_line, 'x', sizeof(long_line));
	long_line[sizeof(long_line) - 1] = 0;
	f->src.cmdline = long_line;
	assert_int_equal(load(f, &e, sizeof(e)), -E2BIG);
}

/* A bzImage around a gzip'ed ELF would need a compressor; here a payload that no filter knows: the kernel unpacks itself. */
static void bzimage_own_entry(void **state)
{
	struct fixture *f = *state;
	static u8 file[8192];
	u64 pref = 0x1000000;

	memset(file, 0, sizeof(file));
	file[0x1f1] = 4;
	file[0x1fe] = 0x55;
	file[0x1ff] = 0xaa;
	file[0x201] = 0x6a;
	memcpy(file + 0x202, "HdrS", 4);
	file[0x206] = 0x0f;
	file[0x207] = 2;
	file[0x211] = 1;
	file[0x236] = 1;
	memcpy(file + 0x258, &pref, 8);
	*(u32 *)(file + 0x22c) = 0x7fffffff;
	*(u32 *)(file + 0x238) = 2047;
	*(u32 *)(file + 0x248) = 16;
	*(u32 *)(file + 0x24c) = 1000;
	*(u32 *)(file + 0x260) = 1 << 20;
	memset(file + 5 * 512, 0x90, 100);
	assert_int_equal(load(f, file, sizeof(file)), 0);
	assert_int_equal(f->out.entry, pref + 0x200);
	assert_int_equal(f->m.ram.slot[0].host[pref], 0x90);
	*(u32 *)(file + 0x24c) = 100000;
	assert_int_equal(load(f, file, sizeof(file)), -EINVAL);
	*(u32 *)(file + 0x24c) = 1000;
	*(u32 *)(file + 0x248) = 0xffffffff;
	assert_int_equal(load(f, file, sizeof(file)), -EINVAL);
}

static void memory_map(void **state)
{
	struct memmap mm;

	memmap_make(&mm, 5ull << 30);
	assert_int_equal(mm.low, 3ull << 30);
	assert_int_equal(mm.high, 2ull << 30);
	assert_true(mm.pci64_base >= MEM_4G + mm.high);
	assert_true(ram_range(&mm, MEM_4G, mm.high));
	assert_false(ram_range(&mm, MEM_4G, mm.high + 1));
	assert_false(ram_range(&mm, 0x9f000, 0x2000));
	for (u32 i = 1; i < mm.n; i++)
		assert_true(mm.e[i - 1].addr + mm.e[i - 1].size <= mm.e[i].addr);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
int main(void)
{
	const struct CMUnitTest tests[] = {
		T(elf_64bit_entry), T(elf_pvh_with_initrd), T(elf_truncated),	    T(elf_hostile),
		T(other_machines),  T(multiboot_by_header), T(multiboot_hostile), T(initrd_too_large),
		T(cmdline_too_long), T(bzimage_own_entry),   cmocka_unit_test(memory_map),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
