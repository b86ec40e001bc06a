/* The engine's library in a static program: mem*, locks, log, clocks, arena, loop. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "engine/lib/arena.h"
#include "engine/lib/lib.h"
#include "engine/lib/loop.h"

static int passed, failed;

static void check(bool ok, const char *what)
{
	ok ? passed++ : failed++;
	if (!ok)
		printf("FAIL: %s\n", what);
}

/* ---- memory: all short lengths and offsets against byte loops ---- */

static void (*volatile sink)(void);

static bool mem_case(unsigned n, unsigned s, unsigned d)
{
	u8 a[200], b[200], t[200];

	for (unsigned i = 0; i < sizeof(a); i++)
		a[i] = b[i] = (u8)rand();
	memmove(a + d, a + s, n);
	for (unsigned i = 0; i < n; i++)
		t[i] = b[s + i];
	for (unsigned i = 0; i < n; i++)
		b[d + i] = t[i];
	for (unsigned i = 0; i < sizeof(a); i++)
		if (a[i] != b[i])
			return false;
	if (memcmp(a, b, sizeof(a)))
		return false;
	memset(a + d, (int)(0x100 | n), n);
	memcpy(t, a + d, n);
	for (unsigned i = 0; i < sizeof(a); i++)
		if (a[i] != (i >= d && i < d + n ? (u8)n : b[i]))
			return false;
	for (unsigned i = 0; i < n; i++)
		if (t[i] != (u8)n)
			return false;
	return true;
}

static void test_mem(void)
{
	bool ok = true;

	for (unsigned n = 0; n < 100; n++)
		for (unsigned s = 0; s < 40; s += 3)
			for (unsigned d = 0; d < 40; d++)
				ok &= mem_case(n, s, d);
	check(ok, "memmove, memset, memcpy agree with byte loops");
	check(memcmp("abcdefgh1", "abcdefgh2", 9) < 0 && memcmp("b......a", "a......b", 8) > 0 &&
		  memcmp("x", "y", 0) == 0 && memcmp("\x80", "\x01", 1) > 0,
	      "memcmp orders unsigned bytes");
}

/* ---- lock ---- */

static u32 lock;
static long counter;

static void *count_up(void *arg)
{
	for (int i = 0; i < 100000; i++) {
		eng_lock(&lock);
		counter++;
		eng_unlock(&lock);
	}
	return NULL;
}

static void test_lock(void)
{
	pthread_t t[3];

	for (int i = 0; i < 3; i++)
		pthread_create(&t[i], NULL, count_up, NULL);
	for (int i = 0; i < 3; i++)
		pthread_join(t[i], NULL);
	check(counter == 300000 && lock == 0, "the lock excludes");
}

/* ---- log: a child with stderr in a pipe ---- */

static int run_child(void (*fn)(void), char *out, size_t size)
{
	int p[2], status = 0;
	pid_t pid = 0;
	ssize_t n = 0;

	if (pipe(p) < 0)
		return -1;
	pid = fork();
	if (!pid) {
		dup2(p[1], 2);
		fn();
		_exit(0);
	}
	close(p[1]);
	n = read(p[0], out, size - 1);
	out[n < 0 ? 0 : n] = 0;
	close(p[0]);
	waitpid(pid, &status, 0);
	return WEXITSTATUS(status);
}

static void say(void)
{
	eng_log("%d %5d|%-4u|%08x %lX %#lx %s %c %% %ld", -7, -12, 3u, 0xbeefu, 0xABCul, 0xffffffff12345678ul,
		"str", 'z', (long)(-9223372036854775807L - 1));
}

static void say_long(void)
{
	char s[2000];

	memset(s, 'x', sizeof(s));
	s[sizeof(s) - 1] = 0;
	eng_log("%s", s);
}

static void panic(void)
{
	eng_panic("bad %s", "thing");
}

static void test_log(void)
{
	char s[4096];

	check(run_child(say, s, sizeof(s)) == 0 &&
		  !strcmp(s, "doppel-engine: -7   -12|3   |0000beef ABC 0xffffffff12345678 str z % "
			     "-9223372036854775808\n"),
	      "log formats");
	run_child(say_long, s, sizeof(s));
	check(strlen(s) == 512 && s[511] == '\n', "a long line is cut");
	check(run_child(panic, s, sizeof(s)) == 134 && strstr(s, "bad thing\n"), "panic says and exits 134");
}

/* ---- clocks ---- */

