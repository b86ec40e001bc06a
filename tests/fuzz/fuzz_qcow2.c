/*
 * Fuzzes qcow2 images: headers alone, and whole images with damaged headers, tables and refcounts, which are
 * then opened, read, written, zeroed, discarded and closed. Correct is: no crash, no sanitizer report, an end
 * within seconds, and an image file that does not grow beyond bounds.
 */
#include <fcntl.h>
#include <sanitizer/common_interface_defs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "backends/disk.h"
#include "backends/qcow2_int.h"
#include "fake_machine.h"

enum { SIZE = 4 << 20, IMAGE_MAX = 8 << 20, IO = 192 * 1024, FILE_MAX = 1 << 30 };

static u64 rng_state;

static u64 rng(void)
{
	u64 z = (rng_state += 0x9e3779b97f4a7c15);

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	return z ^ z >> 27;
}

struct base {
	u8 *data;
	u64 size;
};

static const char *const recipes[] = {
    "qemu-img create -q -f qcow2 -o cluster_size=4k %s 4M && qemu-io -c 'write -P 5 0 1M' -c 'write -z 2M 64k' %s >/dev/null",
    "qemu-img create -q -f qcow2 -o compat=0.10,cluster_size=512 %s 4M && qemu-io -c 'write 1M 100k' %s >/dev/null",
    "qemu-img create -q -f qcow2 -o extended_l2=on,cluster_size=16k %s 4M && qemu-io -c 'write 0 10k' -c 'write -z 40k 8k' %s "
    ">/dev/null && qemu-img snapshot -c s %s",
    "qemu-img create -q -f qcow2 %s.b 4M && qemu-io -c 'write -P 9 0 2M' %s.b >/dev/null && qemu-img convert -c -O qcow2 "
    "-o cluster_size=8k,compression_type=zstd %s.b %s && qemu-img snapshot -c t %s",
    "qemu-img create -q -f qcow2 %s.b 4M && qemu-io -c 'write -P 9 0 2M' %s.b >/dev/null && qemu-img convert -c -O qcow2 "
    "-o cluster_size=8k,refcount_bits=1 %s.b %s",
};

static bool make_base(const char *path, const char *recipe, struct base *b)
{
	char cmd[2000];
	snprintf(cmd, sizeof(cmd), recipe, path, path, path, path, path);
	*b = (struct base){0};
	if (system(cmd))
		return false;
	int fd = open(path, O_RDONLY);
	struct stat st;
	if (fd < 0 || fstat(fd, &st) || st.st_size > IMAGE_MAX)
		return false;
	b->size = (u64)st.st_size;
	b->data = malloc(b->size);
	bool ok = read(fd, b->data, b->size) == (ssize_t)b->size;
	close(fd);
	return ok;
}

/* ---- damage ---- */
static u64 odd_number(void)
{
	static const u64 odd[] = {0, 1, 0x200, 0x10000, UINT64_MAX, 1ull << 63, 3ull << 62, INT64_MAX, 0x00fffffffffffe00ull,
				  0x7fffffff, 0xffffffff, 1ull << 32, 0x8000000000010000ull, 0x8000000000000001ull};
	return rng() & 1 ? odd[rng() % ARRAY_SIZE(odd)] : rng() >> (rng() % 64);
}

static void damage(u8 *p, u64 n)
{
	int hits = 1 + (int)(rng() % 6);
	while (hits--) {
		u64 v = htobe64(odd_number());
		/* half of it in the header, else at the beginning of some cluster: where tables are */
		u64 at = rng() % 2 ? rng() % 112 : rng() % (n / 512) * 512 + rng() % 16 * 8;
		if (rng() % 3 == 0 && n > 4096) { /* another place of the same image as an offset */
			v = htobe64((rng() % (n / 512) * 512) | (rng() & 1 ? QCOW2_COPIED : 0));
			at &= ~7ull;
		}
		memcpy(p + MIN(at, n - 8), &v, 1 + rng() % 8);
	}
}

static void fuzz_header(const struct base *b)
{
	u8 p[4096];
	struct qcow2_header h;
	struct err e = {0};
	u64 n = rng() % sizeof(p);
	memcpy(p, b->data, sizeof(p));
	damage(p, sizeof(p));
	u8 *exact = malloc(n ? n : 1);
	memcpy(exact, p, n);
	qcow2_parse_header(exact, n, "image", &h, &e);
	free(exact);
}

