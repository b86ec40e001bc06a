/*
 * What the disk tests run inside the guest, statically linked; the host's side of `journal` is here too.
 *
 *   journal DEV START       writes records START, START+1, ... to places all over the disk, each followed by a
 *                           flush; says "ACK n" on the console when record n is safe
 *   fill DEV                writes until an error: "ERROR errno after N"
 *   bench DEV               random 4 KiB and sequential 1 MiB, unbuffered
 *   verify FILE LAST        on the host: every record up to LAST is in the raw image FILE
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

enum { RECORD = 4096, RECORDS = 4096, THREADS = 4, MIB = 1 << 20 };
#define SPACING (128ull * 1024)

static uint64_t place(uint64_t seq)
{
	return seq * 1237 % RECORDS * SPACING;
}

static void make_record(uint64_t *p, uint64_t seq)
{
	for (unsigned i = 0; i < RECORD / 8; i++)
		p[i] = (seq + 1) * 0x9e3779b97f4a7c15ull + i;
}

static void *aligned(size_t n)
{
	void *p = NULL;
	return posix_memalign(&p, 4096, n) ? NULL : p;
}

static int journal(const char *dev, uint64_t seq)
{
	uint64_t *p = aligned(RECORD);
	int fd = open(dev, O_RDWR | O_DIRECT);
	for (; fd >= 0 && p; seq++) {
		make_record(p, seq);
		if (pwrite(fd, p, RECORD, (off_t)place(seq)) != RECORD || fdatasync(fd))
			break;
		printf("ACK %llu\n", (unsigned long long)seq);
		fflush(stdout);
	}
	printf("journal: %s\n", strerror(errno));
	return 1;
}

static int verify(const char *file, uint64_t last)
{
	uint64_t want[RECORD / 8], later[RECORD / 8], have[RECORD / 8], lost = 0;
	int fd = open(file, O_RDONLY);
	if (fd < 0)
		return 1;
	for (uint64_t seq = last >= RECORDS ? last - RECORDS + 1 : 0; seq <= last; seq++) {
		make_record(want, seq);
		make_record(later, seq + RECORDS); /* written, perhaps not acknowledged */
		if (pread(fd, have, RECORD, (off_t)place(seq)) != RECORD ||
		    (memcmp(want, have, RECORD) && memcmp(later, have, RECORD))) {
			fprintf(stderr, "record %llu is lost\n", (unsigned long long)seq);
			lost++;
		}
	}
	return lost != 0;
}

static int fill(const char *dev)
{
	uint64_t *p = aligned(MIB), n = 0;
	int fd = open(dev, O_RDWR | O_DIRECT);
	memset(p, 0x5a, MIB);
	for (;; n++) {
		p[0] = n;
		errno = 0;
		if (pwrite(fd, p, MIB, (off_t)(n * MIB)) != MIB || fdatasync(fd))
			break;
	}
	printf("FILL %s after %llu MiB\n", errno ? strerror(errno) : "end of disk", (unsigned long long)n);
	for (uint64_t i = 0; i < n; i++)
		if (pread(fd, p, MIB, (off_t)(i * MIB)) != MIB || p[0] != i || p[1] != 0x5a5a5a5a5a5a5a5aull)
			printf("FILL lost MiB %llu\n", (unsigned long long)i);
	printf("FILL checked\n");
	return 0;
}

/* ---- figures ---- */
struct job {
	const char *dev;
	uint64_t size, block, seed;
	int write, random;
	volatile int *stop;
	uint64_t ops;
};

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void *work(void *arg)
{
	struct job *j = arg;
	void *p = aligned(j->block);
	int fd = open(j->dev, O_RDWR | O_DIRECT);
	uint64_t blocks = j->size / j->block, at = j->seed;
	memset(p, (int)j->seed | 1, j->block);
	while (!*j->stop) {
		at = j->random ? at * 6364136223846793005ull + 1442695040888963407ull : at + 1;
		off_t off = (off_t)((j->random ? at >> 20 : at) % blocks * j->block);
		if ((j->write ? pwrite(fd, p, j->block, off) : pread(fd, p, j->block, off)) < 0) {
			printf("bench: %s\n", strerror(errno));
			break;
		}
		j->ops++;
	}
	close(fd);
	return NULL;
}

static void measure(const char *name, const char *dev, uint64_t size, uint64_t block, int write, int random, int threads)
{
	struct job job[THREADS];
	pthread_t t[THREADS];
	volatile int stop = 0;
	uint64_t ops = 0;
	double start = now();
	for (int i = 0; i < threads; i++) {
		job[i] = (struct job){dev, size, block, 17u * (unsigned)i, write, random, &stop, 0};
		pthread_create(&t[i], NULL, work, &job[i]);
	}
	usleep(2000000);
	stop = 1;
	for (int i = 0; i < threads; i++) {
		pthread_join(t[i], NULL);
		ops += job[i].ops;
	}
	start = now() - start;
	printf("BENCH %-12s %10.0f IO/s %10.1f MiB/s\n", name, (double)ops / start, (double)(ops * block) / start / MIB);
}

static int bench(const char *dev)
{
	uint64_t size = 0;
	int fd = open(dev, O_RDONLY);
	if (fd < 0 || ioctl(fd, BLKGETSIZE64, &size))
		return 1;
	close(fd);
	size = size < 256ull * MIB ? size : 256ull * MIB;
	measure("seq-write", dev, size, MIB, 1, 0, 1);
	measure("seq-read", dev, size, MIB, 0, 0, 1);
	measure("rand-read", dev, size, 4096, 0, 1, THREADS);
	measure("rand-write", dev, size, 4096, 1, 1, THREADS);
	return 0;
}

int main(int argc, char **argv)
{
	uint64_t n = argc > 3 ? strtoull(argv[3], NULL, 0) : 0;
	if (argc > 2 && !strcmp(argv[1], "journal"))
		return journal(argv[2], n);
	if (argc > 2 && !strcmp(argv[1], "verify"))
		return verify(argv[2], n);
	if (argc > 2 && !strcmp(argv[1], "fill"))
		return fill(argv[2]);
	if (argc > 2 && !strcmp(argv[1], "bench"))
		return bench(argv[2]);
	return 2;
}
