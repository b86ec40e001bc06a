/* insn_int [--count N] [--seed S] [--seconds T]: random integer instructions against the host CPU. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/insn/harness.h"

/* What cannot run on the host unharmed, or answers differently by nature. */
static const u16 excluded[] = {
	INSN_RDRAND, INSN_RDSEED, INSN_PAUSE, INSN_MOVDIR64B, INSN_MOVDIRI, INSN_CLDEMOTE, INSN_JMP_FAR, INSN_CALL_FAR,
	INSN_BOUND, INSN_ENTER,
};

/* How often each instruction has been tried: rare encodings must not be crowded out. */
static u32 seen[INSN_COUNT];
static u64 total, thinning = 1;

static bool want(const struct insn *in)
{
	if (in->desc->cls != IC_INT || in->mem.seg == SEG_FS || in->mem.seg == SEG_GS)
		return false;
	if (in->desc->attr & IA_BRANCH && in->opsize == 2) /* lands in this program's first pages, or below them */
		return false;
	/* LOOPcc with F2 or F3, a reserved use: AMD lets the prefix choose the condition */
	if ((in->id == INSN_LOOPE || in->id == INSN_LOOPNE) && in->prefixes & (PFX_REP | PFX_REPNE))
		return false;
	for (unsigned i = 0; i < ARRAY_SIZE(excluded); i++)
		if (in->id == excluded[i])
			return false;
	return seen[in->id] < 16 + total / 64 || !(test_random(&thinning) & 31);
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

static bool one(struct insn_case *c, enum harness_mode mode, u8 *saved)
{
	struct insn_result h, g;

	memcpy(saved, harness_host_data(), T_DATA_SIZE);
	harness_run_host(c, &h);
	harness_run_interp(c, &g, mode);
	return harness_compare(c, &h, &g, harness_flag_mask(&c->in));
}

int main(int argc, char **argv)
{
	static u8 saved[T_DATA_SIZE];
	u64 count = 0, seed = 1, seconds = 10, rnd, passed = 0, failed = 0, end;

	for (int i = 1; i + 1 < argc; i += 2) {
		if (!strcmp(argv[i], "--count"))
			count = strtoull(argv[i + 1], NULL, 0);
		else if (!strcmp(argv[i], "--seed"))
			seed = strtoull(argv[i + 1], NULL, 0);
		else if (!strcmp(argv[i], "--seconds"))
			seconds = strtoull(argv[i + 1], NULL, 0);
	}
	if (!harness_init())
		return 1;
	rnd = seed * 0x9e3779b97f4a7c15ull + 1;
	for (unsigned i = 0; i < T_DATA_SIZE; i++)
		harness_host_data()[i] = harness_guest_data()[i] = (u8)test_random(&rnd);
	end = now_ms() + seconds * 1000;
	for (u64 n = 0; count ? n < count : (n & 255) || now_ms() < end; n++) {
		struct insn_case c;

		harness_generate(&c, &rnd, want);
		seen[c.in.id]++;
		total++;
		if (one(&c, n & 1 ? HARNESS_BLOCK : HARNESS_STEP, saved))
			passed++;
		else if (++failed >= 40)
			break;
		scramble(&rnd);
	}
	if (getenv("INSN_SEEN"))
		for (unsigned i = 1; i < INSN_COUNT; i++)
			if (seen[i])
				printf("%s %u\n", insn_name(i), seen[i]);
	printf("%llu passed, %llu failed\n", (unsigned long long)passed, (unsigned long long)failed);
	return failed != 0;
}
