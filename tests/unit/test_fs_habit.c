/* What readers of directories are given: attributes while somebody uses them, lists to keep while they are true. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "fs_client.h"

enum { DIRS = 4, FILES = 200 };

static void populate(struct fs_client *c)
{
	char name[32];

	for (unsigned d = 0; d < DIRS; d++) {
		snprintf(name, sizeof(name), "d%u", d);
		assert_int_equal(mkdir(client_path(c, name), 0755), 0);
		for (unsigned i = 0; i < FILES; i++) {
			snprintf(name, sizeof(name), "d%u/f%u", d, i);
			close(open(client_path(c, name), O_WRONLY | O_CREAT, 0644));
		}
		snprintf(name, sizeof(name), "d%u/sub", d);
		assert_int_equal(mkdir(client_path(c, name), 0755), 0);
	}
}

static int open_share(void **state, enum fs_cache cache)
{
	const struct fs_options o = {.cache = cache};
	struct fs_client *c = calloc(1, sizeof(*c));

	client_open(c, &o);
	client_init(c);
	populate(c);
	*state = c;
	return 0;
}

static int setup(void **state)
{
	return open_share(state, FS_CACHE_AUTO);
}

static int setup_always(void **state)
{
	return open_share(state, FS_CACHE_ALWAYS);
}

static int setup_never(void **state)
{
	return open_share(state, FS_CACHE_NEVER);
}

static int teardown(void **state)
{
	struct fs_client *c = *state;

	client_close(c);
	free(c);
	return 0;
}

static u64 open_dir(struct fs_client *c, u64 node, u32 *flags)
{
	struct fuse_open_in in = {0};
	struct fuse_open_out out;

	assert_int_equal(client_call(c, FUSE_OPENDIR, node, &in, sizeof(in), NULL), 0);
	memcpy(&out, c->reply, sizeof(out));
	*flags = out.open_flags;
	return out.fh;
}

struct seen {
	unsigned full, bare;
	bool sub; /* with its attributes */
	char name[FILES + 3][8]; /* of the bare ones */
};

/* Lists a directory as Linux does. */
static void list(struct fs_client *c, u64 node, u64 fh, struct seen *s)
{
	struct fuse_read_in in = {.fh = fh, .size = 4096};

	*s = (struct seen){0};
	for (;;) {
		u8 reply[4096];

		assert_int_equal(client_call(c, FUSE_READDIRPLUS, node, &in, sizeof(in), NULL), 0);
		u32 len = c->reply_len;

		if (!len)
			return;
		memcpy(reply, c->reply, len);
		for (u32 at = 0; at < len;) {
			struct fuse_direntplus *d = (void *)(reply + at);

			at += (u32)FUSE_DIRENTPLUS_SIZE(d);
			in.offset = d->dirent.off;
			if (d->dirent.name[0] == '.')
				continue;
			if (d->dirent.name[0] == 's')
				s->sub = d->entry_out.nodeid != 0;
			if (d->entry_out.nodeid) {
				s->full++;
				client_forget(c, d->entry_out.nodeid, 1);
			} else {
				memcpy(s->name[s->bare++], d->dirent.name, d->dirent.namelen);
			}
		}
	}
}

/* One directory, and what the guest's program does then: looks at all its files or at none. */
static u32 visit(struct fs_client *c, unsigned d, bool stats, struct seen *s)
{
	char name[8];
	u32 flags = 0;

	snprintf(name, sizeof(name), "d%u", d);
	u64 node = client_find(c, FUSE_ROOT_ID, name), fh = open_dir(c, node, &flags);

	list(c, node, fh, s);
	client_release(c, node, fh);
	for (unsigned i = 0; stats && i < s->bare; i++)
		assert_int_not_equal(client_find(c, node, s->name[i]), 0);
	return flags;
}

static void names_only(void **state)
{
	struct fs_client *c = *state;
	struct seen s;

	visit(c, 0, false, &s); /* nobody knows yet */
	assert_in_range(s.bare, 1, FILES / 10);
	visit(c, 1, false, &s);
	assert_int_equal(s.bare, FILES);
	assert_true(s.sub);
	visit(c, 2, true, &s); /* somebody else, who asks for each */
	assert_int_equal(s.bare, FILES);
	visit(c, 3, true, &s);
	assert_in_range(s.bare, 0, FILES / 10);
	assert_int_equal(s.full + s.bare, FILES + 1);
}

static void attributes_that_are_used(void **state)
{
	struct fs_client *c = *state;
	struct seen s;

	for (unsigned i = 0; i < 20; i++) {
		visit(c, i % DIRS, true, &s);
		assert_in_range(s.bare, 0, FILES / 10);
	}
	for (unsigned i = 0; i < 20; i++)
		visit(c, i % DIRS, true, &s);
	assert_in_range(s.bare, 0, 1); /* those that are left out to find that out cost a request each */
	for (unsigned i = 0; i < 5000 / FILES; i++)
		visit(c, i % DIRS, false, &s);
	assert_int_equal(s.bare, FILES);
}

/* auto: as long as the host's directory is what it was, and only where names are what is wanted. */
static void lists_that_are_kept(void **state)
{
	struct fs_client *c = *state;
	struct seen s;

	assert_int_equal(visit(c, 0, false, &s), 0);
	assert_int_equal(visit(c, 1, false, &s), 0); /* it was made just now: it could change and not show it */
	usleep(2100 * 1000);
	assert_int_equal(visit(c, 1, false, &s), FOPEN_CACHE_DIR);
	assert_int_equal(visit(c, 1, false, &s), FOPEN_CACHE_DIR | FOPEN_KEEP_CACHE);
	assert_int_equal(unlink(client_path(c, "d1/f7")), 0);
	assert_int_equal(visit(c, 1, false, &s), 0);
	usleep(2100 * 1000);
	assert_int_equal(visit(c, 1, false, &s), FOPEN_CACHE_DIR);
	assert_int_equal(visit(c, 1, true, &s), FOPEN_CACHE_DIR | FOPEN_KEEP_CACHE);
	assert_int_equal(visit(c, 1, false, &s), 0); /* attributes are wanted, and they do not keep */
}

static void lists_that_nobody_else_changes(void **state)
{
	struct fs_client *c = *state;
	struct seen s;

	assert_int_equal(visit(c, 0, false, &s), FOPEN_CACHE_DIR);
	assert_int_equal(visit(c, 0, false, &s), FOPEN_CACHE_DIR | FOPEN_KEEP_CACHE);
	assert_int_equal(visit(c, 1, true, &s), FOPEN_CACHE_DIR);
	assert_int_equal(s.bare, FILES);
	assert_int_equal(visit(c, 1, false, &s), FOPEN_CACHE_DIR); /* anew: this time with attributes */
	assert_in_range(s.bare, 0, FILES / 10);
	assert_int_equal(visit(c, 1, true, &s), FOPEN_CACHE_DIR | FOPEN_KEEP_CACHE);
}

static void lists_that_nobody_may_keep(void **state)
{
	struct fs_client *c = *state;
	struct seen s;

	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(visit(c, 0, false, &s), 0);
}

#define TEST(f, setup) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(names_only, setup),
	    TEST(attributes_that_are_used, setup),
	    TEST(lists_that_are_kept, setup),
	    TEST(lists_that_nobody_else_changes, setup_always),
	    TEST(lists_that_nobody_may_keep, setup_never),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
