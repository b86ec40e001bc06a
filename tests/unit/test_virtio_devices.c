/* Devices through the PCI transport, driven as a guest's driver would. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_console.h>

#include "backends/chardev.h"
#include "backends/disk.h"
#include "devices/virtio_console.h"
#include "devices/virtio_rng.h"
#include "blk_local.h"
#include "virtio_driver.h"

#define MODERN (BIT64(VIRTIO_F_VERSION_1) | BIT64(VIRTIO_RING_F_INDIRECT_DESC))

struct sink {
	struct chardev base;
	u8 out[4096];
	size_t n, room;
	unsigned resumes, drops, settles;
};

struct fixture {
	struct machine *m;
	struct pci_host *host;
	struct drv d;
	struct sink s[2];
	char path[64];
};

static size_t sink_write(struct chardev *c, const u8 *p, size_t n)
{
	struct sink *s = container_of(c, struct sink, base);
	n = MIN(n, s->room - s->n);
	memcpy(s->out + s->n, p, n);
	s->n += n;
	return n;
}

static void sink_resume(struct chardev *c)
{
	container_of(c, struct sink, base)->resumes++;
}

static void sink_attached(struct chardev *c)
{
	c->sink->opened(c->dev, true);
}

/* A complete job is marked in the output. */
static void sink_ended(struct chardev *c, bool complete)
{
	struct sink *s = container_of(c, struct sink, base);
	if (complete)
		s->out[s->n++] = '|';
	else
		s->drops++;
}

static void sink_settle(struct chardev *c, bool on)
{
	struct sink *s = container_of(c, struct sink, base);
	s->settles += on;
	s->room = on ? sizeof(s->out) : s->n;
}

static const struct chardev_ops sink_ops = {
    .write = sink_write, .resume = sink_resume, .attached = sink_attached, .ended = sink_ended};
static const struct chardev_ops settling_ops = {
    .write = sink_write, .resume = sink_resume, .attached = sink_attached, .ended = sink_ended, .settle = sink_settle};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	f->m = fake_machine_new();
	assert_int_equal(pci_host_create(f->m, &fake_pci_config, &f->host), 0);
	for (int i = 0; i < 2; i++)
		f->s[i] = (struct sink){.base.ops = &sink_ops, .room = sizeof(f->s[i].out)};
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	fake_machine_free(f->m);
	if (f->path[0])
		unlink(f->path);
	free(f);
	return 0;
}

/* ---- transport, by way of the entropy device ---- */
static struct drv *rng(struct fixture *f)
{
	struct virtio_rng *r;
	assert_int_equal(virtio_rng_create(f->m, f->host, &r), 0);
	drv_find(&f->d, f->m, 1);
	return &f->d;
}

static bool filled(struct drv *d, gpa_t a, u32 n)
{
	u8 or = 0;
	for (u32 i = 0; i < n; i++)
		or |= ((u8 *)drv_ptr(d, a))[i];
	return or != 0;
}

static void rng_fills(void **state)
{
	struct fixture *f = *state;
	struct drv *d = rng(f);
	for (int mode = 0; mode < 8; mode++) { /* MSI-X or INTx, EVENT_IDX or flags, ioeventfd or MMIO exit */
		bool msix = mode & 1;
		f->m->refuse_ioeventfd = false;
		drv_set_status(d, 0);
		f->m->refuse_ioeventfd = mode & 4;
		drv_start(d, MODERN | (mode & 2 ? BIT64(VIRTIO_RING_F_EVENT_IDX) : 0), 1, 8, msix);
		gpa_t a = drv_alloc(d, 256);
		memset(drv_ptr(d, a), 0, 256);
		fake_run(f->m);
		fake_msis(f->m, 0x41);
		const struct seg s[] = {{a, 100, true}, {a + 100, 156, true}};
		u16 head = drv_add(d, 0, s, 2);
		drv_kick(d, 0);
		fake_run(f->m);
		struct vring_used_elem e;
		assert_true(drv_used(d, 0, &e));
		assert_int_equal(e.id, head);
		assert_int_equal(e.len, 256);
		assert_true(filled(d, a + 200, 56));
		if (msix) {
			assert_int_equal(fake_msis(f->m, 0x41), 1);
			assert_false(f->m->irq[17]);
		} else {
			assert_true(f->m->irq[17]);
			assert_int_equal(mmio_read(f->m, d->bar + d->isr, 1), 1);
			assert_false(f->m->irq[17]);
		}
		if (msix) { /* off again for the next mode */
			fake_reset(f->m);
			drv_find(d, f->m, 1);
		}
	}
	f->m->refuse_ioeventfd = false;
}

