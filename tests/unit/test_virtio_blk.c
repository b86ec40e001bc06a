/* virtio-blk on a disk that does as it is told: several queues, a host without room, stable writes. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <linux/virtio_blk.h>

#include "backends/disk.h"
#include "blk_local.h"
#include "virtio_driver.h"

enum { SIZE = 1 << 20, QUEUES = 3 };
#define MODERN (BIT64(VIRTIO_F_VERSION_1) | BIT64(VIRTIO_RING_F_INDIRECT_DESC))

/* Completes when asked to, with what it is told. */
struct fake_disk {
	struct disk disk;
	struct disk_req *held[64];
	unsigned n, seen;
	u8 content[SIZE];
};
struct fixture {
	struct machine *m;
	struct pci_host *host;
	struct drv d;
	struct fake_disk *f;
};

static void fake_submit(struct disk *d, struct disk_req *r)
{
	struct fake_disk *f = container_of(d, struct fake_disk, disk);
	f->held[f->n++] = r;
	f->seen++;
}

static void fake_go(struct disk *d) {}

static void transfer(struct fake_disk *f, struct disk_req *r)
{
	u64 at = r->offset;
	for (; r->n_iov; at += r->iov->iov_len, r->iov++, r->n_iov--) {
		if (r->op == DISK_WRITE)
			memcpy(f->content + at, r->iov->iov_base, r->iov->iov_len);
		else
			memcpy(r->iov->iov_base, f->content + at, r->iov->iov_len);
	}
}

/* A refused transfer has used up a part of its buffers. */
static void complete_all(struct fake_disk *f, int result)
{
	while (f->n) {
		struct disk_req *r = f->held[0];
		memmove(f->held, f->held + 1, --f->n * sizeof(f->held[0]));
		if (!result)
			transfer(f, r);
		else if (r->n_iov)
			r->iov[0].iov_len = 1;
		f->disk.in_flight--;
		r->done(r, result);
	}
}

static void fake_drain(struct disk *d)
{
	complete_all(container_of(d, struct fake_disk, disk), 0);
}

static void fake_destroy(struct disk *d)
{
	free(container_of(d, struct fake_disk, disk));
}

static const struct disk_ops fake_ops = {
    .submit = fake_submit, .flush_queue = fake_go, .drain = fake_drain, .destroy = fake_destroy};

static int setup(void **state)
{
	struct fixture *x = calloc(1, sizeof(*x));
	x->m = fake_machine_new();
	assert_int_equal(pci_host_create(x->m, &fake_pci_config, &x->host), 0);
	*state = x;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *x = *state;
	fake_machine_free(x->m);
	free(x);
	return 0;
}

static struct drv *blk(struct fixture *x, bool stop, bool write_through, u64 features)
{
	x->f = calloc(1, sizeof(*x->f));
	x->f->disk = (struct disk){.ops = &fake_ops, .size = SIZE, .block_size = 4096, .write_through = write_through};
	const struct virtio_blk_options o = {.disk = &x->f->disk, .queues = QUEUES, .stop_on_enospc = stop};
	assert_int_equal(blk_local_create(x->m, x->host, &o), 0);
	drv_find(&x->d, x->m, 1);
	drv_start(&x->d, MODERN | features, QUEUES, 16, true);
	return &x->d;
}

/* One request on a queue; returns where its status byte is. */
static u8 *send(struct fixture *x, unsigned queue, u32 type, u64 sector, gpa_t data, u32 len)
{
	struct drv *d = &x->d;
	gpa_t h = drv_alloc(d, 64);
	struct virtio_blk_outhdr *hdr = drv_ptr(d, h);
	*hdr = (struct virtio_blk_outhdr){.type = type, .sector = sector};
	u8 *status = (u8 *)drv_ptr(d, h) + 32;
	*status = 0xee;
	const struct seg s[] = {{h, 16, false}, {data, len, type == VIRTIO_BLK_T_IN}, {h + 32, 1, true}};
	const struct seg bare[] = {s[0], s[2]};
	drv_add(d, queue, len ? s : bare, len ? 3 : 2);
	drv_kick(d, queue);
	fake_run(x->m);
	return status;
}

static void queues(void **state)
{
	struct fixture *x = *state;
	struct drv *d = blk(x, false, false, BIT64(VIRTIO_BLK_F_MQ) | BIT64(VIRTIO_BLK_F_FLUSH));
	struct vring_used_elem e;
	u8 *status[QUEUES];
	assert_int_equal(drv_config(d, offsetof(struct virtio_blk_config, num_queues), 2), QUEUES);
	gpa_t a = drv_alloc(d, 4096);
	memset(drv_ptr(d, a), 0x77, 4096);
	for (unsigned q = 0; q < QUEUES; q++)
		status[q] = send(x, q, VIRTIO_BLK_T_OUT, q * 8, a, 4096);
	assert_int_equal(x->f->n, QUEUES);
	complete_all(x->f, 0);
	for (unsigned q = 0; q < QUEUES; q++) {
		assert_int_equal(*status[q], VIRTIO_BLK_S_OK);
		assert_true(drv_used(d, q, &e)); /* each answer where its question came from */
		assert_false(drv_used(d, q, &e));
		assert_int_equal(x->f->content[q * 4096], 0x77);
		assert_true(fake_msis(x->m, 0x41 + q) > 0);
	}
}

