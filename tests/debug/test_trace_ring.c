/* The ring between engine and reader: order, wrap, loss, filters; and each side against what the other could write. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <cmocka.h>

#include "debug/trace.h"
#include "engine/trace/trace.h"
#include "kvm/chan.h"

void trace_table_late(struct vcpu *cpu) /* trace/event.c */
{
}

struct world {
	int fd;
	u8 *map;
	struct trace_reader r;
	struct vcpu *cpu;
	struct vcpu_chan *chan;
};

static struct trace_ring *ring_of(const struct world *w, u32 i)
{
	return (struct trace_ring *)(w->map + TRACE_HEADER_SIZE) + i;
}

static void begin(struct world *w, u32 ncpus)
{
	const struct trace_header h = {.magic = TRACE_MAGIC, .version = TRACE_VERSION, .ncpus = ncpus, .tsc_khz = 1000000};

	memset(w, 0, sizeof(*w));
	w->fd = memfd_create("test", MFD_CLOEXEC);
	assert_int_equal(ftruncate(w->fd, (off_t)TRACE_SIZE(ncpus)), 0);
	w->map = mmap(NULL, TRACE_SIZE(ncpus), PROT_READ | PROT_WRITE, MAP_SHARED, w->fd, 0);
	assert_ptr_not_equal(w->map, MAP_FAILED);
	memcpy(w->map, &h, sizeof(h));
	assert_int_equal(trace_reader_open(&w->r, w->fd), 0);
	w->cpu = calloc(1, sizeof(*w->cpu));
	w->chan = calloc(1, sizeof(*w->chan));
	w->cpu->chan = w->chan;
	w->cpu->trace = (struct trace_state){.kinds = TRACE_ALL, .cpls = 15, .hi = ~0ull, .ring = ring_of(w, 0)};
}

static void end(struct world *w)
{
	trace_reader_close(&w->r);
	munmap(w->map, TRACE_SIZE(w->r.h.ncpus));
	close(w->fd);
	free(w->chan);
	free(w->cpu);
}

static void emit(struct world *w, u64 rip, u64 tsc)
{
	const struct trace_event e = {.kind = TRACE_INSN, .what = TI_CLI, .rip = rip, .tsc = tsc};

	trace_emit(w->cpu, &e);
}

static void test_order_and_wrap(void **state)
{
	struct world w;
	struct trace_event e;
	u32 cpu = 9;
	u64 n = 0;

	begin(&w, 1);
	assert_false(trace_reader_next(&w.r, &e, &cpu));
	for (u64 round = 0; round < 5; round++) {
		for (u64 i = 0; i < TRACE_SLOTS - 7; i++)
			emit(&w, round * TRACE_SLOTS + i, 1 + n + i);
		for (u64 i = 0; i < TRACE_SLOTS - 7; i++, n++) {
			assert_true(trace_reader_next(&w.r, &e, &cpu));
			assert_int_equal(e.rip, round * TRACE_SLOTS + i);
			assert_int_equal(e.number, n + 1);
			assert_int_equal(cpu, 0);
		}
	}
	assert_false(trace_reader_next(&w.r, &e, &cpu));
	assert_int_equal(trace_reader_lost(&w.r), 0);
	end(&w);
}

/* Full: the newest are lost and counted, those there stay. */
static void test_loss(void **state)
{
	struct world w;
	struct trace_event e;
	u32 cpu = 0, n = 0;

	begin(&w, 1);
	for (u64 i = 0; i < TRACE_SLOTS + 100; i++)
		emit(&w, i, 1 + i);
	assert_int_equal(trace_reader_lost(&w.r), 100);
	while (trace_reader_next(&w.r, &e, &cpu))
		assert_int_equal(e.rip, n++);
	assert_int_equal(n, TRACE_SLOTS);
	end(&w);
}

