/*
 * insn_three [--count N] [--seed S] [--seconds T] [--world NAME [--program N]]: programs of random instructions on the host CPU, in the interpreter and
 * in the translator. --count: executions, each three ways. DOPPEL_TR_STRESS: see CONTRIBUTING.md.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "engine/translate/stress.h"
#include "tests/insn/three.h"

static struct {
	u64 programs, passed, failed, left_out, late;
} count;

static u64 now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (u64)ts.tv_sec * 1000 + (u64)ts.tv_nsec / 1000000;
}

/* ---- judging ---- */

static u64 flag_mask(const struct program *p, const struct state *s, const struct result *r)
{
	for (unsigned i = 0; i < p->nslots; i++) {
		const struct insn_desc *d = p->slot[i].in.desc;

		if (s->rip + p->slot[i].off != r->after.rip)
			continue;
		/* it faulted: of an instruction that repeats, or divides, some flags may be there already */
		return (FL_ARITH | FL_DF) &
		       ~(p->slot[i].undefined | d->flags_undef | (d->attr & IA_STRING ? d->flags_written : 0));
	}
	return r->after.rip == s->rip + p->len ? (FL_ARITH | FL_DF) & ~p->slot[p->nslots].undefined : 0;
}

static bool same_fault(const struct program *p, const struct result *a, const struct result *b, bool host)
{
	u32 mask = host && !world_facts[p->world].cpl3 ? ~4u : ~0u;

	if (a->vector != b->vector)
		return false;
	if (a->vector >= 10 && a->vector <= 13 && a->error != b->error)
		return false;
	if (a->vector != 14)
		return true;
	/* the host kernel has pages in the upper half, the guest none */
	return a->cr2 == b->cr2 && ((a->error & mask) == (b->error & mask) || (host && a->cr2 >> 63));
}

static u64 shown_gpr(const struct program *p, const struct result *r, unsigned i)
{
	return world_facts[p->world].mode64 ? r->after.gpr[i] : i < 8 ? (u32)r->after.gpr[i] : 0;
}

static bool same_vec(const struct program *p, const struct vec *a, const struct vec *b, bool host)
{
	unsigned n = world_facts[p->world].mode64 ? 16 : 8;

	return !memcmp(a->xmm, b->xmm, n * 16) && !memcmp(a->ymm_high, b->ymm_high, n * 16) && a->mxcsr == b->mxcsr &&
	       (host || (!memcmp(a->x87, b->x87, sizeof(a->x87)) && !memcmp(a->st, b->st, sizeof(a->st))));
}

static bool same_memory(const struct memory *a, const struct memory *b)
{
	const u64 *p = (const u64 *)(const void *)a, *q = (const u64 *)(const void *)b;
	u64 differ = 0;

	for (unsigned i = 0; i < sizeof(*a) / 8; i++)
		differ |= p[i] ^ q[i];
	return !differ;
}

static bool same(const struct program *p, const struct state *s, const struct result *a, const struct result *b, bool host)
{
	for (unsigned i = 0; i < 16; i++)
		if (shown_gpr(p, a, i) != shown_gpr(p, b, i))
			return false;
	return a->after.rip == b->after.rip && !((a->after.rflags ^ b->after.rflags) & flag_mask(p, s, a)) &&
	       same_fault(p, a, b, host) && same_vec(p, &a->after.vec, &b->after.vec, host) && same_memory(&a->mem, &b->mem);
}

/* ---- reporting ---- */

static void report_program(const struct program *p, const struct state *s)
{
	char text[100];

	printf("\n%s, flags %03llx fs %llx gs %llx mxcsr %x\n", world_facts[p->world].name, (unsigned long long)s->rflags,
	       (unsigned long long)s->fs_base, (unsigned long long)s->gs_base, s->vec.mxcsr);
	for (unsigned i = 0; i < p->nslots; i++) {
		const struct insn *in = &p->slot[i].in;

		insn_format(in, s->rip + p->slot[i].off, text, sizeof(text));
		printf("%llx %-44s [", (unsigned long long)s->rip + p->slot[i].off, text);
		for (unsigned k = 0; k < in->len; k++)
			printf("%s%02x", k ? " " : "", p->bytes[p->slot[i].off + k]);
		printf("]\n");
	}
}