static void negotiation(void **state)
{
	struct fixture *f = *state;
	struct drv *d = rng(f);
	drv_begin(d, 0); /* no VERSION_1: refused */
	assert_false(drv_status(d) & VIRTIO_CONFIG_S_FEATURES_OK);
	drv_set_status(d, VIRTIO_CONFIG_S_DRIVER_OK);
	assert_false(drv_status(d) & VIRTIO_CONFIG_S_DRIVER_OK);
	drv_begin(d, MODERN);
	assert_int_equal(drv_status(d), 11);
	u64 c = d->bar + d->common;
	mmio_write(f->m, c + VIRTIO_PCI_COMMON_GFSELECT, 4, 0); /* too late */
	mmio_write(f->m, c + VIRTIO_PCI_COMMON_GF, 4, 0xffffffff);
	assert_int_equal(mmio_read(f->m, c + VIRTIO_PCI_COMMON_GF, 4), (u32)MODERN);
	drv_set_status(d, 0);
	mmio_write(f->m, c + VIRTIO_PCI_COMMON_GF, 4, 0xffffffff); /* features nobody offered */
	mmio_write(f->m, c + VIRTIO_PCI_COMMON_GFSELECT, 4, 1);
	mmio_write(f->m, c + VIRTIO_PCI_COMMON_GF, 4, 1);
	drv_set_status(d, 11);
	assert_false(drv_status(d) & VIRTIO_CONFIG_S_FEATURES_OK);
	assert_int_equal(mmio_read(f->m, c + VIRTIO_PCI_COMMON_NUMQ, 2), 1);
	mmio_write(f->m, c + VIRTIO_PCI_COMMON_MSIX, 2, 7); /* no such vector */
	assert_int_equal(mmio_read(f->m, c + VIRTIO_PCI_COMMON_MSIX, 2), VIRTIO_NO_VECTOR);
	mmio_write(f->m, c + VIRTIO_PCI_COMMON_Q_SELECT, 2, 99);
	assert_int_equal(mmio_read(f->m, c + VIRTIO_PCI_COMMON_Q_SIZE, 2), 0);
	mmio_write(f->m, c + VIRTIO_PCI_COMMON_Q_ENABLE, 2, 1);
	mmio_write(f->m, d->bar + d->notify + 4 * 99, 2, 99);
}

/* A broken queue: NEEDS_RESET, a configuration interrupt, silence; a reset heals. */
static void broken_queue(void **state)
{
	struct fixture *f = *state;
	struct drv *d = rng(f);
	drv_start(d, MODERN, 1, 8, true);
	const struct seg bad = {FAKE_RAM, 16, true};
	drv_add(d, 0, &bad, 1);
	drv_kick(d, 0);
	fake_run(f->m);
	assert_true(drv_status(d) & VIRTIO_CONFIG_S_NEEDS_RESET);
	assert_int_equal(fake_msis(f->m, 0x40), 1);
	gpa_t a = drv_alloc(d, 16);
	const struct seg good = {a, 16, true};
	drv_add(d, 0, &good, 1);
	drv_kick(d, 0);
	fake_run(f->m);
	struct vring_used_elem e;
	assert_false(drv_used(d, 0, &e));
	drv_start(d, MODERN, 1, 8, true);
	drv_add(d, 0, &good, 1);
	drv_kick(d, 0);
	fake_run(f->m);
	assert_true(drv_used(d, 0, &e));
}

