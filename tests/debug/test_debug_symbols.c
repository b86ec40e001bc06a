/* Symbols: kallsyms tables as two generations of kernels lay them out, ELF files, System.map; and the same with bytes changed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "debug/kallsyms.h"
#include "debug/symbols.h"

enum { SYMS = 700, IMAGE = 1 << 16, PERCPU = 20 };
#define BASE 0xffffffff81000000ull

static u32 seed = 1;
static u32 rnd(void)
{
	return (seed = seed * 1103515245 + 12345) >> 8;
}

/* ---- an image ---- */
struct image {
	u8 p[IMAGE];
	u64 n;
};

static void align(struct image *i, u64 to)
{
	i->n = ALIGN_UP(i->n, to);
}

static void put(struct image *i, const void *p, u64 n)
{
	assert_true(i->n + n <= IMAGE);
	memcpy(i->p + i->n, p, n);
	i->n += n;
}

static u64 addr_of(u32 i)
{
	return i < PERCPU ? i * 64 : BASE + 0x1000 + i * 48ull;
}

static void name_of(u32 i, char name[32])
{
	snprintf(name, 32, i % 3 ? "do_thing_%u" : "x%u", i);
}

static void put_offsets(struct image *i)
{
	u64 base = BASE;

	align(i, 8);
	for (u32 k = 0; k < SYMS; k++) {
		s32 off = k < PERCPU ? (s32)addr_of(k) : (s32)(BASE - 1 - addr_of(k));

		put(i, &off, 4);
	}
	align(i, 8);
	put(i, &base, 8);
}

static void put_names(struct image *i, u32 *markers)
{
	u64 n = SYMS, start = 0;

	align(i, 8);
	put(i, &n, 8);
	start = i->n;
	for (u32 k = 0; k < SYMS; k++) {
		char name[33] = "T";
		u8 len = 0;

		if (k % 256 == 0)
			markers[k / 256] = (u32)(i->n - start);
		name_of(k, name + 1);
		len = (u8)strlen(name);
		put(i, &len, 1);
		put(i, name, len);
	}
}

/* Tokens are the characters themselves. */
static void put_tokens(struct image *i)
{
	u16 index[256];
	u64 start = 0;

	align(i, 8);
	start = i->n;
	for (u32 c = 0; c < 256; c++) {
		char s[2] = {c >= ' ' && c < 127 ? (char)c : 0, 0};

		index[c] = (u16)(i->n - start);
		put(i, s, strlen(s) + 1);
	}
	align(i, 8);
	put(i, index, sizeof(index));
}

static void make_image(struct image *i, bool newer)
{
	u32 markers[SYMS / 256 + 1];

	memset(i, 0, sizeof(*i));
	i->n = 4096;
	for (u32 k = 0; k < i->n; k++)
		i->p[k] = (u8)rnd();
	if (!newer)
		put_offsets(i);
	put_names(i, markers);
	align(i, 8);
	put(i, markers, sizeof(markers));
	put_tokens(i);
	if (newer)
		put_offsets(i);
	for (u32 k = 0; k < 1000; k++)
		i->p[i->n++] = (u8)rnd();
}

static bool read_image(struct image *i, struct symbols **s)
{
	struct kimage k = {.base = BASE, .p = malloc(i->n), .n = i->n}; /* exactly: a sanitizer sees what is beyond */
	bool ok = false;

	memcpy(k.p, i->p, i->n);
	*s = symbols_new();
	ok = kallsyms_read(*s, &k);
	symbols_sort(*s);
	free(k.p);
	return ok;
}

static void kallsyms(void **state)
{
	static struct image i;

	for (int newer = 0; newer < 2; newer++) {
		struct symbols *s = NULL;

		make_image(&i, newer);
		assert_true(read_image(&i, &s));
		assert_int_equal(symbols_count(s), SYMS);
		for (u32 k = 0; k < SYMS; k++) {
			char name[32];
			u64 addr = 0;

			name_of(k, name);
			assert_true(symbols_find(s, name, &addr));
			assert_int_equal(addr, addr_of(k));
			assert_int_equal(symbols_at(s, k)->type, 'T');
		}
		symbols_free(s);
	}
}

static void damaged_kallsyms(void **state)
{
	static struct image good, i;

	for (u32 round = 0; round < 3000; round++) {
		struct symbols *s = NULL;

		if (round % 100 == 0)
			make_image(&good, round / 100 & 1);
		i = good;
		for (u32 k = 0; k <= round % 5; k++)
			i.p[4000 + rnd() % (i.n - 4000)] = (u8)rnd();
		if (round % 7 == 0)
			i.n -= rnd() % 3000;
		read_image(&i, &s);
		for (u32 k = 0; k < symbols_count(s); k++)
			assert_in_range(strlen(symbols_name(s, symbols_at(s, k))), 1, SYMBOL_NAME - 1);
		symbols_free(s);
	}
}

