/* A disk with its process: requests, what the process holds, and its death. */
#include <dirent.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "devices/virtio_disk.h"
#include "virtio_driver.h"

enum { SIZE = 1 << 20 };
#define MODERN (BIT64(VIRTIO_F_VERSION_1) | BIT64(VIRTIO_RING_F_INDIRECT_DESC))

struct fixture {
	struct machine *m;
	struct pci_host *host;
	struct drv d;
	struct virtio_disk *disk;
	char path[64];
};

static int setup(void **state)
{
	struct fixture *x = calloc(1, sizeof(*x));
	x->m = fake_machine_new();
	assert_int_equal(pci_host_create(x->m, &fake_pci_config, &x->host), 0);
	strcpy(x->path, "/tmp/doppel-test-disk-XXXXXX");
	int fd = mkstemp(x->path);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, SIZE), 0);
	close(fd);
	*state = x;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *x = *state;
	fake_machine_free(x->m);
	unlink(x->path);
	free(x);
	return 0;
}

static void open_disk(struct fixture *x, u64 iops, unsigned queues, u64 features)
{
	const struct disk_config c = {.path = x->path, .format = DISK_FORMAT_RAW, .iops = iops};
	const struct virtio_disk_options o = {.config = &c, .serial = "serial-1", .queues = queues, .attr.fd = -1};
	struct err e = {{0}};
	if (virtio_disk_create(x->m, x->host, &o, &x->disk, &e))
		fail_msg("%s", e.text);
	drv_find(&x->d, x->m, 1);
	drv_start(&x->d, MODERN | features, queues, 16, true);
}

static u8 *submit(struct fixture *x, unsigned queue, u32 type, u64 sector, gpa_t data, u32 len)
{
	struct drv *d = &x->d;
	gpa_t h = drv_alloc(d, 64);
	struct virtio_blk_outhdr *hdr = drv_ptr(d, h);
	*hdr = (struct virtio_blk_outhdr){.type = type, .sector = sector};
	u8 *status = (u8 *)drv_ptr(d, h) + 32;
	*status = 0xee;
	const struct seg s[] = {{h, 16, false}, {data, len, type == VIRTIO_BLK_T_IN}, {h + 32, 1, true}};
	drv_add(d, queue, s, 3);
	drv_kick(d, queue);
	return status;
}

static bool answered(void *arg)
{
	return *(volatile u8 *)arg != 0xee;
}

static u8 answer(struct fixture *x, u8 *status)
{
	assert_true(fake_run_until(x->m, answered, status));
	return *status;
}

static void transfers(void **state)
{
	struct fixture *x = *state;
	struct vring_used_elem e;
	open_disk(x, 0, 2, BIT64(VIRTIO_BLK_F_MQ));
	assert_int_equal(drv_config(&x->d, 0, 8), SIZE / 512);
	gpa_t a = drv_alloc(&x->d, 4096);
	memset(drv_ptr(&x->d, a), 0x5a, 4096);
	assert_int_equal(answer(x, submit(x, 0, VIRTIO_BLK_T_OUT, 8, a, 4096)), VIRTIO_BLK_S_OK);
	memset(drv_ptr(&x->d, a), 0, 4096);
	assert_int_equal(answer(x, submit(x, 1, VIRTIO_BLK_T_IN, 8, a, 4096)), VIRTIO_BLK_S_OK);
	assert_int_equal(*(u8 *)drv_ptr(&x->d, a + 4095), 0x5a);
	while (!drv_used(&x->d, 1, &e)) /* the status byte comes before the ring's entry */
		usleep(100);
	for (int i = 0; i < 5000 && !fake_msis(x->m, 0x41 + 1); i++)
		usleep(1000);
	assert_int_equal(answer(x, submit(x, 0, VIRTIO_BLK_T_IN, SIZE / 512, a, 4096)), VIRTIO_BLK_S_IOERR);
	struct blk_counters c = virtio_disk_counters(x->disk);
	assert_int_equal(c.reads, 1);
	assert_int_equal(c.writes, 1);
	assert_int_equal(c.written_bytes, 4096);
	assert_int_equal(c.errors, 1);
	drv_set_status(&x->d, 0);
	fake_reset(x->m);
	drv_find(&x->d, x->m, 1);
	drv_start(&x->d, MODERN, 1, 16, true);
	assert_int_equal(answer(x, submit(x, 0, VIRTIO_BLK_T_IN, 8, a, 4096)), VIRTIO_BLK_S_OK);
}