/* A vCPU that is to wait does not if somebody wants it. */
static void test_wait_gives_up(void **state)
{
	struct world w;

	begin(&w, 1);
	w.cpu->trace.wait = true;
	w.chan->attention = ATT_SAFE;
	for (u64 i = 0; i < TRACE_SLOTS + 3; i++)
		emit(&w, i, 1 + i);
	assert_int_equal(trace_reader_lost(&w.r), 3);
	end(&w);
}

static void test_filters(void **state)
{
	struct world w;
	struct trace_event e, t = {.kind = TRACE_INSN, .what = TI_CLI, .tsc = 1};
	u32 cpu = 0;

	begin(&w, 1);
	w.cpu->trace.lo = 100;
	w.cpu->trace.hi = 200;
	w.cpu->trace.cpls = 1;
	w.cpu->trace.kinds = BIT(TRACE_INSN);
	for (t.rip = 99; t.rip <= 201; t.rip++)
		trace_emit(w.cpu, &t);
	t.rip = 150;
	t.cpl = 3;
	trace_emit(w.cpu, &t);
	t.cpl = 0;
	t.kind = TRACE_EXIT;
	trace_emit(w.cpu, &t);
	for (u64 rip = 100; rip <= 200; rip++) {
		assert_true(trace_reader_next(&w.r, &e, &cpu));
		assert_int_equal(e.rip, rip);
	}
	assert_false(trace_reader_next(&w.r, &e, &cpu));
	end(&w);
}

/* Rings of several vCPUs come out by time. */
static void test_merge(void **state)
{
	struct world w;
	struct trace_event e;
	u64 last = 0, n = 0;
	u32 cpu = 0;

	begin(&w, 3);
	for (u32 i = 0; i < 3; i++) {
		w.cpu->trace.ring = ring_of(&w, i);
		for (u64 k = 0; k < 100; k++)
			emit(&w, i, 1 + k * 3 + (i * 7 + k) % 3);
	}
	while (trace_reader_next(&w.r, &e, &cpu)) {
		assert_true(e.tsc >= last || e.rip != cpu);
		assert_int_equal(e.rip, cpu);
		last = e.tsc;
		n++;
	}
	assert_int_equal(n, 300);
	end(&w);
}

/* The engine writes what it likes: the reader stays in its memory, and comes to an end. */
static void test_hostile_engine(void **state)
{
	static const u64 heads[] = {~0ull, TRACE_SLOTS + 1, 1ull << 63, 12345678901234ull, 5};
	struct world w;
	struct trace_event e;
	char text[300];
	u32 cpu = 0;
	FILE *null = fopen("/dev/null", "w");

	begin(&w, 2);
	memset(ring_of(&w, 0)->event, 0xff, sizeof(ring_of(&w, 0)->event));
	for (u32 i = 0; i < ARRAY_SIZE(heads); i++) {
		u32 n = 0;

		ring_of(&w, 0)->head = heads[i];
		ring_of(&w, 0)->tail = ~heads[i];
		while (trace_reader_next(&w.r, &e, &cpu) && n <= TRACE_SLOTS)
			n++;
		assert_true(n <= TRACE_SLOTS);
	}
	for (u32 seed = 1; seed < 20000; seed++) {
		struct trace_writer wr = {.out = null, .khz = 1000000, .ncpus = 2, .format = seed % 4};

		for (size_t k = 0; k < sizeof(e); k++)
			((u8 *)&e)[k] = (u8)((seed * 2654435761u >> (k % 24)) ^ k * seed);
		if (seed & 1)
			e.kind %= TRACE_KIND_COUNT;
		if (seed & 2)
			e.what %= TI_COUNT;
		trace_describe(&e, text, sizeof(text));
		assert_true(strlen(text) < sizeof(text));
		for (const char *p = text; *p; p++)
			assert_true(*p >= ' ' && *p < 0x7f && *p != '"' && *p != '\\');
		trace_describe(&e, text, 8);
		assert_true(strlen(text) < 8);
		trace_write(&wr, &e, 1);
	}
	fclose(null);
	end(&w);
}

