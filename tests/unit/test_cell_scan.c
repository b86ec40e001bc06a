/*
 * Which pages may run on the host's CPU as they are: those with CPUID and its like may not, wherever these lie; those that only have
 * their bytes inside of other instructions may.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "engine/cell/cell_int.h"

struct bytes {
	const char *name;
	u8 n, code[15];
};

/* Ordinary code: what compilers make of functions. Its length is no power of two, so that it meets page borders anyhow. */
static const u8 ordinary[] = {
	0x55, 0x48, 0x89, 0xe5, 0x41, 0x54, 0x53, 0x48, 0x83, 0xec, 0x10,     /* push; mov; push; push; sub $16, %rsp */
	0x48, 0x8b, 0x47, 0x08, 0x48, 0x85, 0xc0, 0x74, 0x0b,                 /* mov 8(%rdi), %rax; test; je */
	0x0f, 0xb6, 0x10, 0x48, 0x8d, 0x04, 0x52, 0x89, 0x44, 0x24, 0x0c,     /* movzbl; lea; mov */
	0xf3, 0x0f, 0x10, 0x45, 0xf8, 0x0f, 0x1f, 0x44, 0x00, 0x00,           /* movss; nop */
	0xe8, 0x34, 0x12, 0x00, 0x00, 0x48, 0x83, 0xc4, 0x10, 0x5b, 0x41, 0x5c, 0x5d, 0xc3, /* call; add; pop; ret */
};

static const struct bytes sensitive[] = {
	{"cpuid", 2, {0x0f, 0xa2}},
	{"cpuid; mov %eax, %ebx", 4, {0x0f, 0xa2, 0x89, 0xc3}},
	{"cpuid; mov %eax, (%rsi)", 4, {0x0f, 0xa2, 0x89, 0x06}},
	{"cpuid; int3", 3, {0x0f, 0xa2, 0xcc}},
	{"cpuid; ret", 3, {0x0f, 0xa2, 0xc3}},
	{"xgetbv", 3, {0x0f, 0x01, 0xd0}},
	{"rdpkru", 3, {0x0f, 0x01, 0xee}},
	{"wrpkru", 3, {0x0f, 0x01, 0xef}},
	{"sgdt (%rdi)", 3, {0x0f, 0x01, 0x07}},
	{"sidt (%rdi)", 3, {0x0f, 0x01, 0x0f}},
	{"smsw %rax", 4, {0x48, 0x0f, 0x01, 0xe0}},
	{"smsw (%rdi)", 3, {0x0f, 0x01, 0x27}},
	{"xsave (%rdi)", 3, {0x0f, 0xae, 0x27}},
	{"xsave64 64(%rsp)", 6, {0x48, 0x0f, 0xae, 0x64, 0x24, 0x40}},
	{"xrstor (%rdi)", 3, {0x0f, 0xae, 0x2f}},
	{"xsaveopt (%rdi)", 3, {0x0f, 0xae, 0x37}},
	{"xsavec 64(%rsp)", 5, {0x0f, 0xc7, 0x64, 0x24, 0x40}},
	{"xsavec64 (%rdi)", 4, {0x48, 0x0f, 0xc7, 0x27}},
	{"rdpid %rax", 4, {0xf3, 0x0f, 0xc7, 0xf8}},
	{"lsl %ecx, %eax", 3, {0x0f, 0x03, 0xc1}},
	{"lar %ecx, %eax", 3, {0x0f, 0x02, 0xc1}},
	{"lsl (%rdi), %r8", 4, {0x4c, 0x0f, 0x03, 0x07}},
	{"sysenter", 2, {0x0f, 0x34}},
	{"int $0x80", 2, {0xcd, 0x80}},
	{"int $4", 2, {0xcd, 0x04}},
};