static void report_result(const char *who, const struct result *r)
{
	printf("  %-9s %svector %d error %x cr2 %llx rip %llx flags %03llx mxcsr %x\n", who, r->late ? "(did not end) " : "", r->vector,
	       r->error, (unsigned long long)r->cr2, (unsigned long long)r->after.rip, (unsigned long long)r->after.rflags & 0xfff,
	       r->after.vec.mxcsr);
}

static void report(const struct program *p, const struct state *s, const char *who, const struct result *a, const char *whose,
		   const struct result *b)
{
	const u8 *ma = (const u8 *)&a->mem, *mb = (const u8 *)&b->mem;

	report_program(p, s);
	report_result(who, a);
	report_result(whose, b);
	for (unsigned i = 0; i < 16; i++)
		if (shown_gpr(p, a, i) != shown_gpr(p, b, i))
			printf("  r%u: before %llx %s %llx %s %llx\n", i, (unsigned long long)s->gpr[i], who,
			       (unsigned long long)a->after.gpr[i], whose, (unsigned long long)b->after.gpr[i]);
	for (unsigned i = 0; i < 16; i++)
		if (memcmp(a->after.vec.xmm[i], b->after.vec.xmm[i], 16) || memcmp(a->after.vec.ymm_high[i], b->after.vec.ymm_high[i], 16))
			printf("  ymm%u differs\n", i);
	for (unsigned i = 0; i < 24; i += 4)
		if (memcmp(a->after.vec.x87 + i, b->after.vec.x87 + i, 4))
			printf("  x87 +%u: %s %08x %s %08x\n", i, who, *(const u32 *)(const void *)(a->after.vec.x87 + i), whose,
			       *(const u32 *)(const void *)(b->after.vec.x87 + i));
	for (unsigned i = 0; i < 8; i++)
		if (memcmp(a->after.vec.st + 16 * i, b->after.vec.st + 16 * i, 16))
			printf("  st%u differs\n", i);
	for (unsigned i = 0; i < sizeof(a->mem); i++)
		if (ma[i] != mb[i]) {
			printf("  memory at %llx: %s %02x %s %02x\n",
			       i < W_DATA_SIZE ? W_DATA_VA + i : W_COUNT_VA + (i - W_DATA_SIZE), who, ma[i], whose, mb[i]);
			break;
		}
}

/* ---- running ---- */

/* It went astray, and at CPL 0 what lies there may be privileged. */
static bool astray(const struct program *p, const struct state *s, const struct result *r)
{
	u64 off = r->after.rip - s->rip;
	unsigned i = 0;

	while (i <= p->nslots && p->slot[i].off != off)
		i++;
	return !world_facts[p->world].cpl3 && i > p->nslots;
}

static bool unsafe(const struct program *p, const struct state *s, const struct result *r)
{
	/* INT1, INT3 or INTO in what a jump took for an instruction: the guest has no gate for it (error code: SDM 3A 6.13) */
	bool no_gate = r->vector == 13 && (r->error == (1 << 3 | 3) || r->error == (3 << 3 | 2) || r->error == (4 << 3 | 2));

	return astray(p, s, r) || no_gate || r->wrote_code || three_in_own(r->after.rip) || (r->vector == 14 && three_in_own(r->cr2));
}

static bool judge(const struct program *p, const struct state *s, const char *who, const struct result *a, const char *whose,
		  const struct result *b, bool host)
{
	if (!a->late && !b->late && same(p, s, a, b, host))
		return true;
	report(p, s, who, a, whose, b);
	return false;
}

