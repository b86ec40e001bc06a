/* The host's end of a session against agents that keep the rules, and that do not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/session.h"


static void put(int fd, const void *p, size_t n)
{
	if (send(fd, p, n, MSG_NOSIGNAL) != (ssize_t)n)
		_exit(1);
}

static void frame(int fd, u32 type, const void *p, u32 n)
{
	u8 h[FRAME_HEADER];
	frame_header(h, type, n);
	put(fd, h, sizeof(h));
	put(fd, p, n);
}

static void words(int fd, u32 type, u32 a, u32 b, u32 n)
{
	u8 p[8];
	put_u32(p, a);
	put_u32(p + 4, b);
	frame(fd, type, p, 4 * n);
}

/* ---- agents ---- */
static void good(int fd)
{
	put(fd, "OK 1073741825\n", 14);
	words(fd, F_STARTED, 42, 0, 1);
	frame(fd, F_OUTPUT, "out", 3);
	frame(fd, F_ERROR_OUTPUT, "err", 3);
	words(fd, F_EXIT, EXIT_STATUS, 7, 2);
}

static void killed(int fd)
{
	put(fd, "OK 1\n", 5);
	words(fd, F_EXIT, EXIT_SIGNAL, 11, 2);
}

static void refuses(int fd)
{
	u8 p[4 + 12];
	put(fd, "OK 1\n", 5);
	put_u32(p, 2);
	memcpy(p + 4, "no\033[2Jsuch\n", 11);
	frame(fd, F_FAILED, p, 15);
}

static void no_greeting(int fd)
{
	char text[64];
	memset(text, 'x', sizeof(text));
	put(fd, text, sizeof(text));
}

static void long_frame(int fd)
{
	u8 h[FRAME_HEADER];
	put(fd, "OK 1\n", 5);
	frame_header(h, F_OUTPUT, FRAME_MAX + 1);
	put(fd, h, sizeof(h));
	pause();
}

static void unknown_frame(int fd)
{
	put(fd, "OK 1\n", 5);
	frame(fd, F_ARG, "x", 1);
	pause();
}

static void too_much_window(int fd)
{
	put(fd, "OK 1\n", 5);
	words(fd, F_STARTED, 1, 0, 1);
	words(fd, F_TAKEN, 1, 0, 1); /* nothing was sent */
	pause();
}

static void breaks_off(int fd)
{
	u8 h[FRAME_HEADER];
	put(fd, "OK 1\n", 5);
	words(fd, F_STARTED, 1, 0, 1);
	frame_header(h, F_OUTPUT, 100);
	put(fd, h, sizeof(h));
	put(fd, "part", 4);
}

static void short_words(int fd)
{
	put(fd, "OK 1\n", 5);
	frame(fd, F_EXIT, "", 0); /* words that are not there are 0 */
}

/* ---- the test ---- */
struct output {
	char text[2][64];
	size_t n[2];
};

static int collect(void *arg, int fd, const u8 *p, size_t n)
{
	struct output *o = arg;
	if (fd < 1 || fd > 2 || o->n[fd - 1] + n >= sizeof(o->text[0]))
		return -EIO;
	memcpy(o->text[fd - 1] + o->n[fd - 1], p, n);
	o->n[fd - 1] += n;
	return 0;
}

static struct session_result run(void (*agent)(int fd), struct output *o)
{
	char *argv[] = {"true", NULL}, *env[] = {"A=b", NULL};
	const struct session_request q = {.argv = argv, .env = env, .cwd = "/", .no_input = true};
	struct session_result r;
	struct err e = {0};
	int pair[2];
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	pid_t pid = fork();
	if (pid == 0) {
		close(pair[0]);
		agent(pair[1]);
		shutdown(pair[1], SHUT_WR);
		char buf[4096];
		while (read(pair[1], buf, sizeof(buf)) > 0)
			;
		_exit(0);
	}
	close(pair[1]);
	memset(o, 0, sizeof(*o));
	assert_int_equal(session_run(pair[0], &q, NULL, collect, o, &r, &e), 0);
	close(pair[0]);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	return r;
}

static void rules_kept(void **state)
{
	struct output o;
	struct session_result r = run(good, &o);
	assert_int_equal(r.end, SESSION_STATUS);
	assert_int_equal(session_status(&r, "x"), 7);
	assert_string_equal(o.text[0], "out");
	assert_string_equal(o.text[1], "err");
	r = run(killed, &o);
	assert_int_equal(r.end, SESSION_SIGNAL);
	assert_int_equal(session_status(&r, "x"), 139);
	r = run(refuses, &o);
	assert_int_equal(r.end, SESSION_FAILED);
	assert_string_equal(r.text, "no?[2Jsuch?");
	assert_int_equal(session_status(&r, "x"), 127);
	r = run(short_words, &o);
	assert_int_equal(session_status(&r, "x"), 0);
}

static void rules_broken(void **state)
{
	void (*const agents[])(int) = {no_greeting, long_frame, unknown_frame, too_much_window, breaks_off};
	struct output o;
	for (unsigned i = 0; i < ARRAY_SIZE(agents); i++) {
		struct session_result r = run(agents[i], &o);
		assert_int_equal(r.end, SESSION_LOST);
		assert_int_equal(session_status(&r, "x"), 125);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(rules_kept), cmocka_unit_test(rules_broken)};
	alarm(60);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