static const struct bytes harmless[] = {
	{"mov $0x10f, %eax", 5, {0xb8, 0x0f, 0x01, 0x00, 0x00}},
	{"mov $0xd0010f, %eax", 5, {0xb8, 0x0f, 0x01, 0xd0, 0x00}},
	{"mov $0xa20f, %ecx", 5, {0xb9, 0x0f, 0xa2, 0x00, 0x00}},
	{"lea 0xa20f(%rip), %rdi", 7, {0x48, 0x8d, 0x3d, 0x0f, 0xa2, 0x00, 0x00}},
	{"lea 0x3030f(%rip), %rdi", 7, {0x48, 0x8d, 0x3d, 0x0f, 0x03, 0x03, 0x00}},
	{"call with 0f a2", 5, {0xe8, 0x0f, 0xa2, 0x01, 0x00}},
	{"call with 0f 02", 5, {0xe8, 0x0f, 0x02, 0x00, 0x00}},
	{"call with 0f 03, backwards", 5, {0xe8, 0x10, 0x0f, 0x03, 0xff}},
	{"jmp with 0f 34", 5, {0xe9, 0x0f, 0x34, 0x00, 0x00}},
	{"jne with 0f a2", 6, {0x0f, 0x85, 0x0f, 0xa2, 0xff, 0xff}},
	{"movabs with all of them", 10, {0x48, 0xb8, 0x0f, 0xa2, 0x0f, 0x01, 0xd0, 0xcd, 0x80, 0x0f}},
	{"cmpl $0xcd80cd, 8(%rax)", 7, {0x81, 0x78, 0x08, 0xcd, 0x80, 0xcd, 0x00}},
	{"mov 0x80cd(%rip), %eax", 6, {0x8b, 0x05, 0xcd, 0x80, 0x00, 0x00}},
	{"fxsave (%rdi)", 3, {0x0f, 0xae, 0x07}},
	{"ldmxcsr (%rdi)", 3, {0x0f, 0xae, 0x17}},
	{"lfence", 3, {0x0f, 0xae, 0xe8}},
	{"mfence", 3, {0x0f, 0xae, 0xf0}},
	{"clflush (%rdi)", 3, {0x0f, 0xae, 0x3f}},
	{"rdfsbase %rax", 5, {0xf3, 0x48, 0x0f, 0xae, 0xc0}},
	{"lock cmpxchg16b (%rdi)", 5, {0xf0, 0x48, 0x0f, 0xc7, 0x0f}},
	{"rdrand %rax", 4, {0x48, 0x0f, 0xc7, 0xf0}},
	{"syscall", 2, {0x0f, 0x05}},
	{"rdtsc", 2, {0x0f, 0x31}},
	{"rdtscp", 3, {0x0f, 0x01, 0xf9}},
	{"xend", 3, {0x0f, 0x01, 0xd5}},
	{"int3", 1, {0xcc}},
	{"int $3", 2, {0xcd, 0x03}},
	{"movups", 3, {0x0f, 0x10, 0x07}},
	{"pshufb", 5, {0x66, 0x0f, 0x38, 0x00, 0xc1}},
};

/* Three pages of code, of which the middle one is asked about. */
static u8 text[3 * PAGE_SIZE];

/* From offset on, each copy of the ordinary code begins anew; before it one may be cut off. at: of what comes in between. */
static void fill(size_t at, const struct bytes *b)
{
	size_t first = at % sizeof(ordinary);

	for (size_t i = 0; i < sizeof(text); i++)
		text[i] = ordinary[(i + sizeof(ordinary) - first) % sizeof(ordinary)];
	for (size_t i = 0; i < b->n; i++)
		text[at + i] = b->code[i];
	/* no rest of an instruction behind it */
	for (size_t i = at + b->n, k = 0; i < sizeof(text); i++, k++)
		text[i] = ordinary[k % sizeof(ordinary)];
}

static bool fit(void)
{
	return scan_fit(text + PAGE_SIZE, text, text + 2 * PAGE_SIZE);
}

#define expect(got, want, b, at)                                                                                 \
	do {                                                                                                     \
		if ((got) != (want))                                                                             \
			fail_msg("%s at %#zx: %s", (b)->name, (at) - PAGE_SIZE, want ? "not fit" : "fit");         \
	} while (0)