static void once(const struct program *p, const struct state *s, struct memory *m, bool cold)
{
	static struct result interp, translated, host;
	bool ok = true;

	if (cold)
		three_guest_flush();
	three_run_guest(p, s, m, &interp, false);
	if (interp.late || interp.wrote_code) {
		count.left_out++;
		three_guest_load(p);
		return;
	}
	if (cold)
		three_guest_flush();
	three_run_guest(p, s, m, &translated, true);
	ok = judge(p, s, "interp", &interp, "translate", &translated, false);
	if (world_facts[p->world].host && !p->x87 && unsafe(p, s, &interp)) {
		count.left_out++;
	} else if (world_facts[p->world].host && !p->x87) {
		three_run_host(p, s, m, &host);
		if (ok)
			ok = judge(p, s, "host", &host, "interp", &interp, true);
		else
			report_result("host", &host);
	}
	*m = interp.mem;
	if (ok)
		count.passed++;
	else
		count.failed++;
}

static struct memory m, first;

static void fill_memory(void)
{
	u64 rnd = 1;

	for (unsigned i = 0; i < sizeof(first.data); i++)
		first.data[i] = (u8)(three_random(&rnd) >> 56);
}

static void one_program(enum world w, u64 seed)
{
	static struct program p;
	struct state s;
	u64 rnd = seed * 0x9e3779b97f4a7c15ull | 1;

	three_random(&rnd);
	m = first;
	generate(&p, &rnd, w, three_guest_has);
	three_guest_load(&p);
	count.programs++;
	for (unsigned i = 0; i < W_STATES; i++) {
		u64 failed = count.failed;

		generate_state(&p, &s, &m, &rnd);
		once(&p, &s, &m, i == 0 && seed % 4 == 0);
		if (count.failed != failed)
			printf("  --world '%s' --program %llu\n", world_facts[w].name, (unsigned long long)seed);
	}
}

/* Programs that were once found to differ. */
static const struct {
	const char *world;
	u64 seed;
} known[] = {
	{"user 32", 777000000001116450ull}, /* VPMASKMOV over the end of the segment */
	{"user 32", 777000000001514722ull}, /* INT1 inside of another instruction */
	{"user compatibility", 200000546575ull},
	{"kernel 64, upper half", 100000506139ull},
};

static void run_named(const char *world, u64 seed)
{
	for (unsigned w = 0; w < WORLDS; w++)
		if (!strcmp(world, world_facts[w].name))
			one_program((enum world)w, seed);
}

int main(int argc, char **argv)
{
	u64 wanted = 0, seed = 1, ms = 18000, end = 0, program = 0;
	const char *world = NULL, *stress = getenv("DOPPEL_TR_STRESS");

	for (int i = 1; i + 1 < argc; i += 2) {
		if (!strcmp(argv[i], "--count"))
			wanted = strtoull(argv[i + 1], NULL, 0);
		else if (!strcmp(argv[i], "--seed"))
			seed = strtoull(argv[i + 1], NULL, 0);
		else if (!strcmp(argv[i], "--seconds"))
			ms = strtoull(argv[i + 1], NULL, 0) * 1000;
		else if (!strcmp(argv[i], "--world"))
			world = argv[i + 1];
		else if (!strcmp(argv[i], "--program"))
			program = strtoull(argv[i + 1], NULL, 0);
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	fill_memory();
	if (!tr_stress_parse(stress ? stress : "hot") || !three_guest_init() || !three_host_init(&first)) {
		printf("insn_three: no FSGSBASE, its addresses are taken, or DOPPEL_TR_STRESS is wrong\n");
		return 1;
	}
	if (program && world)
		run_named(world, program);
	for (unsigned i = 0; !program && i < sizeof(known) / sizeof(known[0]); i++)
		run_named(known[i].world, known[i].seed);
	end = now_ms() + ms;
	for (u64 n = 0; !program && count.failed < 20 && (wanted ? count.passed + count.left_out < wanted : (n & 63) || now_ms() < end); n++) {
		enum world w = (enum world)(n % WORLDS);

		if (!world || !strcmp(world, world_facts[w].name))
			one_program(w, seed * 1000000000ull + n);
	}
	printf("%llu programs, %llu blocks translated, %llu executions left out: would touch this process, or wrote code\n",
	       (unsigned long long)count.programs, (unsigned long long)three_guest_blocks(), (unsigned long long)count.left_out);
	printf("%llu passed, %llu failed\n", (unsigned long long)count.passed, (unsigned long long)count.failed);
	return count.failed != 0;
}
