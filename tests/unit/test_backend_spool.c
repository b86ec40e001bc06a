/* Spooled jobs: whole, in order, under their names only when complete; the death of the spooler. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "backends/chardev_spool.h"
#include "fake_machine.h"

enum { BIG = 3 << 20 };

struct fixture {
	struct machine *m;
	struct chardev *c;
	char dir[64];
	const u8 *left; /* still to be written */
	size_t n;
	bool open;
};

static void drained(void *dev)
{
	struct fixture *f = dev;
	size_t took = chardev_write(f->c, f->left, f->n);
	f->left += took;
	f->n -= took;
}

static void opened(void *dev, bool open)
{
	((struct fixture *)dev)->open = open;
}

static size_t no_input(void *dev, const u8 *p, size_t n)
{
	return 0;
}

static const struct chardev_sink sink = {.input = no_input, .drained = drained, .opened = opened};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct err e = {0};
	f->m = fake_machine_new();
	strcpy(f->dir, "/tmp/doppel-spool-XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	assert_int_equal(chardev_spool_create(f->m->loop, f->dir, "box", &f->c, &e), 0);
	chardev_attach(f->c, &sink, f);
	assert_true(f->open);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	char cmd[100];
	chardev_destroy(f->c);
	fake_machine_free(f->m);
	snprintf(cmd, sizeof(cmd), "rm -rf %s", f->dir);
	assert_int_equal(system(cmd), 0);
	free(f);
	return 0;
}

static bool all_out(void *arg)
{
	return !((struct fixture *)arg)->n;
}

static void job(struct fixture *f, const u8 *p, size_t n, bool complete)
{
	f->left = p;
	f->n = n;
	drained(f);
	assert_true(fake_run_until(f->m, all_out, f));
	chardev_ended(f->c, complete);
}

static int order(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

static int visible(const struct dirent *d)
{
	return strcmp(d->d_name, ".") && strcmp(d->d_name, "..");
}

static void jobs(void **state)
{
	struct fixture *f = *state;
	u8 *big = malloc(BIG), *back = malloc(BIG + 1);
	for (size_t i = 0; i < BIG; i++)
		big[i] = (u8)(i * 7 + i / 1000);
	job(f, (const u8 *)"one", 3, true);
	job(f, big, BIG, true);
	job(f, (const u8 *)"dropped", 7, false);
	chardev_ended(f->c, true); /* nothing was written: no job */
	job(f, (const u8 *)"three", 5, true);
	drained(f);
	job(f, (const u8 *)"cut short by the end", 20, true);
	f->left = (const u8 *)"half";
	f->n = 4;
	drained(f);
	chardev_detach(f->c);
	chardev_destroy(f->c);
	f->c = NULL;
	struct dirent **name;
	const struct {
		const u8 *p;
		size_t n;
	} want[] = {{(const u8 *)"one", 3}, {big, BIG}, {(const u8 *)"three", 5}, {(const u8 *)"cut short by the end", 20}};
	assert_int_equal(scandir(f->dir, &name, visible, order), ARRAY_SIZE(want));
	for (size_t i = 0; i < ARRAY_SIZE(want); i++) {
		char path[400];
		snprintf(path, sizeof(path), "%s/%s", f->dir, name[i]->d_name);
		assert_int_equal(strncmp(name[i]->d_name, "box-", 4), 0);
		int fd = open(path, O_RDONLY);
		assert_int_equal(read(fd, back, BIG + 1), want[i].n);
		assert_memory_equal(back, want[i].p, want[i].n);
		close(fd);
		free(name[i]);
	}
	free(name);
	free(big);
	free(back);
}

/* More than a socket holds, at once: after settle() nothing is refused. */
static void settled(void **state)
{
	struct fixture *f = *state;
	u8 *big = calloc(1, BIG);
	struct dirent **name;
	struct stat st;
	char path[400];

	assert_true(chardev_settle(f->c, true));
	assert_int_equal(chardev_write(f->c, big, BIG), BIG);
	chardev_ended(f->c, true);
	chardev_detach(f->c);
	chardev_destroy(f->c);
	f->c = NULL;
	assert_int_equal(scandir(f->dir, &name, visible, order), 1);
	snprintf(path, sizeof(path), "%s/%s", f->dir, name[0]->d_name);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_size, BIG);
	free(name[0]);
	free(name);
	free(big);
}

static void refusals(void **state)
{
	struct fixture *f = *state;
	struct chardev *c = NULL;
	char path[100];
	struct err e = {0};
	snprintf(path, sizeof(path), "%s/none", f->dir);
	assert_int_equal(chardev_spool_create(f->m->loop, path, "box", &c, &e), -ENOENT);
	assert_non_null(strstr(e.text, "--spool"));
	close(open(path, O_CREAT | O_WRONLY, 0600));
	assert_int_equal(chardev_spool_create(f->m->loop, path, "box", &c, &e), -ENOTDIR);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(jobs, setup, teardown),
	    cmocka_unit_test_setup_teardown(settled, setup, teardown),
	    cmocka_unit_test_setup_teardown(refusals, setup, teardown),
	};
	return cmocka_run_group_tests_name("spool", tests, NULL, NULL);
}
