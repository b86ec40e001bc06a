/*
 * insn_int [--count N] [--seed S] [--seconds T] [--mode 64|32|blocks|translate]: random integer instructions, and programs of them,
 * against the host CPU. Without --count and --seconds: DEFAULT_COUNT of each kind, or fewer on a slow machine; the cases are
 * the same ones everywhere.
 */
#include <cpuid.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/insn/harness.h"

/* What cannot run on the host unharmed, or answers differently by nature. */
static const u16 excluded[] = {
	INSN_RDRAND, INSN_RDSEED, INSN_PAUSE, INSN_CLDEMOTE, INSN_JMP_FAR, INSN_CALL_FAR,
};
/* Not class IC_INT, but any program may use them. */
static const u16 included[] = {
	INSN_PUSH_SREG, INSN_POP_SREG, INSN_MOV_SREG, INSN_ARPL, INSN_LES, INSN_LDS, INSN_LSS, INSN_LFS, INSN_LGS, INSN_LAR,
	INSN_LSL, INSN_VERR, INSN_VERW, INSN_PUSHF, INSN_RDFSBASE, INSN_RDGSBASE, INSN_WRFSBASE, INSN_WRGSBASE, INSN_INTO,
};

#define DEFAULT_COUNT 1000000
#define DEFAULT_MS    9000
#define NO_LIMIT      ~0ull

enum kind { KIND_64, KIND_32, KIND_BLOCKS, KIND_TRANSLATE, KINDS };
static const char *const kind_name[KINDS] = {"64", "32", "blocks", "translate"};

/* How often each instruction has been tried: rare encodings must not be crowded out. */
static u32 seen[INSN_COUNT];
static u64 total, thinning = 1;
static bool compat, movdir;

static bool listed(const u16 *list, unsigned n, u16 id)
{
	while (n--)
		if (list[n] == id)
			return true;
	return false;
}

static bool possible(const struct insn *in)
{
	if (in->desc->cls != IC_INT && !listed(included, ARRAY_SIZE(included), in->id))
		return false;
	if (listed(excluded, ARRAY_SIZE(excluded), in->id))
		return false;
	/* the vendors differ in what a 16-bit branch does in 64-bit mode */
	if (in->desc->attr & IA_BRANCH && in->opsize == 2 && !compat)
		return false;
	if ((in->id == INSN_MOVDIRI || in->id == INSN_MOVDIR64B) && !movdir)
		return false;
	return true;
}

static bool want(const struct insn *in)
{
	return possible(in) && (seen[in->id] < 16 + total / 64 || !(test_random(&thinning) & 31));
}

/* Programs: of segments they only read the selectors, as what they would load is random. */
static bool want_in_block(const struct insn *in)
{
	static const u16 stores[] = {INSN_PUSH_SREG, INSN_PUSHF, INSN_ARPL, INSN_RDFSBASE, INSN_RDGSBASE};

	if (in->id == INSN_MOV_SREG)
		return in->op[0].kind != OPK_SREG;
	return possible(in) && (in->desc->cls == IC_INT || listed(stores, ARRAY_SIZE(stores), in->id));
}

static void scramble(u64 *rnd)
{
	u64 r = test_random(rnd);

	for (unsigned i = 0; i < 8; i++) {
		u64 v = test_random(rnd), at = (v >> 8) % T_DATA_SIZE;

		harness_host_data()[at] = harness_guest_data()[at] = (u8)(v ^ r);
	}
}

static u64 now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (u64)ts.tv_sec * 1000 + (u64)ts.tv_nsec / 1000000;
}

static u64 passed, failed, skipped;

static void one(struct insn_case *c, enum harness_mode mode)
{
	struct insn_result h, g;

	harness_run_interp(c, &g, mode);
	if (harness_unsafe(&g)) {
		memcpy(harness_guest_data(), harness_host_data(), T_DATA_SIZE);
		skipped++;
		return;
	}
	harness_run_host(c, &h);
	if (harness_compare(c, &h, &g, harness_flag_mask(c, &h)))
		passed++;
	else
		failed++;
}

static void next_case(enum kind kind, u64 n, u64 *rnd)
{
	static struct insn_case c;

	compat = c.compat = kind == KIND_32 || (kind >= KIND_BLOCKS && n / 4 & 1);
	total++;
	if (kind >= KIND_BLOCKS) {
		harness_generate_block(&c, rnd, want_in_block);
		for (unsigned i = 0; i < c.count; i++)
			seen[c.prog[i].in.id]++;
		one(&c, kind == KIND_BLOCKS ? HARNESS_BLOCK : HARNESS_TRANSLATE);
	} else {
		harness_generate(&c, rnd, want);
		seen[c.in.id]++;
		one(&c, n & 1 ? HARNESS_BLOCK : HARNESS_STEP);
	}
	scramble(rnd);
}

