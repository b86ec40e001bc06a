/* Files in the guest's memory: which are offered so, and what the engine is asked for. The engine is a thread here. */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/window.h"
#include "fs_client.h"

enum { WINDOW = 64 << 20, BIG = 8 << 20 };

static struct {
	int sock[2]; /* the server's end, the engine's */
	pthread_t thread;
	struct window_request seen[64]; /* read when the server is at rest */
	ino_t ino[64];			/* of the file; 0: none */
	unsigned n;
	s32 answer;
} engine;

static void *engine_thread(void *arg)
{
	for (;;) {
		struct window_request w;
		struct iovec iov = {&w, sizeof(w)};
		char cbuf[CMSG_SPACE(sizeof(int))];
		struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = cbuf, .msg_controllen = sizeof(cbuf)};
		struct stat st = {0};
		int fd = -1;

		if (recvmsg(engine.sock[1], &m, 0) != sizeof(w))
			return NULL;
		if (CMSG_FIRSTHDR(&m)) {
			memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof(fd));
			fstat(fd, &st);
			close(fd);
		}
		engine.ino[engine.n % 64] = st.st_ino;
		engine.seen[engine.n++ % 64] = w;
		if (send(engine.sock[1], &engine.answer, sizeof(engine.answer), 0) < 0)
			return NULL;
	}
}

static void make_file(struct fs_client *c, const char *name, const char *head, off_t size, mode_t mode)
{
	int fd = open(client_path(c, name), O_WRONLY | O_CREAT, mode);

	assert_int_equal(write(fd, head, strlen(head)), strlen(head));
	assert_int_equal(ftruncate(fd, size), 0);
	close(fd);
}

static int open_share(void **state, bool readonly, enum fs_cache cache)
{
	const struct fs_options o = {.readonly = readonly, .cache = cache};
	struct fs_client *c = calloc(1, sizeof(*c));

	client_open(c, &o);
	memset(&engine, 0, sizeof(engine));
	if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, engine.sock) || pthread_create(&engine.thread, NULL, engine_thread, NULL))
		abort();
	c->fs.window = WINDOW;
	c->fs.window_sock = engine.sock[0];
	make_file(c, "big", "data", BIG, 0644);
	make_file(c, "small", "data", 100000, 0644);
	make_file(c, "program", "data", BIG, 0755);
	make_file(c, "library", ELFMAG, BIG, 0644);
	make_file(c, "closed", "data", BIG, 0);
	mkdir(client_path(c, "dir"), 0755);
	*state = c;
	return 0;
}

static int setup(void **state)
{
	return open_share(state, true, FS_CACHE_AUTO);
}

static int setup_writable(void **state)
{
	return open_share(state, false, FS_CACHE_AUTO);
}

static int setup_uncached(void **state)
{
	return open_share(state, true, FS_CACHE_NEVER);
}

static int teardown(void **state)
{
	struct fs_client *c = *state;

	shutdown(engine.sock[0], SHUT_RDWR);
	pthread_join(engine.thread, NULL);
	client_close(c);
	close(engine.sock[0]);
	close(engine.sock[1]);
	free(c);
	return 0;
}

static bool count_from_here = true;

static bool init_offers(struct fs_client *c, u32 flags, u32 flags2)
{
	struct fuse_init_in in = {.major = 7, .minor = 37, .max_readahead = 1 << 17, .flags = flags, .flags2 = flags2};
	struct fuse_init_out out;
	bool yes;

	assert_int_equal(client_call(c, FUSE_INIT, 0, &in, sizeof(in), NULL), 0);
	if (count_from_here)
		engine.n = 0;
	memcpy(&out, c->reply, sizeof(out));
	yes = out.flags2 & (u32)(FUSE_HAS_INODE_DAX >> 32);
	assert_true(!yes || (out.flags & FUSE_INIT_EXT && out.flags & FUSE_MAP_ALIGNMENT && out.map_alignment == 12));
	return yes;
}