/* ---- use ---- */
struct request {
	struct disk_req r;
	struct iovec iov[2];
	bool busy;
	u8 data[IO];
};

static void request_done(struct disk_req *r, int result)
{
	container_of(r, struct request, r)->busy = false;
}

static void use(struct machine *m, const char *path, struct request *q)
{
	struct disk *d = NULL;
	struct err e = {0};
	const struct disk_config c = {.path = path, .format = DISK_FORMAT_QCOW2, .read_only = rng() % 5 == 0,
				      .overlay = rng() % 8 == 0};
	struct disk_config cfg = c;
	cfg.read_only &= !c.overlay;
	if (disk_open(m->loop, &cfg, &d, &e))
		return;
	for (int i = 0; i < 40; i++) {
		u64 n = 512 * (1 + rng() % (IO / 512)), at = d->size > n ? rng() % ((d->size - n) / 512 + 1) * 512 : 0;
		if (rng() % 4)
			at %= SIZE;
		q->iov[0] = (struct iovec){q->data, n / 2};
		q->iov[1] = (struct iovec){q->data + n / 2, n - n / 2};
		q->r = (struct disk_req){.op = rng() % DISK_OPS, .offset = at, .len = n, .iov = q->iov, .n_iov = 2,
					 .may_unmap = rng() & 1, .done = request_done};
		if (q->r.op != DISK_READ && q->r.op != DISK_WRITE)
			q->r.n_iov = 0;
		q->busy = true;
		if (!disk_submit(d, &q->r))
			disk_drain(d);
	}
	disk_destroy(d);
}

int main(int argc, char **argv)
{
	u64 seconds = argc > 1 ? strtoull(argv[1], NULL, 0) : 20, seed = argc > 2 ? strtoull(argv[2], NULL, 0) : (u64)time(NULL);
	u64 only = argc > 3 ? strtoull(argv[3], NULL, 0) : 0, runs = 0;
	char dir[] = "/dev/shm/doppel-fuzz-XXXXXX", path[64], cmd[100];
	struct base base[ARRAY_SIZE(recipes)];
	struct request *q = calloc(1, sizeof(*q));
	struct machine *m = fake_machine_new();
	unsigned n = 0;
	int failed = 0;

	if (!mkdtemp(dir))
		return 1;
	snprintf(path, sizeof(path), "%s/i", dir);
	snprintf(cmd, sizeof(cmd), "rm -rf %s", dir);
	for (size_t i = 0; i < ARRAY_SIZE(recipes); i++)
		n += make_base(path, recipes[i], &base[n]);
	if (!n) {
		puts("no qemu-img, qemu-io (apt-get install qemu-utils)\n0 passed, 0 failed, 1 skipped");
		return 0;
	}
	printf("seed %llu, %u images\n", (unsigned long long)seed, n);
	fflush(stdout);
	__sanitizer_set_report_fd((void *)(intptr_t)dup(2)); /* what images are called damaged for is no news here */
	dup2(open("/dev/null", O_WRONLY), 2);
	u8 *p = malloc(IMAGE_MAX);
	for (time_t end = time(NULL) + (time_t)seconds; time(NULL) < end && !failed; runs++) {
		rng_state = seed + runs; /* each run by itself: SECONDS SEED+RUN 1 repeats it */
		const struct base *b = &base[rng() % n];
		for (int i = 0; i < 20; i++)
			fuzz_header(b);
		memcpy(p, b->data, b->size);
		damage(p, b->size);
		unlink(path);
		int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
		struct stat st;
		u64 keep = rng() % 8 ? b->size : rng() % b->size;
		if (write(fd, p, keep) != (ssize_t)keep)
			return 1;
		close(fd);
		time_t start = time(NULL);
		use(m, path, q);
		stat(path, &st);
		if (time(NULL) - start > 5 || st.st_blocks * 512ll > FILE_MAX) {
			printf("run %llu: %lld s, %lld KiB\n", (unsigned long long)runs, (long long)(time(NULL) - start),
			       (long long)st.st_blocks / 2);
			failed = 1;
		}
		if (only && runs + 1 == only)
			break;
	}
	fake_machine_free(m);
	for (unsigned i = 0; i < n; i++)
		free(base[i].data);
	free(p);
	free(q);
	if (system(cmd))
		failed = 1;
	printf("%llu images\n%d passed, %d failed\n", (unsigned long long)runs, !failed, failed);
	return failed;
}
