/* Raw disk images: opening, locking, requests. */
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

#include "backends/disk.h"
#include "backends/disk_file.h"
#include "fake_machine.h"

struct fixture {
	struct machine *m;
	char dir[64], path[128];
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	f->m = fake_machine_new();
	strcpy(f->dir, "/tmp/doppel-test-XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	snprintf(f->path, sizeof(f->path), "%s/disk", f->dir);
	int fd = open(f->path, O_RDWR | O_CREAT, 0600);
	assert_int_equal(ftruncate(fd, 1 << 20), 0);
	close(fd);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	fake_machine_free(f->m);
	unlink(f->path);
	rmdir(f->dir);
	free(f);
	return 0;
}

/* Cut into pieces on the way to the page cache, wherever it begins and however its memory is cut. */
static void large_writes(void **state)
{
	enum { LEN = 1 << 20, AT = 3 * 512, SEGMENTS = 200 };
	struct fixture *f = *state;
	struct disk_file file = {.fd = open(f->path, O_RDWR), .direct_fd = -1};
	u8 *out = malloc(LEN), *back = malloc(LEN);
	struct iovec iov[SEGMENTS];
	unsigned n = 0;

	assert_non_null(out);
	assert_non_null(back);
	for (u32 i = 0; i < LEN; i++)
		out[i] = (u8)(i * 2654435761u >> 13);
	for (u64 at = 0; at < LEN; n++) {
		u64 len = n == SEGMENTS - 1 ? LEN - at : n % 7 == 3 ? 0 : MIN(512u * (1 + n * 5 % 23), LEN - at);

		assert_true(n < SEGMENTS);
		iov[n] = (struct iovec){out + at, len};
		at += len;
	}
	assert_true(disk_file_write_cached(&file, AT, iov, n, LEN));
	assert_int_equal(disk_file_read(&file, AT, back, LEN), 0);
	assert_memory_equal(out, back, LEN);
	close(file.fd);
	file.fd = open(f->path, O_RDONLY);
	assert_false(disk_file_write_cached(&file, AT, iov, n, LEN));
	close(file.fd);
	free(out);
	free(back);
}

static void refusals(void **state)
{
	struct fixture *f = *state;
	struct disk *d = NULL;
	char missing[160];
	snprintf(missing, sizeof(missing), "%s/none", f->dir);
	const struct {
		const char *path;
		bool ro;
		int want;
		const char *text;
	} t[] = {
	    {missing, false, -ENOENT, "no such disk image"},
	    {f->dir, false, -EISDIR, "is a directory"},
	    {f->dir, true, -EISDIR, "is a directory"},
	    {"/dev/null", true, -EINVAL, "neither a file nor a block device"},
	};
	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		struct err e = {0};
		assert_int_equal(disk_open_raw(f->m->loop, t[i].path, t[i].ro, &d, &e), t[i].want);
		assert_non_null(strstr(e.text, t[i].text));
	}
	struct err e = {0};
	assert_int_equal(truncate(f->path, 100), 0);
	assert_int_equal(disk_open_raw(f->m->loop, f->path, false, &d, &e), -EINVAL);
	assert_non_null(strstr(e.text, "is empty"));
}

static void locking(void **state)
{
	struct fixture *f = *state;
	struct disk *a, *b, *c;
	struct err e = {0};
	assert_int_equal(disk_open_raw(f->m->loop, f->path, false, &a, &e), 0);
	assert_int_equal(disk_open_raw(f->m->loop, f->path, false, &b, &e), -EBUSY);
	assert_non_null(strstr(e.text, "another machine"));
	assert_int_equal(disk_open_raw(f->m->loop, f->path, true, &b, &e), -EBUSY);
	disk_destroy(a);
	assert_int_equal(disk_open_raw(f->m->loop, f->path, true, &a, &e), 0);
	assert_int_equal(disk_open_raw(f->m->loop, f->path, true, &b, &e), 0);
	assert_int_equal(disk_open_raw(f->m->loop, f->path, false, &c, &e), -EBUSY);
	disk_destroy(a);
	disk_destroy(b);
	assert_int_equal(disk_open_raw(f->m->loop, f->path, false, &c, &e), 0);
	disk_destroy(c);
}

struct io {
	struct disk_req r;
	struct iovec iov[4];
	u8 data[16384];
	bool done;
	int result;
};

static void io_done(struct disk_req *r, int result)
{
	struct io *io = container_of(r, struct io, r);
	assert_false(io->done);
	io->done = true;
	io->result = result;
}