static struct device *device(struct fixture *x)
{
	struct device *d = x->m->devices;
	while (strcmp(d->cls->name, "virtio-blk") != 0)
		d = d->next;
	return d;
}

static void no_room(void **state)
{
	struct fixture *x = *state;
	struct drv *d = blk(x, true, false, BIT64(VIRTIO_BLK_F_MQ) | BIT64(VIRTIO_BLK_F_FLUSH));
	struct vring_used_elem e;
	gpa_t a = drv_alloc(d, 4096);
	memset(drv_ptr(d, a), 0x33, 4096);
	u8 *first = send(x, 0, VIRTIO_BLK_T_OUT, 8, a, 4096), *second = send(x, 2, VIRTIO_BLK_T_FLUSH, 0, 0, 0);
	complete_all(x->f, -ENOSPC);
	assert_int_equal(*first, 0xee);
	assert_int_equal(*second, 0xee);
	assert_int_equal(x->m->last_event, MACHINE_STOP);
	assert_false(drv_used(d, 0, &e));
	device(x)->cls->resume(device(x)); /* still no room */
	assert_int_equal(x->f->n, 2);
	complete_all(x->f, -ENOSPC);
	assert_int_equal(*first, 0xee);
	device(x)->cls->resume(device(x));
	complete_all(x->f, 0);
	assert_int_equal(*first, VIRTIO_BLK_S_OK);
	assert_int_equal(*second, VIRTIO_BLK_S_OK);
	assert_true(drv_used(d, 0, &e));
	assert_true(drv_used(d, 2, &e));
	for (int i = 0; i < 4096; i++)
		assert_int_equal(x->f->content[4096 + i], 0x33);
	device(x)->cls->resume(device(x));
	assert_int_equal(x->f->n, 0);
	first = send(x, 1, VIRTIO_BLK_T_OUT, 8, a, 4096);
	complete_all(x->f, -EIO); /* another error is the guest's */
	assert_int_equal(*first, VIRTIO_BLK_S_IOERR);
}

static void no_room_and_reset(void **state)
{
	struct fixture *x = *state;
	struct drv *d = blk(x, true, false, BIT64(VIRTIO_BLK_F_MQ));
	gpa_t a = drv_alloc(d, 4096);
	u8 *status = send(x, 0, VIRTIO_BLK_T_OUT, 8, a, 4096);
	complete_all(x->f, -ENOSPC);
	drv_set_status(d, 0); /* the driver, before the VM stopped: waits for what is held */
	assert_int_not_equal(drv_status(d), 0);
	device(x)->cls->resume(device(x));
	assert_int_equal(drv_status(d), 0);
	assert_int_equal(x->f->n, 0);
	drv_start(d, MODERN, QUEUES, 16, true);
	status = send(x, 0, VIRTIO_BLK_T_OUT, 8, a, 4096);
	complete_all(x->f, -ENOSPC);
	fake_reset(x->m); /* of the machine, while it is paused */
	drv_find(d, x->m, 1);
	drv_start(d, MODERN, QUEUES, 16, true);
	assert_int_equal(*status, 0xee);
	send(x, 0, VIRTIO_BLK_T_OUT, 8, a, 4096);
	complete_all(x->f, -ENOSPC); /* and the end, with a request held */
}

static void reported(void **state)
{
	struct fixture *x = *state;
	struct drv *d = blk(x, false, true, 0);
	gpa_t a = drv_alloc(d, 4096);
	/* with stable writes there is nothing to flush */
	assert_int_equal(*send(x, 0, VIRTIO_BLK_T_FLUSH, 0, 0, 0), VIRTIO_BLK_S_UNSUPP);
	u8 *status = send(x, 1, VIRTIO_BLK_T_OUT, 8, a, 4096);
	complete_all(x->f, -ENOSPC);
	assert_int_equal(*status, VIRTIO_BLK_S_IOERR);
	assert_int_equal(x->m->requests, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(queues, setup, teardown),
	    cmocka_unit_test_setup_teardown(no_room, setup, teardown),
	    cmocka_unit_test_setup_teardown(no_room_and_reset, setup, teardown),
	    cmocka_unit_test_setup_teardown(reported, setup, teardown),
	};
	return cmocka_run_group_tests_name("virtio-blk", tests, NULL, NULL);
}