static void test_time(void)
{
	struct timespec ts = {0};
	u64 a = 0, b = 0, khz = 0, t = 0, inner = 0, outer = 0;

	eng_time_init();
	khz = eng_tsc_khz();
	clock_gettime(CLOCK_MONOTONIC, &ts);
	a = eng_now_ns();
	b = (u64)ts.tv_sec * 1000000000 + (u64)ts.tv_nsec;
	check(a >= b && a - b < 60000000000, "eng_now_ns is CLOCK_MONOTONIC");
	/* readings of the one between two of the other: it does not matter when this thread is not scheduled */
	outer = eng_rdtsc();
	a = eng_now_ns();
	inner = eng_rdtsc();
	usleep(50000);
	inner = (eng_rdtsc() - inner) * 1000000 / khz;
	a = eng_now_ns() - a;
	outer = (eng_rdtsc() - outer) * 1000000 / khz;
	check(inner < a + a / 50 + 100000 && outer + a / 50 + 100000 > a, "the TSC's rate fits the clock");
	a = eng_now_ns();
	t = eng_tsc_ns();
	b = eng_now_ns();
	check(t + 5000000 > a && t < b + 5000000, "scaled TSC follows");
	check(eng_realtime_ns() > 1600000000ull * 1000000000, "real time is real");
}

/* ---- arena, loop ---- */

static struct loop_timer t1, t2, t3;
static char order[8];
static unsigned norder; /* of the loop's thread; the other one waits for it */
static int efd, dead;
static u64 t2_due;

static void note(char c)
{
	order[norder] = c;
	__atomic_store_n(&norder, norder + 1, __ATOMIC_RELEASE);
}

static void on_t1(void *arg)
{
	note('1');
	loop_timer_set(&t3, eng_now_ns() + 1000000);
}

static void on_t2(void *arg)
{
	note(eng_now_ns() < t2_due ? '!' : '2');
}

static void finish(void *arg)
{
	note('3');
	check(!strcmp(order, "2e13"), "timers fire in order of deadline, the fd between");
	printf("%d passed, %d failed\n", passed, failed);
	fflush(stdout);
	_exit(failed != 0);
}

static void on_fd(void *arg)
{
	u64 v = 0;

	if (read(efd, &v, sizeof(v)) == sizeof(v) && arg == &efd)
		note('e');
	loop_del(efd);
}

static void on_dead(void *arg)
{
	note('d');
}

static void wait_for_events(unsigned n)
{
	while (__atomic_load_n(&norder, __ATOMIC_ACQUIRE) < n)
		usleep(1000);
}

static void *other_thread(void *arg)
{
	u64 one = 1;

	wait_for_events(1);
	if (write(dead, &one, sizeof(one)) < 0 || write(efd, &one, sizeof(one)) < 0)
		failed++;
	wait_for_events(2);
	loop_timer_set(&t1, eng_now_ns() + 20000000); /* sooner than what the loop sleeps for */
	return NULL;
}

int main(void)
{
	pthread_t t;
	u64 now = 0;
	void *a = NULL, *b = NULL;

	sink = NULL;
	test_mem();
	test_lock();
	test_log();
	test_time();
	check(eng_arena_init() == 0, "arena");
	check(eng_arena_init() < 0, "arena only once");
	a = vm_alloc(100);
	b = vm_alloc(1);
	check(a && b && !((u64)a & 63) && !((u64)b & 63) && (u8 *)b - (u8 *)a >= 100, "arena allocation");
	check(!vm_alloc(1ull << 40) && !vm_alloc(~0ull) && !vm_alloc(ARENA_SIZE - 0x10000), "arena ends");
	check(loop_init() == 0, "loop");
	efd = eventfd(0, 0);
	dead = eventfd(0, 0);
	check(loop_add(efd, on_fd, &efd) == 0 && loop_add(dead, on_dead, NULL) == 0, "watch");
	check(loop_add(efd, on_fd, &efd) < 0 && loop_add(-1, on_fd, NULL) < 0 &&
		  loop_add(1 << 20, on_fd, NULL) < 0,
	      "watch refused");
	loop_del(dead);
	loop_del(12345678);
	t1.fn = on_t1;
	t2.fn = on_t2;
	t3.fn = finish;
	now = eng_now_ns();
	loop_timer_set(&t3, now + 60000000000); /* on_t1 moves it */
	loop_timer_set(&t1, now + 1);
	loop_timer_set(&t1, 0); /* disarmed */
	loop_timer_set(&t2, now + 60000000000);
	t2_due = now + 5000000;
	loop_timer_set(&t2, t2_due); /* moved forward */
	pthread_create(&t, NULL, other_thread, NULL);
	return loop_run() ? 1 : 0;
}