static int run(struct disk *d, struct io *io, enum disk_op op, u64 off, u64 len)
{
	io->done = false;
	io->iov[0] = (struct iovec){io->data, len / 2};
	io->iov[1] = (struct iovec){io->data + len / 2, len - len / 2};
	io->r = (struct disk_req){
	    .op = op, .offset = off, .len = len, .iov = io->iov, .n_iov = 2, .done = io_done};
	int r = disk_submit(d, &io->r);
	if (r)
		return r;
	disk_drain(d);
	assert_true(io->done);
	return io->result;
}

static void transfers(void **state)
{
	struct fixture *f = *state;
	struct disk *d;
	struct err e = {0};
	struct io *io = calloc(1, sizeof(*io));
	assert_int_equal(truncate(f->path, (1 << 20) + 100), 0); /* the odd tail is not part of the disk */
	assert_int_equal(disk_open_raw(f->m->loop, f->path, false, &d, &e), 0);
	assert_int_equal(d->size, 1 << 20);
	memset(io->data, 7, sizeof(io->data));
	assert_int_equal(run(d, io, DISK_WRITE, 4096, 16384), 0);
	memset(io->data, 0, sizeof(io->data));
	assert_int_equal(run(d, io, DISK_READ, 4096 + 512, 8192), 0);
	for (int i = 0; i < 8192; i++)
		assert_int_equal(io->data[i], 7);
	assert_int_equal(run(d, io, DISK_FLUSH, 0, 0), 0);
	assert_int_equal(run(d, io, DISK_WRITE_ZEROES, 8192, 4096), 0);
	assert_int_equal(run(d, io, DISK_READ, 8192, 4096), 0);
	for (int i = 0; i < 4096; i++)
		assert_int_equal(io->data[i], 0);
	assert_int_equal(run(d, io, DISK_DISCARD, 4096, 4096), 0);
	assert_int_equal(run(d, io, DISK_READ, (1 << 20) - 512, 512), 0);
	assert_int_equal(run(d, io, DISK_READ, (1 << 20) - 512, 1024), -EINVAL);
	assert_int_equal(run(d, io, DISK_READ, UINT64_MAX - 511, 1024), -EINVAL);
	disk_destroy(d);
	assert_int_equal(disk_open_raw(f->m->loop, f->path, true, &d, &e), 0);
	assert_int_equal(run(d, io, DISK_WRITE, 0, 512), -EROFS);
	assert_int_equal(run(d, io, DISK_DISCARD, 0, 512), -EROFS);
	assert_int_equal(run(d, io, DISK_READ, 0, 512), 0);
	assert_int_equal(truncate(f->path, 4096), 0); /* cut short behind our back */
	assert_int_equal(run(d, io, DISK_READ, 8192, 512), -EIO);
	disk_destroy(d);
	free(io);
}

static struct io many[500];
static bool all_done(void *arg)
{
	for (size_t i = 0; i < ARRAY_SIZE(many); i++)
		if (!many[i].done)
			return false;
	return true;
}

/* More in flight than the ring holds, completed by the loop. */
static void deep_queue(void **state)
{
	struct fixture *f = *state;
	struct disk *d;
	struct err e = {0};
	assert_int_equal(disk_open_raw(f->m->loop, f->path, false, &d, &e), 0);
	for (size_t i = 0; i < ARRAY_SIZE(many); i++) {
		struct io *io = &many[i];
		io->done = false;
		memset(io->data, (int)i, 512);
		io->iov[0] = (struct iovec){io->data, 512};
		io->r = (struct disk_req){.op = DISK_WRITE,
					  .offset = 512 * i,
					  .len = 512,
					  .iov = io->iov,
					  .n_iov = 1,
					  .done = io_done};
		assert_int_equal(disk_submit(d, &io->r), 0);
		assert_false(io->done);
	}
	disk_go(d);
	assert_true(fake_run_until(f->m, all_done, NULL));
	assert_int_equal(d->in_flight, 0);
	for (size_t i = 0; i < ARRAY_SIZE(many); i++)
		assert_int_equal(many[i].result, 0);
	struct io *io = calloc(1, sizeof(*io));
	assert_int_equal(run(d, io, DISK_READ, 512 * 300, 512), 0);
	assert_int_equal(io->data[5], 300 & 0xff);
	free(io);
	disk_destroy(d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(refusals, setup, teardown),
	    cmocka_unit_test_setup_teardown(locking, setup, teardown),
	    cmocka_unit_test_setup_teardown(transfers, setup, teardown),
	    cmocka_unit_test_setup_teardown(large_writes, setup, teardown),
	    cmocka_unit_test_setup_teardown(deep_queue, setup, teardown),
	};
	int failed = cmocka_run_group_tests_name("disk", tests, NULL, NULL);
	setenv("DOPPEL_NO_URING", "1", 1);
	return failed + cmocka_run_group_tests_name("disk without io_uring", tests, NULL, NULL);
}
