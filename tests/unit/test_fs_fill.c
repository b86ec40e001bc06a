/* Reads into guest memory that is there, that is not, and both: the same bytes, and no page more than asked for. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "fs/fill.h"

enum { RAM = 16 << 20, FILE_SIZE = (3 << 20) + 1234, BEFORE = 8 * PAGE_SIZE, MIB = 1 << 20 };

struct fixture {
	struct fill_ram ram;
	struct fill_pipe pipe;
	u8 *base, *data;
	int ram_fd, file;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	char name[] = "/tmp/doppel-fill.XXXXXX";

	f->ram_fd = memfd_create("ram", MFD_CLOEXEC);
	assert_int_equal(ftruncate(f->ram_fd, BEFORE + RAM), 0);
	f->base = mmap(NULL, BEFORE + RAM, PROT_READ | PROT_WRITE, MAP_SHARED, f->ram_fd, 0);
	fill_add_region(&f->ram, f->base + BEFORE, RAM, f->ram_fd, BEFORE);
	assert_int_equal(f->ram.n, 1);
	f->data = malloc(FILE_SIZE);
	srandom(3);
	for (u32 i = 0; i < FILE_SIZE; i++)
		f->data[i] = (u8)random();
	f->file = mkstemp(name);
	unlink(name);
	assert_int_equal(write(f->file, f->data, FILE_SIZE), FILE_SIZE);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	fill_close_pipe(&f->pipe);
	fill_drop_regions(&f->ram);
	munmap(f->base, BEFORE + RAM);
	close(f->ram_fd);
	close(f->file);
	free(f->data);
	free(f);
	return 0;
}

/* size bytes of the file to RAM's at, in segments of so many bytes, every second one skipped if holes */
static void read_and_compare(struct fixture *f, u64 at, u64 size, u64 segment, bool holes, off_t from)
{
	struct iovec iov[256], copy[256];
	unsigned n = 0;
	u64 want = from >= FILE_SIZE ? 0 : MIN(size, (u64)(FILE_SIZE - from)), seen = 0;

	for (u64 done = 0; done < size; done += iov[n++].iov_len, at += segment * (holes ? 2 : 1))
		iov[n] = (struct iovec){f->base + BEFORE + at, MIN(segment, size - done)};
	memcpy(copy, iov, sizeof(copy));
	assert_int_equal(fill_read(&f->ram, &f->pipe, f->file, iov, n, from), want);
	for (unsigned i = 0; seen < want; seen += copy[i++].iov_len)
		assert_memory_equal(copy[i].iov_base, f->data + from + seen, MIN(copy[i].iov_len, want - seen));
}

static u64 memory(const struct fixture *f)
{
	struct stat st;

	assert_int_equal(fstat(f->ram_fd, &st), 0);
	return (u64)st.st_blocks * 512;
}

static bool mapped(const struct fixture *f, u64 page)
{
	return f->ram.region[0].mapped[page / 64] & BIT64(page % 64);
}

static void fresh(void **state)
{
	struct fixture *f = *state;

	read_and_compare(f, 0, MIB, MIB, false, 0);
	assert_true(f->pipe.open);
	assert_false(mapped(f, 0));
	assert_int_equal(memory(f), MIB);
	read_and_compare(f, 0, MIB, MIB, false, 4096); /* there now: mapped at once */
	assert_true(mapped(f, 0));
	assert_true(mapped(f, 255));
	assert_false(mapped(f, 256));
	assert_int_equal(memory(f), MIB);
	read_and_compare(f, 0, MIB, MIB, false, 77);
	read_and_compare(f, 2 * MIB, MIB, PAGE_SIZE, true, 12345);
	assert_int_equal(memory(f), 2 * MIB);
	assert_int_equal(f->base[BEFORE - 1], 0);
}

static void mixed(void **state)
{
	struct fixture *f = *state;

	for (u64 page = 0; page < 256; page += 5)
		f->base[BEFORE + page * PAGE_SIZE] = 1;
	read_and_compare(f, 0, MIB, 4 * PAGE_SIZE, false, 99);
	for (u64 page = 0; page < 256; page++)
		if (page % 5)
			f->base[BEFORE + 4 * MIB + page * PAGE_SIZE] = 1;
	read_and_compare(f, 4 * MIB, MIB, 4 * PAGE_SIZE, false, MIB);
	read_and_compare(f, 6 * MIB + 100, MIB / 2, 5000, true, 3); /* no page whole */
	read_and_compare(f, 6 * MIB + 100, MIB / 2, 5000, true, 4);
}