/* BAR 0 through the window in configuration space, with memory decoding off. */
static void config_window(void **state)
{
	struct fixture *f = *state;
	struct drv *d = rng(f);
	unsigned c = cfg_read(f->m, 1, PCI_CAPABILITY_LIST, 1);
	while (cfg_read(f->m, 1, c, 1) != PCI_CAP_ID_VNDR ||
	       cfg_read(f->m, 1, c + 3, 1) != VIRTIO_PCI_CAP_PCI_CFG)
		c = cfg_read(f->m, 1, c + 1, 1);
	cfg_write(f->m, 1, PCI_COMMAND, 2, 0);
	cfg_write(f->m, 1, c + 4, 1, 0);
	cfg_write(f->m, 1, c + 8, 4, d->common + VIRTIO_PCI_COMMON_STATUS);
	cfg_write(f->m, 1, c + 12, 4, 1);
	cfg_write(f->m, 1, c + 16, 1, 3);
	assert_int_equal(cfg_read(f->m, 1, c + 16, 1), 3);
	static const u32 bad[][3] = {{0, 0, 3}, {0, 0x4000, 1}, {0, 0xffffffff, 4},
				     {2, 0, 4}, {0, 1, 2},      {0, 0, 0xffffffff}};
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		cfg_write(f->m, 1, c + 4, 1, bad[i][0]);
		cfg_write(f->m, 1, c + 8, 4, bad[i][1]);
		cfg_write(f->m, 1, c + 12, 4, bad[i][2]);
		cfg_write(f->m, 1, c + 16, 4, 0);
		cfg_read(f->m, 1, c + 16, 4);
	}
	cfg_write(f->m, 1, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
	assert_int_equal(drv_status(d), 3);
}

/* ---- block ---- */
enum { DISK_BYTES = 1 << 20 };

static struct drv *blk(struct fixture *f, bool read_only)
{
	struct disk *disk;
	struct err e = {0};
	strcpy(f->path, "/tmp/doppel-test-disk-XXXXXX");
	int fd = mkstemp(f->path);
	assert_true(fd >= 0);
	for (int i = 0; i < DISK_BYTES / 512; i++) {
		u8 sector[512];
		memset(sector, i, sizeof(sector));
		assert_int_equal(write(fd, sector, 512), 512);
	}
	close(fd);
	assert_int_equal(disk_open_raw(f->m->loop, f->path, read_only, &disk, &e), 0);
	const struct virtio_blk_options o = {.disk = disk, .serial = "serial-0"};
	assert_int_equal(blk_local_create(f->m, f->host, &o), 0);
	drv_find(&f->d, f->m, 1);
	return &f->d;
}

struct wait {
	struct drv *d;
	struct vring_used_elem e;
	bool got;
};

static bool used_arrived(void *arg)
{
	struct wait *w = arg;
	w->got = w->got || drv_used(w->d, 0, &w->e);
	return w->got;
}

/* One request; data_in: the device writes the data. Returns the status byte. */
static u8 request(struct fixture *f, u32 type, u64 sector, gpa_t data, u32 len, bool data_in, u32 *used_len)
{
	struct drv *d = &f->d;
	gpa_t h = drv_alloc(d, 64);
	struct virtio_blk_outhdr *hdr = drv_ptr(d, h);
	*hdr = (struct virtio_blk_outhdr){.type = type, .sector = sector};
	u8 *status = (u8 *)drv_ptr(d, h) + 32;
	*status = 0xee;
	struct seg s[4] = {{h, 16, false}};
	unsigned n = 1;
	if (len > 1024) /* in two pieces, oddly cut */
		s[n++] = (struct seg){data, 1000, data_in},
		s[n++] = (struct seg){data + 1000, len - 1000, data_in};
	else if (len)
		s[n++] = (struct seg){data, len, data_in};
	s[n++] = (struct seg){h + 32, 1, true};
	drv_add(d, 0, s, n);
	drv_kick(d, 0);
	struct wait w = {.d = d};
	assert_true(fake_run_until(f->m, used_arrived, &w));
	if (used_len)
		*used_len = w.e.len;
	return *status;
}

