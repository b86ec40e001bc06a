/*
 * Fuzzes the kernel loaders: seeds made here, mutated, for a bounded time. Run with a number of seconds (default 10) and a seed
 * (default from the clock; printed, so that a crash can be repeated). `make fuzz` builds it with sanitizers.
 */
#include <elf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "fake_guest.h"

enum { FILE_MAX = 16384 };

static u64 rng_state;

static u64 rng(void)
{
	/* splitmix64 */
	u64 z = (rng_state += 0x9e3779b97f4a7c15);

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	z = (z ^ z >> 27) * 0x94d049bb133111eb;
	return z ^ z >> 31;
}

static void put(u8 *p, u64 v, u32 n)
{
	memcpy(p, &v, n);
}

static u64 seed_elf64(u8 *f)
{
	Elf64_Ehdr h = {.e_type = ET_EXEC, .e_machine = EM_X86_64, .e_entry = 0x1000000, .e_phoff = 64, .e_phentsize = 56,
			.e_phnum = 3};
	Elf64_Phdr p[3] = {{.p_type = PT_LOAD, .p_offset = 1024, .p_paddr = 0x1000000, .p_filesz = 512, .p_memsz = 8192},
			   {.p_type = PT_LOAD, .p_offset = 1536, .p_paddr = 0x1100000, .p_filesz = 512, .p_memsz = 512},
			   {.p_type = PT_NOTE, .p_offset = 512, .p_filesz = 64, .p_memsz = 64, .p_align = 4}};
	Elf64_Nhdr n = {.n_namesz = 4, .n_descsz = 8, .n_type = 18};

	memcpy(h.e_ident, ELFMAG "\2\1\1", 7);
	memcpy(f, &h, sizeof(h));
	memcpy(f + 64, p, sizeof(p));
	memcpy(f + 512, &n, sizeof(n));
	memcpy(f + 524, "Xen", 4);
	put(f + 528, 0x1000100, 8);
	return 2048;
}

static u64 seed_multiboot(u8 *f)
{
	static const u32 h[] = {0x1badb002, 0x10003, -(0x1badb002u + 0x10003), 0x100010, 0x100000, 0, 0x101000, 0x100040};

	memcpy(f + 16, h, sizeof(h));
	return 512;
}

static u64 seed_multiboot_elf(u8 *f)
{
	static const u32 mb[] = {0x1badb002, 3, -(0x1badb002u + 3)};
	Elf32_Ehdr h = {.e_type = ET_EXEC, .e_machine = EM_386, .e_entry = 0x100000, .e_phoff = 52, .e_phentsize = 32, .e_phnum = 1};
	Elf32_Phdr p = {.p_type = PT_LOAD, .p_offset = 256, .p_paddr = 0x100000, .p_filesz = 256, .p_memsz = 512};

	memcpy(h.e_ident, ELFMAG "\1\1\1", 7);
	memcpy(f, &h, sizeof(h));
	memcpy(f + 52, &p, sizeof(p));
	memcpy(f + 256, mb, sizeof(mb));
	return 512;
}

static u64 seed_bzimage(u8 *f)
{
	/* gzip of "x": the payload is unpacked, then refused as no ELF */
	static const u8 gz[] = {0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 0xab, 0, 0, 0x83, 0x16, 0xdc, 0x8c, 1, 0, 0, 0};

	f[0x1f1] = 4;
	put(f + 0x1fe, 0xaa55, 2);
	f[0x201] = 0x6a;
	memcpy(f + 0x202, "HdrS", 4);
	put(f + 0x206, 0x20f, 2);
	f[0x211] = f[0x236] = 1;
	put(f + 0x22c, 0x7fffffff, 4);
	put(f + 0x238, 2047, 4);
	put(f + 0x248, 16, 4);
	put(f + 0x24c, rng() & 1 ? sizeof(gz) : 1000, 4);
	put(f + 0x258, 0x1000000, 8);
	put(f + 0x260, 1 << 16, 4);
	if (rng() & 1)
		memcpy(f + 5 * 512 + 16, gz, sizeof(gz));
	return 8192;
}

static u64 (*const seeds[])(u8 *f) = {seed_elf64, seed_multiboot, seed_multiboot_elf, seed_bzimage};

/* Interesting values at header places, flipped bits, cut files. */
static u64 mutate(u8 *f, u64 n)
{
	static const u64 values[] = {0, 1, 0x7fffffff, 0x80000000, 0xffffffff, UINT64_MAX, UINT64_MAX - 4095, 0x90000, 0xfffff000,
				     0x100000000, 4096, 0x3ffffff};

	for (u64 i = rng() % 8; i; i--) {
		u64 at = rng() % MIN(n, (u64)(rng() & 1 ? 0x300 : 96));

		switch (rng() % 3) {
		case 0:
			f[at] ^= (u8)(1 << rng() % 8);
			break;
		case 1:
			put(f + at, values[rng() % ARRAY_SIZE(values)], 1u << rng() % 4);
			break;
		default:
			f[at] = (u8)rng();
			break;
		}
	}
	return rng() % 8 ? n : rng() % (n + 1);
}

int main(int argc, char **argv)
{
	u64 seconds = argc > 1 ? strtoull(argv[1], NULL, 0) : 10, runs = 0, loaded = 0;
	u64 seed = argc > 2 ? strtoull(argv[2], NULL, 0) : (u64)time(NULL);
	time_t end = time(NULL) + (time_t)seconds;
	static u8 file[FILE_MAX], initrd[4096];
	struct machine m;

	rng_state = seed;
	printf("seed %llu\n", (unsigned long long)seed);
	fflush(stdout);
	if (fake_guest_init(&m, 64ull << 20))
		return 1;
	while (time(NULL) < end) {
		for (int i = 0; i < 200; i++, runs++) {
			struct boot_source src = {.cmdline = "console=ttyS0", .map = &m.map};
			struct boot_state out;
			struct err e = {0};
			u64 n = 0;
			u8 *exact = NULL;
			int ret = 0;

			memset(file, 0, sizeof(file));
			n = mutate(file, seeds[rng() % ARRAY_SIZE(seeds)](file));
			exact = malloc(n ? n : 1); /* so that the sanitizer sees one byte too far */
			memcpy(exact, file, n);
			src.kernel = (struct blob){.p = exact, .n = n};
			if (rng() & 1)
				src.initrd = (struct blob){.p = initrd, .n = sizeof(initrd)};
			ret = loader_load(&m, &src, &out, &e);
			loaded += !ret;
			free(exact);
			if (ret < 0 && !e.text[0]) {
				printf("refused without a reason\n0 passed, 1 failed\n");
				return 1;
			}
		}
	}
	fake_guest_free(&m);
	printf("%llu files, %llu loaded\n1 passed, 0 failed\n", (unsigned long long)runs, (unsigned long long)loaded);
	return 0;
}
