/* Names and leftovers of VMs, message framing, the escape key, option tables. */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
#include "cli/opts.h"
#include "vmm/console.h"
#include "vmm/instance.h"
#include "vmm/qmp.h"

static void framing(void **state)
{
	static const struct {
		const char *s;
		size_t n;
	} t[] = {{"", 0},	  {"{", 0},	     {"{}", 2},		      {" {\"a\": \"}\"} x", 11}, {"{\"a\":\"\\\"}", 0},
		 {"[1,{}]{}", 6}, {"junk\n{}", 5}, {"\r\n\r\n", 0},	      {"}}}\n", 4},		 {"{\"a\":[}]}", 8},
		 {"\"str\"\n", 6}, {"{\"a\":\"\\", 0}};

	for (u32 i = 0; i < ARRAY_SIZE(t); i++)
		assert_int_equal(qmp_frame(t[i].s, strlen(t[i].s)), t[i].n);
}

static void escape_key(void **state)
{
	struct escape e = {0};
	u8 a[] = "ab\x1d", b[] = "\x1d" "c\x1dq more";
	bool quit = false;

	assert_int_equal(escape_filter(&e, a, 3, &quit), 2);
	assert_int_equal(escape_filter(&e, b, sizeof(b) - 1, &quit), 2);
	assert_memory_equal(b, "\x1d" "c", 2);
	assert_true(quit);
}

static char dir[] = "/tmp/doppel-run.XXXXXX";

static int in_private_dir(void **state)
{
	assert_non_null(mkdtemp(dir));
	setenv("XDG_RUNTIME_DIR", dir, 1);
	return 0;
}

static int remove_dir(void **state)
{
	char cmd[100];

	snprintf(cmd, sizeof(cmd), "rm -r %s", dir);
	return system(cmd);
}

static void names(void **state)
{
	static const char *const bad[] = {"", ".", "..", "a/b", "-x", "a b", "0123456789012345678901234567890123", "\xc3\xa9"};

	for (u32 i = 0; i < ARRAY_SIZE(bad); i++)
		assert_false(instance_name_ok(bad[i]));
	assert_true(instance_name_ok("vm-1_a.b"));
}

static void count(void *arg, const struct instance_info *i)
{
	assert_string_equal(i->name, "one");
	assert_int_equal(i->pid, 42);
	++*(int *)arg;
}

static void claim_and_list(void **state)
{
	struct instance a, b;
	struct instance_info info = {.pid = 42, .cpus = 2, .memory = 1 << 20};
	struct err e = {0};
	int n = 0;

	assert_int_equal(instance_claim(&a, "one", &e), 0);
	assert_int_equal(instance_write_info(&a, &info), 0);
	assert_int_equal(instance_claim(&b, "one", &e), -EEXIST);
	assert_non_null(strstr(e.text, "one"));
	assert_int_equal(instance_each(count, &n, NULL), 0);
	assert_int_equal(n, 1);
	instance_release(&a);
	assert_int_not_equal(access(a.dir, F_OK), 0);
	assert_int_equal(instance_each(count, &n, NULL), 0);
	assert_int_equal(n, 1);
}

/* A VM that dies with its directory in place: the next command tidies it, the name is free. */
static void leftovers(void **state)
{
	struct instance a;
	struct instance_info info = {.pid = 42};
	int n = 0, status = 0;
	pid_t pid = fork();

	if (!pid) {
		if (instance_claim(&a, "one", NULL) || instance_write_info(&a, &info) || instance_socket(&a, "qmp.sock", NULL) < 0)
			_exit(1);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_int_equal(instance_connect("one", "qmp.sock", NULL), -ENOENT);
	assert_int_equal(instance_each(count, &n, NULL), 0);
	assert_int_equal(n, 0);
	assert_int_equal(instance_claim(&a, "one", NULL), 0);
	assert_int_not_equal(access(a.dir, F_OK), -1);
	instance_release(&a);
}

struct target {
	bool flag;
	u32 n;
	u64 size;
	const char *s;
};
static const struct opt opts[] = {
	{"flag", 'f', OPT_FLAG, offsetof(struct target, flag), NULL, "", 0, 0, NULL},
	{"num", 'n', OPT_UINT, offsetof(struct target, n), "N", "", 1, 64, NULL},
	{"size", 0, OPT_SIZE, offsetof(struct target, size), "S", "", 4096, 1 << 30, NULL},
	{"str", 0, OPT_STRING, offsetof(struct target, s), "S", "", 0, 0, NULL},
	{NULL, 0, OPT_END, 0, NULL, NULL, 0, 0, NULL},
};
static const struct command command = {.name = "test", .args = "NAME", .opts = opts, .min_args = 1, .max_args = 2};

static int parse(struct target *t, int argc, const char *const *args, char **argv)
{
	for (int i = 0; i <= argc; i++)
		argv[i] = (char *)args[i];
	return opts_parse(&command, t, &argc, argv);
}

static void options(void **state)
{
	static const char *const good[] = {"test", "-f", "--num=7", "a", "--size", "1M", "--str", "--x", "--", "-b", NULL};
	static const char *const bad[][5] = {
		{"test", "--nope", "a", NULL}, {"test", "-n", "65", "a", NULL}, {"test", "-n", "x", "a", NULL},
		{"test", "--num", NULL},       {"test", "--flag=1", "a", NULL}, {"test", NULL},
		{"test", "a", "b", "c", NULL}, {"test", "--size", "1", "a", NULL}, {"test", "-n", "-1", "a", NULL},
	};
	struct target t = {0};
	char *argv[12];

	assert_int_equal(parse(&t, 10, good, argv), OPTS_OK);
	assert_true(t.flag);
	assert_int_equal(t.n, 7);
	assert_int_equal(t.size, 1 << 20);
	assert_string_equal(t.s, "--x");
	assert_string_equal(argv[1], "a");
	assert_string_equal(argv[2], "-b");
	for (u32 i = 0; i < ARRAY_SIZE(bad); i++) {
		int n = 0;

		while (bad[i][n])
			n++;
		assert_true(parse(&t, n, bad[i], argv) < 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(framing),
		cmocka_unit_test(escape_key),
		cmocka_unit_test(names),
		cmocka_unit_test(options),
		cmocka_unit_test_setup_teardown(claim_and_list, in_private_dir, NULL),
		cmocka_unit_test_setup_teardown(leftovers, NULL, remove_dir),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