/* The node; dax: whether its attributes say so. */
static u64 look(struct fs_client *c, const char *name, bool *dax)
{
	struct fuse_getattr_in get = {0};
	struct fuse_attr_out a;
	struct fuse_entry_out e;

	assert_int_equal(client_lookup(c, 1, name, &e), 0);
	assert_int_equal(client_call(c, FUSE_GETATTR, e.nodeid, &get, sizeof(get), NULL), 0);
	memcpy(&a, c->reply, sizeof(a));
	assert_int_equal(a.attr.flags, e.attr.flags);
	*dax = e.attr.flags & FUSE_ATTR_DAX;
	return e.nodeid;
}

static int map(struct fs_client *c, u64 node, u64 foffset, u64 len, u64 flags, u64 moffset)
{
	struct fuse_setupmapping_in in = {.fh = ~0ull, .foffset = foffset, .len = len, .flags = flags, .moffset = moffset};

	return client_call(c, FUSE_SETUPMAPPING, node, &in, sizeof(in), NULL);
}

static int unmap(struct fs_client *c, u64 node, const struct fuse_removemapping_one *one, u32 n)
{
	struct fuse_removemapping_in in = {.count = n};

	client_begin(c, FUSE_REMOVEMAPPING, node);
	client_add(c, &in, sizeof(in));
	client_add(c, one, n * (u32)sizeof(*one));
	return client_send(c);
}

static void which_files(void **state)
{
	struct fs_client *c = *state;
	const u32 dax2 = (u32)(FUSE_HAS_INODE_DAX >> 32);
	bool dax = false;

	assert_false(init_offers(c, FUSE_INIT_EXT, dax2));
	assert_false(init_offers(c, FUSE_MAP_ALIGNMENT, dax2));
	assert_false(init_offers(c, FUSE_INIT_EXT | FUSE_MAP_ALIGNMENT, 0));
	assert_true(init_offers(c, FUSE_INIT_EXT | FUSE_MAP_ALIGNMENT, dax2));
	for (unsigned i = 0; i < 4; i++) {
		static const char *const not[] = {"small", "program", "library", "dir"};

		look(c, not[i], &dax);
		assert_false(dax);
	}
	look(c, "closed", &dax);
	assert_int_equal(dax, geteuid() == 0); /* who may not read it finds that out when he opens it */
	look(c, "big", &dax);
	assert_true(dax);
	assert_int_equal(truncate(client_path(c, "big"), 1000), 0); /* it stays what it was */
	look(c, "big", &dax);
	assert_true(dax);
}

static void not_here(void **state)
{
	struct fs_client *c = *state;
	struct fuse_removemapping_one one = {.moffset = 0, .len = FS_GRANULE};
	bool dax = false;
	u64 node;

	assert_false(init_offers(c, UINT32_MAX, UINT32_MAX));
	node = look(c, "big", &dax);
	assert_false(dax);
	assert_int_equal(map(c, node, 0, FS_GRANULE, FUSE_SETUPMAPPING_FLAG_READ, 0), -ENOSYS);
	assert_int_equal(unmap(c, node, &one, 1), -ENOSYS);
	assert_int_equal(engine.n, 0);
}