/* Where the engine has decoded code, the VMM hears of a write before the guest can. */
static void pages_with_code(void **state)
{
	struct fixture *x = *state;
	const struct disk_config c = {.path = x->path, .format = DISK_FORMAT_RAW};
	const u64 pages = (FAKE_HIGH + FAKE_HIGH_RAM) / 4096;
	struct virtio_disk_options o = {.config = &c, .queues = 1, .attr = {.code = 0x04, .bytes = pages}};
	struct err e = {{0}};
	o.attr.fd = memfd_create("attr", MFD_CLOEXEC);
	assert_int_equal(ftruncate(o.attr.fd, (off_t)pages), 0);
	assert_int_equal(virtio_disk_create(x->m, x->host, &o, &x->disk, &e), 0);
	drv_find(&x->d, x->m, 1);
	drv_start(&x->d, MODERN, 1, 16, true);
	gpa_t a = ALIGN_UP(drv_alloc(&x->d, 12288), 4096);
	assert_int_equal(answer(x, submit(x, 0, VIRTIO_BLK_T_IN, 0, a, 8192)), VIRTIO_BLK_S_OK);
	fake_run(x->m);
	assert_int_equal(x->m->written, 0);
	const u8 bits = 0x06;
	assert_int_equal(pwrite(o.attr.fd, &bits, 1, (off_t)((a + 4096) / 4096)), 1);
	u8 *status = submit(x, 0, VIRTIO_BLK_T_IN, 0, a, 8192);
	usleep(20000);
	struct vring_used_elem u;
	assert_true(drv_used(&x->d, 0, &u));
	assert_false(drv_used(&x->d, 0, &u)); /* it waits for us, who have not run */
	assert_int_equal(answer(x, status), VIRTIO_BLK_S_OK);
	for (int i = 0; i < 5000 && !drv_used(&x->d, 0, &u); i++) {
		fake_run(x->m);
		usleep(1000);
	}
	assert_int_equal(u.len, 8193);
	assert_true(x->m->written_lo <= a + 4096 && x->m->written_hi >= a + 8192);
	close(o.attr.fd);
}

/* INTx: the VMM passes interrupts on. */
static void without_msix(void **state)
{
	struct fixture *x = *state;
	const struct disk_config c = {.path = x->path, .format = DISK_FORMAT_RAW};
	const struct virtio_disk_options o = {.config = &c, .queues = 1, .attr.fd = -1};
	struct err e = {{0}};
	assert_int_equal(virtio_disk_create(x->m, x->host, &o, &x->disk, &e), 0);
	drv_find(&x->d, x->m, 1);
	drv_start(&x->d, MODERN, 1, 16, false);
	gpa_t a = drv_alloc(&x->d, 4096);
	assert_int_equal(answer(x, submit(x, 0, VIRTIO_BLK_T_IN, 8, a, 4096)), VIRTIO_BLK_S_OK);
	u8 isr = 0;
	for (int i = 0; i < 1000 && !isr; i++) {
		fake_run(x->m);
		isr = (u8)mmio_read(x->m, x->d.bar + x->d.isr, 1);
		usleep(1000);
	}
	assert_int_equal(isr, 1);
}

static void refused(void **state)
{
	struct fixture *x = *state;
	const struct disk_config c = {.path = "/nonexistent/disk"};
	const struct virtio_disk_options o = {.config = &c, .attr.fd = -1};
	struct err e = {{0}};
	assert_true(virtio_disk_create(x->m, x->host, &o, &x->disk, &e) < 0);
	assert_non_null(strstr(e.text, "/nonexistent/disk: no such disk image"));
}

/* Nothing but its image, its socket and eventfds: no memory as a file, no directory, no other device. */
static void holds_only_its_files(void **state)
{
	struct fixture *x = *state;
	char dir[64], link[512], status[4096];
	open_disk(x, 0, 1, 0);
	snprintf(dir, sizeof(dir), "/proc/%d/fd", virtio_disk_pid(x->disk));
	DIR *d = opendir(dir);
	assert_non_null(d);
	for (struct dirent *f = NULL; (f = readdir(d));) {
		ssize_t n = readlinkat(dirfd(d), f->d_name, link, sizeof(link) - 1);
		if (n < 0 || atoi(f->d_name) < 3) /* stdin and stdout: /dev/null; stderr for its one line */
			continue;
		link[n] = 0;
		if (strcmp(link, x->path) && strncmp(link, "socket:", 7) && strncmp(link, "anon_inode:", 11))
			fail_msg("fd %s: %s", f->d_name, link);
	}
	closedir(d);
	snprintf(dir, sizeof(dir), "/proc/%d/status", virtio_disk_pid(x->disk));
	FILE *p = fopen(dir, "r");
	assert_non_null(p);
	status[fread(status, 1, sizeof(status) - 1, p)] = 0;
	fclose(p);
	assert_non_null(strstr(status, "CapPrm:\t0000000000000000"));
	assert_non_null(strstr(status, "CapEff:\t0000000000000000"));
#if !defined(__SANITIZE_ADDRESS__)
	assert_non_null(strstr(status, "Seccomp:\t2"));
#endif
}