/* The reader writes what it likes: the engine loses events, and stays in its ring. */
static void test_hostile_reader(void **state)
{
	static const u64 tails[] = {~0ull, 1, 1ull << 63, TRACE_SLOTS * 3ull};
	struct world w;

	begin(&w, 1);
	for (u32 i = 0; i < ARRAY_SIZE(tails); i++) {
		ring_of(&w, 0)->tail = tails[i];
		for (u64 k = 0; k < TRACE_SLOTS + 10; k++)
			emit(&w, k, 1 + k);
	}
	ring_of(&w, 0)->head = ~0ull - 5; /* wraps around */
	ring_of(&w, 0)->tail = ~0ull - 5;
	for (u64 k = 0; k < 20; k++)
		emit(&w, k, 1 + k);
	assert_int_equal(ring_of(&w, 0)->head, 14);
	end(&w);
}

static void test_header(void **state)
{
	static const struct trace_header bad[] = {
		{.magic = 1, .version = TRACE_VERSION, .ncpus = 1, .tsc_khz = 1000000},
		{.magic = TRACE_MAGIC, .version = TRACE_VERSION + 1, .ncpus = 1, .tsc_khz = 1000000},
		{.magic = TRACE_MAGIC, .version = TRACE_VERSION, .ncpus = 0, .tsc_khz = 1000000},
		{.magic = TRACE_MAGIC, .version = TRACE_VERSION, .ncpus = 2, .tsc_khz = 1000000}, /* larger than the file */
		{.magic = TRACE_MAGIC, .version = TRACE_VERSION, .ncpus = 0xffffffff, .tsc_khz = 1000000},
		{.magic = TRACE_MAGIC, .version = TRACE_VERSION, .ncpus = 1, .tsc_khz = 0}, /* would divide by it */
	};
	struct world w;
	struct trace_reader r;

	begin(&w, 1);
	for (u32 i = 0; i < ARRAY_SIZE(bad); i++) {
		memcpy(w.map, &bad[i], sizeof(bad[i]));
		assert_int_equal(trace_reader_open(&r, w.fd), -EPROTO);
	}
	assert_int_equal(ftruncate(w.fd, 100), 0);
	assert_int_equal(trace_reader_open(&r, w.fd), -EPROTO);
	assert_int_equal(ftruncate(w.fd, (off_t)TRACE_SIZE(1)), 0);
	end(&w);
}

static void test_choice(void **state)
{
	static const char *const bad[] = {"", "none", "insn,,irq", "-all", "cpuidx", "insn,-insn", "-cpuid"};
	struct trace_event cpuid = {.kind = TRACE_INSN, .what = TI_CPUID}, cli = {.kind = TRACE_INSN, .what = TI_CLI},
			   wild = {.kind = 999, .what = 999};
	struct trace_choice c;
	struct err e = {0};

	for (u32 i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_not_equal(trace_choice_parse(&c, bad[i], &e), 0);
	assert_int_equal(trace_choice_parse(&c, "all", &e), 0);
	assert_int_equal(c.kinds, TRACE_ALL);
	assert_false(trace_choice_wants(&c, &wild));
	assert_int_equal(trace_choice_parse(&c, "-irq,-pt", &e), 0);
	assert_int_equal(c.kinds, TRACE_ALL & ~(BIT(TRACE_IRQ) | BIT(TRACE_PT)));
	assert_int_equal(trace_choice_parse(&c, "cpuid,irq", &e), 0);
	assert_int_equal(c.kinds, BIT(TRACE_INSN) | BIT(TRACE_IRQ));
	assert_true(trace_choice_wants(&c, &cpuid));
	assert_false(trace_choice_wants(&c, &cli));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_order_and_wrap), cmocka_unit_test(test_loss),	      cmocka_unit_test(test_wait_gives_up),
		cmocka_unit_test(test_filters),	       cmocka_unit_test(test_merge),	      cmocka_unit_test(test_hostile_engine),
		cmocka_unit_test(test_hostile_reader), cmocka_unit_test(test_header),	      cmocka_unit_test(test_choice),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