static void mapping(void **state)
{
	enum { READ = FUSE_SETUPMAPPING_FLAG_READ };
	struct fs_client *c = *state;
	struct stat st;
	bool dax = false;
	u64 node, small;

	init_offers(c, UINT32_MAX, UINT32_MAX);
	node = look(c, "big", &dax);
	small = look(c, "small", &dax);
	assert_int_equal(stat(client_path(c, "big"), &st), 0);
	assert_int_equal(map(c, small, 0, FS_GRANULE, READ, 0), -EOPNOTSUPP);
	assert_int_equal(map(c, 12345, 0, FS_GRANULE, READ, 0), -ESTALE);
	assert_int_equal(map(c, node, 0, FS_GRANULE, READ | FUSE_SETUPMAPPING_FLAG_WRITE, 0), -EROFS);
	assert_int_equal(map(c, node, 0, FS_GRANULE, READ, WINDOW), -EINVAL);
	assert_int_equal(map(c, node, 0, FS_GRANULE, READ, WINDOW - FS_GRANULE + 4096), -EINVAL);
	assert_int_equal(map(c, node, 0, FS_GRANULE, READ, ~0ull << 21), -EINVAL);
	assert_int_equal(map(c, node, 0, 0, READ, 0), -EINVAL);
	assert_int_equal(map(c, node, 0, 100, READ, 0), -EINVAL);
	assert_int_equal(map(c, node, 100, FS_GRANULE, READ, 0), -EINVAL);
	assert_int_equal(map(c, node, 0, FS_GRANULE, READ, 100), -EINVAL);
	assert_int_equal(map(c, node, ~0ull << 21, FS_GRANULE, READ, 0), -EINVAL);
	assert_int_equal(engine.n, 0);
	assert_int_equal(map(c, node, 4 << 20, FS_GRANULE, READ, 6 << 20), 0);
	assert_int_equal(engine.n, 1);
	assert_true(engine.ino[0] == st.st_ino && engine.seen[0].offset == 6 << 20 && engine.seen[0].size == FS_GRANULE &&
		    engine.seen[0].file_offset == 4 << 20);
	engine.answer = -ENOMEM;
	assert_int_equal(map(c, node, 0, FS_GRANULE, READ, 0), -ENOMEM);
	engine.answer = 7; /* makes no sense */
	assert_int_equal(map(c, node, 0, FS_GRANULE, READ, 0), -EIO);
	shutdown(engine.sock[1], SHUT_RDWR);
	assert_int_equal(map(c, node, 0, FS_GRANULE, READ, 0), -EIO);
}

/* What is given back is emptied when there is nothing else to do, neighbours together, and not if it has been used again. */
static void giving_back(void **state)
{
	struct fs_client *c = *state;
	struct fuse_removemapping_one four[4], odd = {.moffset = 4096, .len = 8192}, bad = {.moffset = WINDOW, .len = FS_GRANULE};
	bool dax = false;
	u64 node;

	init_offers(c, UINT32_MAX, UINT32_MAX);
	node = look(c, "big", &dax);
	for (unsigned i = 0; i < 4; i++)
		four[i] = (struct fuse_removemapping_one){.moffset = (u64)(i == 3 ? 7 : i) * FS_GRANULE, .len = FS_GRANULE};
	assert_false(fs_untidy(&c->fs));
	assert_int_equal(unmap(c, node, four, 4), 0);
	assert_int_equal(engine.n, 0);
	assert_true(fs_untidy(&c->fs));
	assert_int_equal(map(c, node, 0, FS_GRANULE, FUSE_SETUPMAPPING_FLAG_READ, FS_GRANULE), 0);
	assert_int_equal(engine.n, 1);
	fs_tidy(&c->fs);
	assert_false(fs_untidy(&c->fs));
	assert_int_equal(engine.n, 4);
	assert_true(!engine.ino[1] && engine.seen[1].offset == 0 && engine.seen[1].size == FS_GRANULE);
	assert_true(!engine.ino[2] && engine.seen[2].offset == 2 * FS_GRANULE && engine.seen[2].size == FS_GRANULE);
	assert_true(!engine.ino[3] && engine.seen[3].offset == 7 * FS_GRANULE && engine.seen[3].size == FS_GRANULE);
	assert_int_equal(unmap(c, node, four, 3), 0);
	fs_tidy(&c->fs);
	assert_int_equal(engine.n, 5);
	assert_true(engine.seen[4].offset == 0 && engine.seen[4].size == 3 * FS_GRANULE);
	assert_int_equal(unmap(c, node, &odd, 1), 0); /* at once */
	assert_int_equal(engine.n, 6);
	assert_int_equal(unmap(c, node, &bad, 1), -EINVAL);
	assert_int_equal(unmap(c, node, four, 1), 0);
	assert_int_equal(map(c, node, 0, 2 * FS_GRANULE, FUSE_SETUPMAPPING_FLAG_READ, 0), 0); /* not a piece: first all that was given back */
	assert_int_equal(engine.n, 8);
	assert_false(fs_untidy(&c->fs));
}