static void blk_transfers(void **state)
{
	struct fixture *f = *state;
	struct drv *d = blk(f, false);
	drv_start(d, ~0ull, 1, 64, true);
	assert_int_equal(drv_config(d, 0, 8), DISK_BYTES / 512);
	assert_int_equal(drv_config(d, offsetof(struct virtio_blk_config, seg_max), 4), 254);
	gpa_t a = drv_alloc(d, 8192);
	u8 *p = drv_ptr(d, a);
	u32 len;
	assert_int_equal(request(f, VIRTIO_BLK_T_IN, 7, a, 4096, true, &len), VIRTIO_BLK_S_OK);
	assert_int_equal(len, 4097);
	for (int i = 0; i < 8; i++)
		assert_int_equal(p[512 * i + 300], 7 + i);
	memset(p, 0xaa, 2048);
	assert_int_equal(request(f, VIRTIO_BLK_T_OUT, 100, a, 2048, false, &len), VIRTIO_BLK_S_OK);
	assert_int_equal(len, 1);
	assert_int_equal(request(f, VIRTIO_BLK_T_FLUSH, 0, 0, 0, false, NULL), VIRTIO_BLK_S_OK);
	assert_int_equal(request(f, VIRTIO_BLK_T_IN, 102, a, 1024, true, NULL), VIRTIO_BLK_S_OK);
	assert_int_equal(p[0], 0xaa);
	assert_int_equal(p[1023], 0xaa);
	memset(p, 0, 32);
	assert_int_equal(request(f, VIRTIO_BLK_T_GET_ID, 0, a, 20, true, NULL), VIRTIO_BLK_S_OK);
	assert_string_equal((char *)p, "serial-0");
	assert_int_equal(request(f, VIRTIO_BLK_T_IN, DISK_BYTES / 512 - 1, a, 512, true, NULL),
			 VIRTIO_BLK_S_OK);
}

static void blk_ranges(void **state)
{
	struct fixture *f = *state;
	struct drv *d = blk(f, false);
	drv_start(d, ~0ull, 1, 64, false);
	gpa_t a = drv_alloc(d, 4096), r = drv_alloc(d, 16);
	u8 *p = drv_ptr(d, a);
	struct virtio_blk_discard_write_zeroes *z = drv_ptr(d, r);
	*z = (struct virtio_blk_discard_write_zeroes){.sector = 8, .num_sectors = 8, .flags = 1};
	assert_int_equal(request(f, VIRTIO_BLK_T_WRITE_ZEROES, 0, r, 16, false, NULL), VIRTIO_BLK_S_OK);
	assert_int_equal(request(f, VIRTIO_BLK_T_IN, 8, a, 4096, true, NULL), VIRTIO_BLK_S_OK);
	assert_int_equal(p[0] | p[4095], 0);
	assert_int_equal(request(f, VIRTIO_BLK_T_IN, 16, a, 512, true, NULL), VIRTIO_BLK_S_OK);
	assert_int_equal(p[0], 16);
	z->flags = 0;
	z->sector = 32;
	assert_int_equal(request(f, VIRTIO_BLK_T_WRITE_ZEROES, 0, r, 16, false, NULL), VIRTIO_BLK_S_OK);
	z->sector = 64;
	assert_int_equal(request(f, VIRTIO_BLK_T_DISCARD, 0, r, 16, false, NULL), VIRTIO_BLK_S_OK);
	z->flags = 1;
	assert_int_equal(request(f, VIRTIO_BLK_T_DISCARD, 0, r, 16, false, NULL), VIRTIO_BLK_S_UNSUPP);
	z->flags = 0;
	z->sector = UINT64_MAX - 1;
	assert_int_equal(request(f, VIRTIO_BLK_T_DISCARD, 0, r, 16, false, NULL), VIRTIO_BLK_S_IOERR);
	z->sector = DISK_BYTES / 512 - 1;
	assert_int_equal(request(f, VIRTIO_BLK_T_DISCARD, 0, r, 16, false, NULL), VIRTIO_BLK_S_IOERR);
	z->num_sectors = 0;
	assert_int_equal(request(f, VIRTIO_BLK_T_DISCARD, 0, r, 16, false, NULL), VIRTIO_BLK_S_IOERR);
	assert_int_equal(request(f, VIRTIO_BLK_T_DISCARD, 0, r, 8, false, NULL), VIRTIO_BLK_S_IOERR);
}

