/* Sizes, ranges, files, the event loop. */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>
#include "base/base.h"
#include "base/loop.h"
#include "base/patience.h"

static void sizes(void **state)
{
	static const struct {
		const char *s;
		int ret;
		u64 v;
	} t[] = {{"0", 0, 0},		{"4096", 0, 4096},	   {"64k", 0, 65536},	   {"512M", 0, 512ull << 20},
		 {"2GiB", 0, 2ull << 30}, {"1T", 0, 1ull << 40},   {"3MB", 0, 3ull << 20}, {"", -EINVAL, 0},
		 {"M", -EINVAL, 0},	{"-1", -EINVAL, 0},	   {"1X", -EINVAL, 0},	   {"1MM", -EINVAL, 0},
		 {"99999999999999999999", -ERANGE, 0}, {"20000000000G", -ERANGE, 0}, {" 1", -EINVAL, 0}};

	for (u32 i = 0; i < ARRAY_SIZE(t); i++) {
		u64 v = 0;

		assert_int_equal(parse_size(t[i].s, &v), t[i].ret);
		assert_int_equal(v, t[i].v);
	}
}

static void ranges(void **state)
{
	assert_true(range_within(0, 0, 0));
	assert_true(range_within(5, 5, 10));
	assert_false(range_within(5, 6, 10));
	assert_false(range_within(11, 0, 10));
	assert_false(range_within(5, UINT64_MAX, 10));
	assert_true(add_overflows(UINT64_MAX, 1));
}

static void errors(void **state)
{
	struct err e = {0};

	assert_int_equal(err_set(&e, EIO, "first %d", 1), -EIO);
	assert_int_equal(err_set(&e, EINVAL, "second"), -EINVAL);
	assert_string_equal(e.text, "first 1");
	assert_int_equal(err_set(NULL, EIO, "nobody asks"), -EIO);
}

static void files(void **state)
{
	char path[] = "/tmp/doppel-file.XXXXXX";
	int fd = mkstemp(path);
	void *p = NULL;
	u64 n = 0;

	assert_true(fd >= 0);
	assert_int_equal(write_all(fd, "hello", 5), 0);
	assert_int_equal(read_file(path, 5, &p, &n), 0);
	assert_int_equal(n, 5);
	assert_memory_equal(p, "hello", 5);
	free(p);
	assert_int_equal(read_file(path, 4, &p, &n), -EFBIG);
	assert_int_equal(read_file("/tmp", 4, &p, &n), -EISDIR);
	assert_int_equal(read_file("/nonexistent", 4, &p, &n), -ENOENT);
	assert_int_equal(read_file("/dev/zero", 100000, &p, &n), -EFBIG);
	close(fd);
	unlink(path);
}

struct ctx {
	struct loop *l;
	int a[2], b[2], hits;
};

/* Deletes the other entry while both are ready in the same round. */
static void on_ready(void *arg, u32 events)
{
	struct ctx *c = arg;

	c->hits++;
	loop_del(c->l, c->a[0]);
	loop_del(c->l, c->b[0]);
	loop_stop(c->l, 7);
}

static void loop_deletes(void **state)
{
	struct ctx c = {.l = loop_new()};

	assert_int_equal(pipe(c.a) | pipe(c.b), 0);
	assert_int_equal(loop_add(c.l, c.a[0], EPOLLIN, on_ready, &c), 0);
	assert_int_equal(loop_add(c.l, c.b[0], EPOLLIN, on_ready, &c), 0);
	assert_int_equal(loop_mod(c.l, 9999, EPOLLIN), -ENOENT);
	assert_int_equal(write(c.a[1], "x", 1) + write(c.b[1], "x", 1), 2);
	assert_int_equal(loop_run(c.l), 7);
	assert_int_equal(c.hits, 1);
	loop_free(c.l);
	for (int i = 0; i < 2; i++) {
		close(c.a[i]);
		close(c.b[i]);
	}
}

static void count(void *arg)
{
	struct ctx *c = arg;

	if (++c->hits == 1000)
		loop_stop(c->l, 0);
}

static void *caller(void *arg)
{
	struct ctx *c = arg;

	for (int i = 0; i < 1000; i++)
		loop_call(c->l, count, c);
	return NULL;
}

static void loop_calls_from_threads(void **state)
{
	struct ctx c = {.l = loop_new()};
	pthread_t t;

	assert_int_equal(pthread_create(&t, NULL, caller, &c), 0);
	assert_int_equal(loop_run(c.l), 0);
	pthread_join(t, NULL);
	assert_int_equal(c.hits, 1000);
	loop_free(c.l);
}

/* ---- patience: who waits and what for, in turns of nanoseconds ---- */
static bool wait_for(struct patience *p, u64 ns)
{
	bool looks = patience_looks(p), found = looks && ns < PATIENCE_LOOK_NS;

	patience_learn(p, ns, looks, found);
	return looks;
}

static unsigned looks_in(struct patience *p, unsigned turns, u64 ns, unsigned pause_every)
{
	unsigned n = 0;

	for (unsigned i = 1; i <= turns; i++)
		n += wait_for(p, pause_every && i % pause_every == 0 ? 5000000 : ns);
	return n;
}

static void who_waits_looks(void **state)
{
	struct patience p;

	patience_init(&p);
	assert_int_equal(looks_in(&p, 1000, 4000000, 0), 0);	       /* a timer's ticks */
	assert_int_equal(looks_in(&p, 1000, 20000, 0), 1000 - PATIENCE_FIRST); /* answers */
	assert_true(looks_in(&p, 1000, 20000, 46) > 900);	       /* with pauses between */
	assert_true(looks_in(&p, 1000, 4000000, 0) <= 4);	       /* idle again */
	assert_true(looks_in(&p, 10000, PATIENCE_SOON_NS - 1, 0) < 10000 / 30); /* never soon enough */
	assert_true(looks_in(&p, 1000, 20000, 46) > 850);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(who_waits_looks),
		cmocka_unit_test(sizes), cmocka_unit_test(ranges),	 cmocka_unit_test(errors),
		cmocka_unit_test(files), cmocka_unit_test(loop_deletes), cmocka_unit_test(loop_calls_from_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