/* ---- the table ---- */
static struct symbols *small(void)
{
	static const struct {
		u64 addr;
		const char *name;
	} all[] = {{BASE + 0x100, "second"}, {BASE, "first"}, {BASE, "alias"}, {BASE + 0x4000000, "far\x1b[2J"}};
	struct symbols *s = symbols_new();

	for (u32 i = 0; i < ARRAY_SIZE(all); i++)
		symbols_add(s, all[i].addr, i == 3 ? 'D' : 't', all[i].name, strlen(all[i].name));
	symbols_sort(s);
	return s;
}

static void lookups(void **state)
{
	struct symbols *s = small();
	char text[SYMBOL_TEXT];
	u64 addr = 0;

	assert_string_equal(symbols_text(s, BASE, text, sizeof(text)), "first+0x0");
	assert_string_equal(symbols_text(s, BASE + 0xff, text, sizeof(text)), "first+0xff");
	assert_string_equal(symbols_text(s, BASE + 0x101, text, sizeof(text)), "second+0x1");
	assert_string_equal(symbols_text(s, BASE + 0x3ffffff, text, sizeof(text)), "0xffffffff84ffffff");
	assert_string_equal(symbols_text(s, BASE - 1, text, sizeof(text)), "0xffffffff80ffffff");
	assert_string_equal(symbols_text(NULL, 16, text, sizeof(text)), "0x10");
	assert_string_equal(symbols_text(s, BASE + 0x4000000, text, sizeof(text)), "far?[2J+0x0"); /* nothing a terminal obeys */
	assert_true(symbols_find(s, "alias", &addr));
	assert_int_equal(addr, BASE);
	assert_false(symbols_find(s, "none", &addr));
	assert_int_equal(symbols_end(s, symbols_lookup(s, BASE)), BASE + 0x100);
	symbols_free(s);
	assert_int_equal(symbols_count(NULL), 0);
}

static void files(void **state)
{
	static const char map[] = "ffffffff81000000 T _text\nffffffff81000010 t inner [mod]\n0000000000000040 A percpu\n";
	static const char *const bad[] = {"", "hello\n", "ffffffff81000000 T\n", "ff T x\n", "ffffffff81000000 T x\nrest"};
	struct symbols *s = symbols_new(), *back = symbols_new();
	void *elf = NULL;
	size_t n = 0;
	u64 addr = 0;

	assert_int_equal(symbols_from_file(s, map, sizeof(map) - 1, 0x1000), 0);
	assert_true(symbols_find(s, "_text", &addr));
	assert_int_equal(addr, 0xffffffff81001000);
	symbols_sort(s);
	assert_int_equal(symbols_elf(s, &elf, &n), 0);
	assert_int_equal(symbols_from_file(back, elf, n, 0), 0);
	assert_int_equal(symbols_count(back), 3);
	assert_true(symbols_find(back, "inner", &addr));
	assert_int_equal(addr, 0xffffffff81001010);
	free(elf);
	symbols_free(back);
	symbols_free(s);
	for (u32 i = 0; i < ARRAY_SIZE(bad); i++) {
		s = symbols_new();
		assert_int_equal(symbols_from_file(s, bad[i], strlen(bad[i]), 0), -EINVAL);
		symbols_free(s);
	}
}

static void damaged_elf(void **state)
{
	struct symbols *s = small();
	void *elf = NULL;
	size_t n = 0;

	assert_int_equal(symbols_elf(s, &elf, &n), 0);
	for (u32 round = 0; round < 20000; round++) {
		size_t part = round % 11 ? n : rnd() % n;
		struct symbols *to = symbols_new();
		u8 *copy = malloc(part ? part : 1);

		memcpy(copy, elf, part);
		for (u32 k = 0; part && k <= round % 4; k++)
			copy[rnd() % (round & 1 ? part : MIN(part, (size_t)400))] = (u8)rnd();
		symbols_from_file(to, copy, part, 0);
		symbols_sort(to);
		free(copy);
		symbols_free(to);
	}
	free(elf);
	symbols_free(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(kallsyms), cmocka_unit_test(damaged_kallsyms), cmocka_unit_test(lookups),
					   cmocka_unit_test(files), cmocka_unit_test(damaged_elf)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