static void blk_refusals(void **state)
{
	struct fixture *f = *state;
	struct drv *d = blk(f, true);
	drv_start(d, ~0ull, 1, 64, false);
	gpa_t a = drv_alloc(d, 4096);
	assert_true(d->features & BIT64(VIRTIO_BLK_F_RO));
	assert_int_equal(request(f, VIRTIO_BLK_T_OUT, 0, a, 512, false, NULL), VIRTIO_BLK_S_IOERR);
	assert_int_equal(request(f, VIRTIO_BLK_T_IN, DISK_BYTES / 512, a, 512, true, NULL),
			 VIRTIO_BLK_S_IOERR);
	assert_int_equal(request(f, VIRTIO_BLK_T_IN, DISK_BYTES / 512 - 1, a, 1024, true, NULL),
			 VIRTIO_BLK_S_IOERR);
	assert_int_equal(request(f, VIRTIO_BLK_T_IN, UINT64_MAX, a, 512, true, NULL), VIRTIO_BLK_S_IOERR);
	assert_int_equal(request(f, VIRTIO_BLK_T_IN, UINT64_MAX / 512, a, 512, true, NULL),
			 VIRTIO_BLK_S_IOERR);
	assert_int_equal(request(f, VIRTIO_BLK_T_IN, 0, a, 100, true, NULL), VIRTIO_BLK_S_IOERR);
	assert_int_equal(request(f, VIRTIO_BLK_T_IN, 0, 0, 0, true, NULL), VIRTIO_BLK_S_IOERR);
	assert_int_equal(request(f, 0x1234, 0, a, 512, true, NULL), VIRTIO_BLK_S_UNSUPP);
	assert_int_equal(request(f, VIRTIO_BLK_T_DISCARD, 0, a, 16, false, NULL), VIRTIO_BLK_S_UNSUPP);
	const struct seg no_status = {a, 16, false};
	drv_add(d, 0, &no_status, 1);
	drv_kick(d, 0);
	fake_run(f->m);
	assert_true(drv_status(d) & VIRTIO_CONFIG_S_NEEDS_RESET);
}

static bool reset_done(void *arg)
{
	return drv_status(arg) == 0;
}

/* A reset with requests in flight: status 0 only when the memory is quiet; nothing is written to the used
 * ring after it. */
static void blk_reset_in_flight(void **state)
{
	struct fixture *f = *state;
	struct drv *d = blk(f, false);
	for (int round = 0; round < 20; round++) {
		drv_start(d, ~0ull, 1, 64, true);
		gpa_t h = drv_alloc(d, 64), a = drv_alloc(d, 8192);
		*(struct virtio_blk_outhdr *)drv_ptr(d, h) =
		    (struct virtio_blk_outhdr){.type = VIRTIO_BLK_T_IN};
		const struct seg s[] = {{h, 16, false}, {a, 8192, true}, {h + 32, 1, true}};
		for (int i = 0; i < 20; i++)
			drv_add(d, 0, s, 3);
		drv_kick(d, 0);
		if (round & 1)
			fake_run(f->m);
		drv_set_status(d, 0);
		u16 used_idx = *(u16 *)((u8 *)drv_ptr(d, d->q[0].used) + 2);
		assert_true(fake_run_until(f->m, reset_done, d));
		fake_run(f->m);
		assert_int_equal(*(u16 *)((u8 *)drv_ptr(d, d->q[0].used) + 2), used_idx);
		if (round == 10) {
			fake_reset(f->m);
			drv_find(d, f->m, 1);
		}
		d->next_page = 0x100000;
	}
	drv_start(d, ~0ull, 1, 64, true);
	assert_int_equal(request(f, VIRTIO_BLK_T_FLUSH, 0, 0, 0, false, NULL), VIRTIO_BLK_S_OK);
}