static void test_ordinary(void **state)
{
	static const struct bytes none = {"nothing", 0, {0}};

	for (size_t i = 0; i < sizeof(ordinary); i++) {
		fill(PAGE_SIZE + i, &none);
		expect(fit(), true, &none, i + PAGE_SIZE);
		expect(scan_fit(text + PAGE_SIZE, NULL, NULL), true, &none, i + PAGE_SIZE);
	}
	memset(text, 0, sizeof(text));
	assert_true(fit());
	memset(text, 0x90, sizeof(text));
	assert_true(fit());
}

static void test_sensitive(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(sensitive); i++) {
		const struct bytes *b = &sensitive[i];

		for (size_t at = PAGE_SIZE; at <= 2 * PAGE_SIZE - b->n; at += at < PAGE_SIZE + 100 || at >= 2 * PAGE_SIZE - 100 ? 1 : 97) {
			fill(at, b);
			expect(fit(), false, b, at);
			expect(scan_fit(text + PAGE_SIZE, NULL, NULL), false, b, at);
		}
	}
}

/* Bytes that say what it is lie in two pages: one of these at least must not run as it is, seen from either. */
static void test_across(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(sensitive); i++) {
		struct bytes b = sensitive[i];
		u8 prefixes = 0;

		while (b.code[prefixes] != 0x0f && b.code[prefixes] != 0xcd)
			prefixes++;
		for (size_t in_first = prefixes + 1; in_first < (size_t)prefixes + 2; in_first++) {
			fill(2 * PAGE_SIZE - in_first, &b);
			expect(fit(), false, &b, 2 * PAGE_SIZE - in_first);
			fill(PAGE_SIZE - in_first, &b);
			expect(fit(), false, &b, PAGE_SIZE - in_first);
		}
	}
}

static void test_harmless(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(harmless); i++) {
		const struct bytes *b = &harmless[i];

		for (size_t at = PAGE_SIZE - 12; at < 2 * PAGE_SIZE; at += at < PAGE_SIZE + 100 || at >= 2 * PAGE_SIZE - 100 ? 1 : 97) {
			/* where a page begins with no neighbour, what is cut off there cannot be known */
			bool alone = at >= PAGE_SIZE + 64 && at + b->n <= 2 * PAGE_SIZE;

			fill(at, b);
			expect(fit(), true, b, at);
			if (alone)
				expect(scan_fit(text + PAGE_SIZE, NULL, NULL), true, b, at);
		}
	}
}

/* Whatever the bytes: only within the pages, and the same answer each time. The pages lie at the ends of what is allocated. */
static void test_random(void **state)
{
	u8 *before = malloc(PAGE_SIZE), *page = malloc(PAGE_SIZE), *after = malloc(PAGE_SIZE);
	u64 x = 88172645463325252ull;
	unsigned found = 0;

	assert_non_null(before);
	assert_non_null(page);
	assert_non_null(after);
	for (unsigned turn = 0; turn < 200; turn++) {
		for (size_t i = 0; i < PAGE_SIZE; i++) {
			x ^= x << 13, x ^= x >> 7, x ^= x << 17;
			before[i] = (u8)(x >> 24);
			page[i] = turn % 4 == 0 && x >> 60 < 4 ? 0x0f : (u8)(x >> 32);
			after[i] = (u8)(x >> 40);
		}
		found += !scan_fit(page, before, after);
		assert_int_equal(scan_fit(page, before, after), scan_fit(page, before, after));
		scan_fit(page, NULL, after);
		scan_fit(page, before, NULL);
		scan_fit(page, NULL, NULL);
	}
	assert_true(found > 50);
	free(before);
	free(page);
	free(after);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ordinary), cmocka_unit_test(test_sensitive), cmocka_unit_test(test_across),
		cmocka_unit_test(test_harmless), cmocka_unit_test(test_random),
	};

	return cmocka_run_group_tests_name("cell_scan", tests, NULL, NULL);
}