/* Requests that it has taken (a limit holds them back), that it has not seen, and later ones: each is answered, once. */
static void death(void **state)
{
	struct fixture *x = *state;
	struct vring_used_elem e;
	u8 *status[8];
	open_disk(x, 1, 2, BIT64(VIRTIO_BLK_F_MQ));
	gpa_t a = drv_alloc(&x->d, 4096);
	for (int i = 0; i < 2; i++) /* the second leaves the limit's bucket empty for a second */
		assert_int_equal(answer(x, submit(x, 0, VIRTIO_BLK_T_IN, 8, a, 4096)), VIRTIO_BLK_S_OK);
	for (int i = 0; i < 4; i++)
		status[i] = submit(x, i & 1, VIRTIO_BLK_T_IN, 8, a, 4096);
	usleep(50000);
	int pid = virtio_disk_pid(x->disk);
	kill(pid, SIGSTOP);
	for (int i = 4; i < 8; i++)
		status[i] = submit(x, i & 1, VIRTIO_BLK_T_IN, 8, a, 4096);
	kill(pid, SIGKILL);
	for (int i = 0; i < 8; i++)
		assert_int_equal(answer(x, status[i]), VIRTIO_BLK_S_IOERR);
	for (int q = 0; q < 2; q++) {
		int n = 0;
		while (drv_used(&x->d, q, &e))
			n++;
		assert_int_equal(n, q ? 4 : 6);
	}
	assert_int_equal(answer(x, submit(x, 0, VIRTIO_BLK_T_IN, 8, a, 4096)), VIRTIO_BLK_S_IOERR);
	drv_set_status(&x->d, 0);
	assert_int_equal(drv_status(&x->d), 0);
	drv_find(&x->d, x->m, 1);
	drv_start(&x->d, MODERN, 2, 16, true);
	assert_int_equal(answer(x, submit(x, 1, VIRTIO_BLK_T_IN, 8, a, 4096)), VIRTIO_BLK_S_IOERR);
	assert_int_equal(virtio_disk_pid(x->disk), 0);
}

static bool reset_is_done(void *arg)
{
	return !drv_status(arg);
}

/* In the middle of a reset. */
static void death_in_reset(void **state)
{
	struct fixture *x = *state;
	open_disk(x, 1, 1, 0);
	gpa_t a = drv_alloc(&x->d, 4096);
	for (int i = 0; i < 4; i++)
		submit(x, 0, VIRTIO_BLK_T_IN, 8, a, 4096);
	kill(virtio_disk_pid(x->disk), SIGSTOP);
	drv_set_status(&x->d, 0);
	assert_int_not_equal(drv_status(&x->d), 0); /* its answer is waited for */
	kill(virtio_disk_pid(x->disk), SIGKILL);
	assert_true(fake_run_until(x->m, reset_is_done, &x->d));
}

static void a_driver_that_breaks_rules(void **state)
{
	struct fixture *x = *state;
	struct drv *d = &x->d;
	open_disk(x, 0, 1, 0);
	const struct seg s[] = {{0xfffffffff000ull, 16, false}, {0, 1, true}};
	drv_add(d, 0, s, 2);
	drv_kick(d, 0);
	for (int i = 0; i < 5000 && !(drv_status(d) & VIRTIO_CONFIG_S_NEEDS_RESET); i++) {
		fake_run(x->m);
		usleep(1000);
	}
	assert_true(drv_status(d) & VIRTIO_CONFIG_S_NEEDS_RESET);
	drv_set_status(d, 0);
	assert_true(fake_run_until(x->m, reset_is_done, d));
	drv_start(d, MODERN, 1, 16, true);
	gpa_t a = drv_alloc(d, 4096);
	assert_int_equal(answer(x, submit(x, 0, VIRTIO_BLK_T_IN, 8, a, 4096)), VIRTIO_BLK_S_OK);
}

int main(int argc, char **argv)
{
	char program[4096 + 32];
	ssize_t n = readlink("/proc/self/exe", program, 4096);
	program[n > 0 ? n : 0] = 0;
	strcpy(strrchr(program, '/'), "/../../doppel-disk"); /* build/tests/unit */
	setenv("DOPPEL_DISK", program, 0);
	log_set_level(LOG_ERROR);
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(transfers, setup, teardown),
	    cmocka_unit_test_setup_teardown(pages_with_code, setup, teardown),
	    cmocka_unit_test_setup_teardown(without_msix, setup, teardown),
	    cmocka_unit_test_setup_teardown(refused, setup, teardown),
	    cmocka_unit_test_setup_teardown(holds_only_its_files, setup, teardown),
	    cmocka_unit_test_setup_teardown(death, setup, teardown),
	    cmocka_unit_test_setup_teardown(death_in_reset, setup, teardown),
	    cmocka_unit_test_setup_teardown(a_driver_that_breaks_rules, setup, teardown),
	};
	return cmocka_run_group_tests_name("virtio-disk", tests, NULL, NULL);
}