/* The same head over and over while requests are in flight: more than a queue can hold. */
static void blk_overcommit(void **state)
{
	struct fixture *f = *state;
	struct drv *d = blk(f, false);
	drv_start(d, ~0ull, 1, 8, true);
	gpa_t h = drv_alloc(d, 64), a = drv_alloc(d, 4096);
	*(struct virtio_blk_outhdr *)drv_ptr(d, h) = (struct virtio_blk_outhdr){.type = VIRTIO_BLK_T_IN};
	const struct seg s[] = {{h, 16, false}, {a, 4096, true}, {h + 32, 1, true}};
	drv_add(d, 0, s, 3);
	for (int i = 1; i < 8; i++)
		drv_publish(d, 0, 0);
	drv_kick(d, 0);
	struct wait w = {.d = d};
	assert_true(fake_run_until(f->m, used_arrived, &w));
}

/* ---- console ---- */
static struct drv *console(struct fixture *f)
{
	struct virtio_console *c;
	const struct virtio_console_options o = {
	    .n_ports = 2,
	    .port = {{.chardev = &f->s[0].base, .console = true},
		     {.chardev = &f->s[1].base, .name = "org.example.0"}}};
	assert_int_equal(virtio_console_create(f->m, f->host, &o, &c), 0);
	drv_find(&f->d, f->m, 1);
	return &f->d;
}

static void write_port(struct fixture *f, unsigned q, const char *text)
{
	struct drv *d = &f->d;
	gpa_t a = drv_alloc(d, strlen(text));
	memcpy(drv_ptr(d, a), text, strlen(text));
	const struct seg s = {a, strlen(text), false};
	drv_add(d, q, &s, 1);
	drv_kick(d, q);
	fake_run(f->m);
}

static void control(struct fixture *f, u32 id, u16 event, u16 value)
{
	struct drv *d = &f->d;
	gpa_t a = drv_alloc(d, sizeof(struct virtio_console_control));
	*(struct virtio_console_control *)drv_ptr(d, a) =
	    (struct virtio_console_control){.id = id, .event = event, .value = value};
	const struct seg s = {a, sizeof(struct virtio_console_control), false};
	drv_add(d, 3, &s, 1);
	drv_kick(d, 3);
	fake_run(f->m);
}

static gpa_t give_buffer(struct drv *d, unsigned q, u32 len)
{
	gpa_t a = drv_alloc(d, len);
	const struct seg s = {a, len, true};
	drv_add(d, q, &s, 1);
	drv_kick(d, q);
	return a;
}

static size_t push(struct sink *s, const char *text)
{
	return s->base.sink->input(s->base.dev, (const u8 *)text, strlen(text));
}

static void console_single(void **state)
{
	struct fixture *f = *state;
	struct drv *d = console(f);
	struct vring_used_elem e;
	assert_int_equal(push(&f->s[0], "early"), 0);
	drv_start(d, MODERN | BIT64(VIRTIO_CONSOLE_F_SIZE), 2, 16, true);
	write_port(f, 1, "hello");
	assert_true(drv_used(d, 1, &e));
	assert_int_equal(e.len, 0);
	assert_memory_equal(f->s[0].out, "hello", 5);
	fake_run(f->m);
	assert_int_equal(f->s[0].resumes, 1); /* the driver is there: the early input may come again */
	gpa_t a = give_buffer(d, 0, 3), b = give_buffer(d, 0, 8);
	fake_run(f->m);
	assert_int_equal(push(&f->s[0], "0123456789abcdef"), 11);
	assert_memory_equal(drv_ptr(d, a), "012", 3);
	assert_memory_equal(drv_ptr(d, b), "3456789a", 8);
	give_buffer(d, 0, 8);
	fake_run(f->m);
	assert_int_equal(f->s[0].resumes, 2);
	assert_int_equal(push(&f->s[1], "x"), 0);
	f->s[0].base.sink->resized(f->s[0].base.dev, 100, 30);
	assert_int_equal(fake_msis(f->m, 0x40), 1);
	assert_int_equal(drv_config(d, 0, 4), 100 | 30 << 16);
	assert_int_equal(drv_config(d, 4, 4), 2);
	mmio_write(f->m, d->bar + d->device + 8, 4, 'E'); /* emergency write */
	assert_memory_equal(f->s[0].out, "helloE", 6);
}