/* What was once wrong, each with many register contents. */
static const struct {
	bool compat;
	u8 bytes[11];
} regressions[] = {
	{false, {0xf2, 0xe1, 0x40}},                         /* LOOPcc with F2, F3: on AMD the prefix is the condition */
	{false, {0xf3, 0xe0, 0x40}},
	{true, {0x66, 0xf3, 0xe0, 0x40}},
	{false, {0xc8, 0x10, 0x00, 0x1f}},                   /* ENTER: overlapping frames, partial pushes, #SS */
	{false, {0x66, 0xc8, 0x97, 0x02, 0x2a}},
	{true, {0xc8, 0x00, 0x20, 0x05}},
	{true, {0x60}},                                      /* PUSHA, POPA: what is done before a fault */
	{true, {0x66, 0x60}},
	{true, {0x61}},
	{true, {0x66, 0x61}},
	{true, {0x67, 0x63, 0x0e, 0xdc, 0x54}},              /* ARPL reads before it writes */
	{true, {0x63, 0x0b}},
	{true, {0x8f, 0x05, 0xfd, 0xff, 0xff, 0xff}},        /* POP [0xfffffffd]: beyond 4 GiB */
	{true, {0x64, 0x62, 0x06}},                          /* BOUND: two accesses */
	{true, {0x62, 0x7f, 0xfa}},
	{true, {0x66, 0x36, 0x8c, 0x05, 0xff, 0xff, 0xff, 0xff}}, /* beyond 4 GiB: #SS */
	{false, {0x48, 0x0f, 0xbb, 0x4d, 0x00}},             /* BTC [rbp], rcx: #SS */
	{false, {0x48, 0x0f, 0xc7, 0x4d, 0x01}},             /* CMPXCHG16B [rbp+1]: #GP */
};

static void put_regression(struct insn_case *c, unsigned i)
{
	memset(c, 0, sizeof(*c));
	c->compat = compat = regressions[i].compat;
	c->count = 1;
	memcpy(c->bytes, regressions[i].bytes, sizeof(regressions[i].bytes));
	insn_decode(c->bytes, 15, compat ? INSN_MODE_32 : INSN_MODE_64, &c->in);
	c->len = c->in.len;
}

static void run_regressions(u64 rnd)
{
	static struct insn_case c;

	for (unsigned n = 0; n < ARRAY_SIZE(regressions) * 256; n++) {
		unsigned i = n / 256;
		bool fixed = regressions[i].bytes[1] == 0x36 || regressions[i].bytes[0] == 0x8f;

		put_regression(&c, i);
		if (fixed)
			c.in.disp_len = 0; /* keeps its address */
		harness_prepare(&c, &rnd);
		if (c.in.id == INSN_BTC || c.in.id == INSN_CMPXCHG16B)
			c.before.gpr[n & 2 ? R_BP : R_CX] |= n & 4 ? 1ull << 62 : 0;
		one(&c, n & 1 ? HARNESS_BLOCK : HARNESS_STEP);
		scramble(&rnd);
	}
	printf("regressions: %llu passed\n", (unsigned long long)passed);
}

static void print_seen(void)
{
	for (unsigned i = 1; i < INSN_COUNT; i++)
		if (seen[i])
			printf("%s %u\n", insn_name(i), seen[i]);
}

static void run(enum kind kind, u64 count, u64 ms, u64 seed)
{
	u64 rnd = seed * 0x9e3779b97f4a7c15ull + 1, end = ms == NO_LIMIT ? ms : now_ms() + ms, before = passed;

	memset(seen, 0, sizeof(seen));
	total = 0;
	for (unsigned i = 0; i < T_DATA_SIZE; i++)
		harness_host_data()[i] = harness_guest_data()[i] = (u8)test_random(&rnd);
	for (u64 n = 0; failed < 40 && n < count && ((n & 255) || now_ms() < end); n++)
		next_case(kind, n, &rnd);
	if (getenv("INSN_SEEN"))
		print_seen();
	printf("%s: %llu passed\n", kind_name[kind], (unsigned long long)(passed - before));
}

static bool host_has_movdir(void)
{
	unsigned a, b, c, d;

	return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (c >> 27 & 3) == 3;
}

int main(int argc, char **argv)
{
	u64 count = DEFAULT_COUNT, seed = 1, ms = DEFAULT_MS;
	const char *mode = NULL;

	for (int i = 1; i + 1 < argc; i += 2) {
		if (!strcmp(argv[i], "--count"))
			count = strtoull(argv[i + 1], NULL, 0), ms = NO_LIMIT;
		else if (!strcmp(argv[i], "--seed"))
			seed = strtoull(argv[i + 1], NULL, 0);
		else if (!strcmp(argv[i], "--seconds"))
			ms = strtoull(argv[i + 1], NULL, 0) * 1000, count = NO_LIMIT;
		else if (!strcmp(argv[i], "--mode"))
			mode = argv[i + 1];
	}
	if (!harness_init())
		return 1;
	movdir = host_has_movdir();
	run_regressions(seed);
	for (unsigned k = 0; k < KINDS; k++)
		if (!mode || !strcmp(mode, kind_name[k]))
			run(k, count, mode || ms == NO_LIMIT ? ms : ms / KINDS, seed);
	if (skipped)
		printf("%llu left out: would have touched this process on the host, or changed themselves\n",
		       (unsigned long long)skipped);
	printf("%llu passed, %llu failed\n", (unsigned long long)passed, (unsigned long long)failed);
	return failed != 0;
}