/* A file that is read in order and that the host has in memory: the next piece is there when it is asked for, if its place is free. */
static void mapping_ahead(void **state)
{
	enum { READ = FUSE_SETUPMAPPING_FLAG_READ };
	static u8 data[BIG];
	struct fs_client *c = *state;
	struct fuse_removemapping_one one = {.moffset = 3 * FS_GRANULE, .len = FS_GRANULE};
	bool dax = false;
	u64 node;
	int fd = open(client_path(c, "big"), O_WRONLY);

	memset(data, 1, sizeof(data));
	assert_int_equal(pwrite(fd, data, sizeof(data), 0), sizeof(data));
	close(fd);
	init_offers(c, UINT32_MAX, UINT32_MAX);
	node = look(c, "big", &dax);
	assert_int_equal(map(c, node, 0, FS_GRANULE, READ, 0), 0);
	if (engine.n == 1)
		skip(); /* this kernel has no cachestat() */
	assert_int_equal(engine.n, 2);
	assert_true(engine.seen[1].offset == FS_GRANULE && engine.seen[1].file_offset == FS_GRANULE && engine.seen[1].cached);
	assert_true(fs_untidy(&c->fs));
	assert_int_equal(map(c, node, FS_GRANULE, FS_GRANULE, READ, FS_GRANULE), 0);
	assert_int_equal(engine.n, 3); /* that of the piece behind it */
	assert_true(engine.seen[2].offset == 2 * FS_GRANULE);
	assert_int_equal(map(c, node, 0, FS_GRANULE, READ, 2 * FS_GRANULE), 0); /* something else is wanted there; and ahead of that: */
	assert_int_equal(engine.n, 5);
	assert_true(engine.seen[3].file_offset == 0 && engine.seen[4].offset == 3 * FS_GRANULE && engine.seen[4].file_offset == FS_GRANULE);
	assert_int_equal(map(c, node, 4 << 20, FS_GRANULE, READ, FS_GRANULE), 0); /* the place behind it is taken */
	assert_int_equal(engine.n, 6);
	assert_int_equal(map(c, node, 6 << 20, FS_GRANULE, READ, 5 * FS_GRANULE), 0); /* the file ends there */
	assert_int_equal(engine.n, 7);
	fs_tidy(&c->fs); /* what was mapped in vain goes, what the guest has stays */
	assert_int_equal(engine.n, 8);
	assert_true(!engine.ino[7] && engine.seen[7].offset == 3 * FS_GRANULE && engine.seen[7].size == FS_GRANULE);
	assert_int_equal(map(c, node, FS_GRANULE, FS_GRANULE, READ, 3 * FS_GRANULE), 0); /* it is gone: mapped anew */
	assert_true(engine.n >= 9 && engine.seen[8].offset == 3 * FS_GRANULE && engine.ino[8]);
	assert_int_equal(unmap(c, node, &one, 1), 0);
	engine.n = 0;
	count_from_here = false;
	init_offers(c, UINT32_MAX, UINT32_MAX); /* the guest begins anew */
	assert_false(fs_untidy(&c->fs));
	assert_true(engine.n == 1 && !engine.ino[0] && engine.seen[0].offset == 0 && engine.seen[0].size == WINDOW);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(which_files, setup, teardown),
	    cmocka_unit_test_setup_teardown(not_here, setup_writable, teardown),
	    cmocka_unit_test_setup_teardown(not_here, setup_uncached, teardown),
	    cmocka_unit_test_setup_teardown(mapping, setup, teardown),
	    cmocka_unit_test_setup_teardown(giving_back, setup, teardown),
	    cmocka_unit_test_setup_teardown(mapping_ahead, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