static void console_backpressure(void **state)
{
	struct fixture *f = *state;
	struct drv *d = console(f);
	struct vring_used_elem e;
	drv_start(d, MODERN, 2, 16, true);
	f->s[0].room = 7;
	write_port(f, 1, "0123456789");
	write_port(f, 1, "abc");
	assert_false(drv_used(d, 1, &e));
	f->s[0].room = 11;
	f->s[0].base.sink->drained(f->s[0].base.dev);
	assert_true(drv_used(d, 1, &e));
	assert_false(drv_used(d, 1, &e));
	f->s[0].room = 100;
	f->s[0].base.sink->drained(f->s[0].base.dev);
	assert_true(drv_used(d, 1, &e));
	assert_memory_equal(f->s[0].out, "0123456789abc", 13);
	f->s[0].room = 13;
	write_port(f, 1, "lost by reset");
	drv_start(d, MODERN, 2, 16, true);
	f->s[0].room = 100;
	f->s[0].base.sink->drained(f->s[0].base.dev);
	assert_int_equal(f->s[0].n, 13);
	write_port(f, 1, "d");
	assert_int_equal(f->s[0].out[13], 'd');
}

static void expect_control(struct drv *d, gpa_t a, u32 id, u16 event, u16 value)
{
	struct vring_used_elem e;
	const struct virtio_console_control *c = drv_ptr(d, a);
	assert_true(drv_used(d, 2, &e));
	assert_true(e.len >= sizeof(*c));
	assert_int_equal(c->id, id);
	assert_int_equal(c->event, event);
	assert_int_equal(c->value, value);
}

static void console_ports(void **state)
{
	struct fixture *f = *state;
	struct drv *d = console(f);
	struct vring_used_elem e;
	gpa_t b[10];
	f->s[0].base.sink->resized(f->s[0].base.dev, 80, 25);
	drv_start(d, MODERN | BIT64(VIRTIO_CONSOLE_F_MULTIPORT), 6, 16, true);
	b[0] = give_buffer(d, 2, 64);
	control(f, 0xffffffff, VIRTIO_CONSOLE_DEVICE_READY, 1);
	expect_control(d, b[0], 0, VIRTIO_CONSOLE_PORT_ADD, 1);
	assert_false(drv_used(d, 2, &e)); /* no buffer: the rest waits */
	b[0] = give_buffer(d, 2, 64);
	fake_run(f->m);
	expect_control(d, b[0], 1, VIRTIO_CONSOLE_PORT_ADD, 1);
	for (int i = 0; i < 8; i++)
		b[i] = give_buffer(d, 2, 64);
	control(f, 0, VIRTIO_CONSOLE_PORT_READY, 1);
	expect_control(d, b[0], 0, VIRTIO_CONSOLE_CONSOLE_PORT, 1);
	expect_control(d, b[1], 0, VIRTIO_CONSOLE_PORT_OPEN, 1);
	expect_control(d, b[2], 0, VIRTIO_CONSOLE_RESIZE, 1);
	assert_int_equal(*(u16 *)drv_ptr(d, b[2] + 8), 25);
	assert_int_equal(*(u16 *)drv_ptr(d, b[2] + 10), 80);
	control(f, 1, VIRTIO_CONSOLE_PORT_READY, 1);
	expect_control(d, b[3], 1, VIRTIO_CONSOLE_PORT_NAME, 1);
	assert_memory_equal(drv_ptr(d, b[3] + 8), "org.example.0", 13);
	expect_control(d, b[4], 1, VIRTIO_CONSOLE_PORT_OPEN, 1);
	control(f, 77, VIRTIO_CONSOLE_PORT_READY, 1); /* no such port */
	control(f, 1, 999, 1);
	give_buffer(d, 4, 16);
	assert_int_equal(push(&f->s[1], "in"), 0); /* the guest has not opened it */
	control(f, 1, VIRTIO_CONSOLE_PORT_OPEN, 1);
	assert_int_equal(f->s[1].resumes, 1);
	assert_int_equal(push(&f->s[1], "in"), 2);
	assert_true(drv_used(d, 4, &e));
	assert_int_equal(e.len, 2);
	write_port(f, 5, "out");
	assert_memory_equal(f->s[1].out, "out", 3);
	f->s[1].base.sink->opened(f->s[1].base.dev, false);
	expect_control(d, b[5], 1, VIRTIO_CONSOLE_PORT_OPEN, 0);
	const struct seg tiny = {drv_alloc(d, 4), 4, false}; /* a truncated message */
	drv_add(d, 3, &tiny, 1);
	drv_kick(d, 3);
	fake_run(f->m);
	assert_int_equal(drv_status(d) & VIRTIO_CONFIG_S_NEEDS_RESET, 0);
}