static void at_the_end(void **state)
{
	struct fixture *f = *state;

	memset(f->base + BEFORE, 0x55, PAGE_SIZE);
	read_and_compare(f, 0, MIB, MIB, false, FILE_SIZE - 300000);
	assert_true(memory(f) <= MIB);
	read_and_compare(f, 2 * MIB, MIB, MIB, false, FILE_SIZE - 5);
	read_and_compare(f, 4 * MIB, MIB, MIB, false, FILE_SIZE);
	read_and_compare(f, 4 * MIB, MIB, MIB, false, FILE_SIZE + 100000);
	read_and_compare(f, 6 * MIB, 100, 100, false, 0);
	read_and_compare(f, RAM - MIB, MIB, MIB, false, 5);
}

/* The memory's file, or the file, cannot splice: the data come all the same. */
static void without_splice(void **state)
{
	struct fixture *f = *state;
	struct iovec v = {f->base + BEFORE + 4 * MIB, MIB};
	char path[64];
	int zero = open("/dev/full", O_RDONLY | O_CLOEXEC), own = f->ram.region[0].fd;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", f->ram_fd);
	f->ram.region[0].fd = open(path, O_RDONLY | O_CLOEXEC);
	read_and_compare(f, 0, MIB, 8 * PAGE_SIZE, true, 5);
	assert_true(f->ram.region[0].no_splice);
	assert_false(f->pipe.open); /* what was in it is gone */
	read_and_compare(f, 2 * MIB, MIB, MIB, false, 5);
	close(f->ram.region[0].fd);
	f->ram.region[0].fd = own;
	f->ram.region[0].no_splice = false;
	assert_int_equal(fill_read(&f->ram, &f->pipe, zero, &v, 1, 0), MIB);
	close(zero);
	assert_int_equal(fill_read(&f->ram, &f->pipe, -1, &v, 1, 0), -1);
	read_and_compare(f, 8 * MIB, MIB, MIB, false, 0);
	assert_true(f->pipe.open);
}

/* Memory that the balloon took away after it was mapped, and memory that is not the guest's */
static void elsewhere(void **state)
{
	struct fixture *f = *state;
	u8 *own = malloc(MIB);
	struct iovec v = {own, MIB};

	read_and_compare(f, 0, MIB, MIB, false, 0);
	read_and_compare(f, 0, MIB, MIB, false, 0);
	assert_int_equal(madvise(f->base, BEFORE + MIB, MADV_REMOVE), 0);
	assert_int_equal(memory(f), 0);
	read_and_compare(f, 0, MIB, MIB, false, 1);
	assert_int_equal(fill_read(&f->ram, &f->pipe, f->file, &v, 1, 7), MIB);
	assert_memory_equal(own, f->data + 7, MIB);
	v = (struct iovec){own, MIB};
	assert_int_equal(fill_read(NULL, &f->pipe, f->file, &v, 1, 8), MIB);
	assert_memory_equal(own, f->data + 8, MIB);
	free(own);
}

/* Any segments, on memory that comes and goes in between */
static void any(void **state)
{
	struct fixture *f = *state;

	for (unsigned round = 0; round < 400; round++) {
		struct iovec iov[256], copy[256];
		u64 at = (u64)random() % (RAM / 2), want = (u64)random() % (MIB + MIB / 4) + 1, size = 0, seen = 0;
		off_t from = random() % FILE_SIZE;
		unsigned n = 0, most = random() % 2 ? 3 * PAGE_SIZE : MIB;

		while (n < 256 && size < want) {
			u64 len = MIN((u64)random() % most, want - size);

			if (random() % 2)
				len = MIN(ALIGN_UP(len, PAGE_SIZE), want - size);
			iov[n++] = (struct iovec){f->base + BEFORE + at, len};
			size += len;
			at += len + (random() % 4 ? 0 : (u64)random() % (4 * PAGE_SIZE));
			if (at > RAM - MIB)
				break;
		}
		memcpy(copy, iov, sizeof(copy));
		u64 expected = MIN(size, (u64)(FILE_SIZE - from));
		u64 hole = (u64)random() % (RAM / PAGE_SIZE), pages = (u64)random() % (RAM / PAGE_SIZE - hole) + 1;

		if (random() % 3)
			assert_int_equal(madvise(f->base + BEFORE + hole * PAGE_SIZE, pages * PAGE_SIZE, MADV_REMOVE), 0);
		if (random() % 3 == 0)
			memset(f->base + BEFORE + (u64)random() % (RAM - MIB), (int)round, (u64)random() % MIB);
		assert_int_equal(fill_read(&f->ram, &f->pipe, f->file, iov, n, from), expected);
		for (unsigned i = 0; seen < expected; seen += copy[i++].iov_len)
			assert_memory_equal(copy[i].iov_base, f->data + from + seen, MIN(copy[i].iov_len, expected - seen));
	}
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {TEST(fresh),          TEST(mixed),     TEST(at_the_end),
					   TEST(without_splice), TEST(elsewhere), TEST(any)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