/* What is written between opening and closing a port ends there, also when it cannot be written at once. */
static void console_jobs(void **state)
{
	struct fixture *f = *state;
	struct drv *d = console(f);
	struct sink *s = &f->s[1];
	drv_start(d, MODERN | BIT64(VIRTIO_CONSOLE_F_MULTIPORT), 6, 16, true);
	control(f, 1, VIRTIO_CONSOLE_PORT_OPEN, 1);
	write_port(f, 5, "one");
	control(f, 1, VIRTIO_CONSOLE_PORT_OPEN, 0);
	control(f, 1, VIRTIO_CONSOLE_PORT_OPEN, 0); /* it is closed already */
	assert_memory_equal(s->out, "one|", 4);
	s->room = 6;
	for (int i = 0; i < 3; i++) {
		control(f, 1, VIRTIO_CONSOLE_PORT_OPEN, 1);
		write_port(f, 5, "job");
		control(f, 1, VIRTIO_CONSOLE_PORT_OPEN, 0);
	}
	assert_int_equal(s->n, 6);
	s->room = 100;
	s->base.sink->drained(s->base.dev);
	assert_int_equal(s->n, 16);
	assert_memory_equal(s->out, "one|job|job|job|", 16);
	unsigned drops = s->drops;
	control(f, 1, VIRTIO_CONSOLE_PORT_OPEN, 1);
	write_port(f, 5, "half");
	drv_set_status(d, 0);
	assert_int_equal(s->drops, drops + 1);
	assert_int_equal(s->n, 20);
}

/* The driver resets the device, as Linux does before it powers off: what waits in the queue is written, with its ends. */
static void console_settles(void **state)
{
	struct fixture *f = *state;
	struct sink *s = &f->s[1];
	s->base.ops = &settling_ops;
	struct drv *d = console(f);
	drv_start(d, MODERN | BIT64(VIRTIO_CONSOLE_F_MULTIPORT), 6, 16, true);
	s->room = 2;
	for (int i = 0; i < 3; i++) {
		control(f, 1, VIRTIO_CONSOLE_PORT_OPEN, 1);
		write_port(f, 5, "job");
		control(f, 1, VIRTIO_CONSOLE_PORT_OPEN, 0);
	}
	control(f, 1, VIRTIO_CONSOLE_PORT_OPEN, 1);
	write_port(f, 5, "half");
	assert_int_equal(s->n, 2);
	unsigned drops = s->drops;
	drv_set_status(d, 0);
	assert_int_equal(s->n, 16);
	assert_memory_equal(s->out, "job|job|job|half", 16);
	assert_int_equal(s->drops, drops + 1); /* that one was not ended */
	assert_int_equal(s->settles, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(rng_fills, setup, teardown),
	    cmocka_unit_test_setup_teardown(negotiation, setup, teardown),
	    cmocka_unit_test_setup_teardown(broken_queue, setup, teardown),
	    cmocka_unit_test_setup_teardown(config_window, setup, teardown),
	    cmocka_unit_test_setup_teardown(blk_transfers, setup, teardown),
	    cmocka_unit_test_setup_teardown(blk_ranges, setup, teardown),
	    cmocka_unit_test_setup_teardown(blk_refusals, setup, teardown),
	    cmocka_unit_test_setup_teardown(blk_reset_in_flight, setup, teardown),
	    cmocka_unit_test_setup_teardown(blk_overcommit, setup, teardown),
	    cmocka_unit_test_setup_teardown(console_single, setup, teardown),
	    cmocka_unit_test_setup_teardown(console_backpressure, setup, teardown),
	    cmocka_unit_test_setup_teardown(console_ports, setup, teardown),
	    cmocka_unit_test_setup_teardown(console_jobs, setup, teardown),
	    cmocka_unit_test_setup_teardown(console_settles, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
