/* The ring alone: what a driver may do, and what a hostile one tries. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <linux/virtio_ring.h>

#include "devices/virtio.h"
#include "fake_machine.h"

enum { SIZE = 8 };
#define DESC     0x10000
#define AVAIL    0x20000
#define USED     0x30000
#define INDIRECT 0x40000
#define BUF      0x50000

struct ring {
	struct machine *m;
	struct virtq q;
	struct virtq_chain c;
};

static struct vring_desc *desc(struct ring *r, unsigned i)
{
	return (struct vring_desc *)(r->m->ram + DESC) + i;
}

static struct vring_desc *indirect(struct ring *r, unsigned i)
{
	return (struct vring_desc *)(r->m->ram + INDIRECT) + i;
}

static u16 *avail(struct ring *r)
{
	return (u16 *)(r->m->ram + AVAIL);
}

static u16 *used(struct ring *r)
{
	return (u16 *)(r->m->ram + USED);
}

static void offer(struct ring *r, u16 head)
{
	u16 *a = avail(r);
	a[2 + a[1] % SIZE] = head;
	a[1]++;
}

static void start(struct ring *r, bool event_idx)
{
	memset(r->m->ram + DESC, 0, 0x40000);
	virtq_reset(&r->q);
	r->q.size = SIZE;
	r->q.desc = DESC;
	r->q.avail = AVAIL;
	r->q.used = USED;
	assert_int_equal(virtq_enable(&r->q, event_idx), 0);
}

static int setup(void **state)
{
	struct ring *r = calloc(1, sizeof(*r));
	r->m = fake_machine_new();
	r->q = (struct virtq){.machine = r->m, .size_max = SIZE};
	start(r, false);
	*state = r;
	return 0;
}

static int teardown(void **state)
{
	struct ring *r = *state;
	fake_machine_free(r->m);
	free(r);
	return 0;
}

static void plain_chain(void **state)
{
	struct ring *r = *state;
	char buf[8];
	assert_int_equal(virtq_pop(&r->q, &r->c), 0);
	memcpy(r->m->ram + BUF, "head", 4);
	memcpy(r->m->ram + BUF + 0x100, "er", 2);
	*desc(r, 3) = (struct vring_desc){BUF, 4, VRING_DESC_F_NEXT, 5};
	*desc(r, 5) = (struct vring_desc){BUF + 0x100, 2, VRING_DESC_F_NEXT, 0};
	*desc(r, 0) = (struct vring_desc){BUF + 0x200, 3, VRING_DESC_F_NEXT | VRING_DESC_F_WRITE, 1};
	*desc(r, 1) = (struct vring_desc){FAKE_HIGH, 5, VRING_DESC_F_WRITE, 0};
	offer(r, 3);
	assert_int_equal(virtq_pop(&r->q, &r->c), 1);
	assert_int_equal(r->c.n_out, 2);
	assert_int_equal(r->c.n_in, 2);
	assert_int_equal(r->c.out_bytes, 6);
	assert_int_equal(r->c.in_bytes, 8);
	assert_true(chain_read(&r->c, 0, buf, 6));
	assert_memory_equal(buf, "header", 6);
	assert_true(chain_read(&r->c, 3, buf, 2));
	assert_memory_equal(buf, "de", 2);
	assert_false(chain_read(&r->c, 0, buf, 7));
	assert_false(chain_read(&r->c, UINT64_MAX, buf, 2));
	assert_true(chain_write(&r->c, 1, "abcdefg", 7));
	assert_false(chain_write(&r->c, 1, "abcdefgh", 8));
	assert_memory_equal(r->m->ram + BUF + 0x201, "ab", 2);
	assert_memory_equal(r->m->high, "cdefg", 5);
	struct iovec iov[VIRTQ_SIZE_MAX];
	assert_int_equal(chain_slice(&r->c, true, 2, 4, iov), 2);
	assert_int_equal(iov[0].iov_len, 1);
	assert_int_equal(iov[1].iov_len, 3);
	assert_int_equal(chain_slice(&r->c, true, 3, 5, iov), 1);
	assert_int_equal(chain_slice(&r->c, true, 3, 6, iov), 0);
	r->m->written = 0;
	virtq_push(&r->q, &r->c, 8);
	assert_int_equal(r->m->written, 8 + 8 + 2); /* buffers, used element, used index */
	assert_int_equal(used(r)[1], 1);
	assert_int_equal(*(u32 *)(used(r) + 2), 3);
	assert_int_equal(*(u32 *)(used(r) + 4), 8);
	assert_true(virtq_wants_interrupt(&r->q));
	avail(r)[0] = VRING_AVAIL_F_NO_INTERRUPT;
	assert_false(virtq_wants_interrupt(&r->q));
	assert_int_equal(virtq_pop(&r->q, &r->c), 0);
}

static void indirect_chain(void **state)
{
	struct ring *r = *state;
	for (int i = 0; i < SIZE; i++)
		*indirect(r, i) = (struct vring_desc){
		    BUF + 16 * i, 16,
		    (i < SIZE - 1 ? VRING_DESC_F_NEXT : 0) | (i >= 2 ? VRING_DESC_F_WRITE : 0), i + 1};
	*desc(r, 7) = (struct vring_desc){INDIRECT, SIZE * 16, VRING_DESC_F_INDIRECT, 0};
	offer(r, 7);
	assert_int_equal(virtq_pop(&r->q, &r->c), 1);
	assert_int_equal(r->c.n_out, 2);
	assert_int_equal(r->c.n_in, SIZE - 2);
	assert_int_equal(r->c.head, 7);
}

static void many_rounds(void **state)
{
	struct ring *r = *state;
	start(r, true);
	for (int i = 0; i < 70000; i++) { /* indices wrap at 65536 */
		*desc(r, i % SIZE) = (struct vring_desc){BUF, 4, VRING_DESC_F_WRITE, 0};
		offer(r, i % SIZE);
		assert_int_equal(virtq_pop(&r->q, &r->c), 1);
		assert_int_equal(r->c.head, i % SIZE);
		virtq_push(&r->q, &r->c, 4);
		assert_int_equal(used(r)[1], (u16)(i + 1));
		assert_int_equal(virtq_pop(&r->q, &r->c), 0);
	}
}

static void event_index(void **state)
{
	struct ring *r = *state;
	start(r, true);
	u16 *used_event = avail(r) + 2 + SIZE;
	u16 *avail_event = used(r) + 2 + 4 * SIZE;
	*desc(r, 0) = (struct vring_desc){BUF, 4, VRING_DESC_F_WRITE, 0};
	*used_event = 2; /* wake me when the third has been used */
	for (int i = 0; i < 4; i++) {
		assert_false(virtq_listen(&r->q));
		assert_int_equal(*avail_event, i);
		offer(r, 0);
		assert_true(virtq_listen(&r->q));
		assert_int_equal(virtq_pop(&r->q, &r->c), 1);
		virtq_push(&r->q, &r->c, 4);
		bool wants = virtq_wants_interrupt(&r->q);
		if (i > 0) /* the first decision after a reset is always yes */
			assert_int_equal(wants, i == 2);
	}
	start(r, false);
	virtq_quiet(&r->q);
	assert_int_equal(used(r)[0], VRING_USED_F_NO_NOTIFY);
	assert_false(virtq_listen(&r->q));
	assert_int_equal(used(r)[0], 0);
}

static void bad_tables(void **state)
{
	struct ring *r = *state;
	static const struct {
		gpa_t desc, avail, used;
		u16 size;
		int want;
	} t[] = {
	    {DESC, AVAIL, USED, 0, -EINVAL},
	    {DESC, AVAIL, USED, 3, -EINVAL},
	    {DESC, AVAIL, USED, 16, -EINVAL},
	    {DESC + 8, AVAIL, USED, 8, -EINVAL},
	    {DESC, AVAIL + 1, USED, 8, -EINVAL},
	    {DESC, AVAIL, USED + 2, 8, -EINVAL},
	    {FAKE_RAM, AVAIL, USED, 8, -EFAULT},
	    {FAKE_RAM - 16, AVAIL, USED, 8, -EFAULT},
	    {DESC, 0xfffffffffffffff0ull, USED, 8, -EFAULT},
	    {DESC, AVAIL, FAKE_RAM - 4, 8, -EFAULT},
	    {DESC, AVAIL, FAKE_HIGH + FAKE_HIGH_RAM - 4, 8, -EFAULT},
	};
	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		virtq_reset(&r->q);
		r->q.desc = t[i].desc;
		r->q.avail = t[i].avail;
		r->q.used = t[i].used;
		r->q.size = t[i].size;
		assert_int_equal(virtq_enable(&r->q, true), t[i].want);
		assert_false(r->q.enabled);
		assert_int_equal(virtq_pop(&r->q, &r->c), 0);
	}
}

/* Each: up to three descriptors of the table (0 offered) and two of an indirect one; all must break the
 * queue. */
static const struct hostile {
	const char *name;
	struct vring_desc d[3], ind[2];
	u16 head;
	u16 extra; /* added to the available index */
} hostile[] = {
    {.name = "head outside the table", .head = SIZE},
    {.name = "head far outside", .head = 0xffff},
    {.name = "loop to itself", .d = {{BUF, 1, VRING_DESC_F_NEXT, 0}}},
    {.name = "loop of two", .d = {{BUF, 1, VRING_DESC_F_NEXT, 1}, {BUF, 1, VRING_DESC_F_NEXT, 0}}},
    {.name = "next outside", .d = {{BUF, 1, VRING_DESC_F_NEXT, SIZE}}},
    {.name = "empty descriptor", .d = {{BUF, 0, 0, 0}}},
    {.name = "readable after writable",
     .d = {{BUF, 1, VRING_DESC_F_WRITE | VRING_DESC_F_NEXT, 1}, {BUF, 1, 0, 0}}},
    {.name = "outside RAM", .d = {{FAKE_RAM, 1, 0, 0}}},
    {.name = "end outside RAM", .d = {{FAKE_RAM - 1, 2, 0, 0}}},
    {.name = "address wraps", .d = {{UINT64_MAX, 2, 0, 0}}},
    {.name = "longest length", .d = {{BUF, 0xffffffff, 0, 0}}},
    {.name = "more available than the queue holds", .d = {{BUF, 1, 0, 0}}, .extra = SIZE},
    {.name = "indirect and next",
     .d = {{INDIRECT, 16, VRING_DESC_F_INDIRECT | VRING_DESC_F_NEXT, 1}, {BUF, 1, 0, 0}},
     .ind = {{BUF, 1, 0, 0}}},
    {.name = "empty indirect table", .d = {{INDIRECT, 0, VRING_DESC_F_INDIRECT, 0}}},
    {.name = "odd indirect table", .d = {{INDIRECT, 24, VRING_DESC_F_INDIRECT, 0}}, .ind = {{BUF, 1, 0, 0}}},
    {.name = "indirect table longer than the queue",
     .d = {{INDIRECT, 16 * (SIZE + 1), VRING_DESC_F_INDIRECT, 0}},
     .ind = {{BUF, 1, 0, 0}}},
    {.name = "indirect table outside RAM", .d = {{FAKE_RAM - 16, 32, VRING_DESC_F_INDIRECT, 0}}},
    {.name = "nested indirect",
     .d = {{INDIRECT, 32, VRING_DESC_F_INDIRECT, 0}},
     .ind = {{INDIRECT, 32, VRING_DESC_F_INDIRECT, 0}}},
    {.name = "next outside the indirect table",
     .d = {{INDIRECT, 16, VRING_DESC_F_INDIRECT, 0}},
     .ind = {{BUF, 1, VRING_DESC_F_NEXT, 1}}},
    {.name = "loop in the indirect table",
     .d = {{INDIRECT, 32, VRING_DESC_F_INDIRECT, 0}},
     .ind = {{BUF, 1, VRING_DESC_F_NEXT, 1}, {BUF, 1, VRING_DESC_F_NEXT, 0}}},
    {.name = "loop through an indirect tail",
     .d = {{BUF, 1, VRING_DESC_F_NEXT, 1}, {INDIRECT, 32, VRING_DESC_F_INDIRECT, 0}},
     .ind = {{BUF, 1, VRING_DESC_F_NEXT, 0}}},
};

static void hostile_drivers(void **state)
{
	struct ring *r = *state;
	for (size_t i = 0; i < ARRAY_SIZE(hostile); i++) {
		const struct hostile *h = &hostile[i];
		start(r, i & 1);
		memcpy(desc(r, 0), h->d, sizeof(h->d));
		memcpy(indirect(r, 0), h->ind, sizeof(h->ind));
		offer(r, h->head);
		avail(r)[1] += h->extra;
		int got = virtq_pop(&r->q, &r->c);
		if (got != -EIO)
			print_error("%s: %d\n", h->name, got);
		assert_int_equal(got, -EIO);
		assert_true(r->q.broken);
		assert_int_equal(virtq_pop(&r->q, &r->c), 0);
		assert_false(virtq_listen(&r->q));
		assert_int_equal(used(r)[1], 0);
	}
}

/* Memory that the guest has and devices do not: the chain fails, if the device knows what to do with it, and not the queue. */
static void windows(void **state)
{
	struct ring *r = *state;
	const gpa_t window = 1ull << 40;
	u8 b[16] = {1};
	struct iovec iov[4];

	r->m->mem.windows.gpa = window;
	r->m->mem.windows.size = 0x10000;
	for (unsigned i = 0; i < 4; i++) {
		const gpa_t at[] = {window + 0x100, window + 0xfff8, window - 8, ~0ull - 8};

		start(r, false);
		r->q.tolerant = true;
		*desc(r, 0) = (struct vring_desc){BUF, 16, VRING_DESC_F_NEXT, 1};
		*desc(r, 1) = (struct vring_desc){at[i], 16, VRING_DESC_F_NEXT | VRING_DESC_F_WRITE, 2};
		*desc(r, 2) = (struct vring_desc){BUF + 64, 16, VRING_DESC_F_WRITE, 0};
		offer(r, 0);
		assert_int_equal(virtq_pop(&r->q, &r->c), i ? -EIO : 1); /* only if all of a descriptor lies there */
	}
	start(r, false);
	*desc(r, 0) = (struct vring_desc){BUF, 16, VRING_DESC_F_NEXT, 1};
	*desc(r, 1) = (struct vring_desc){window, 16, VRING_DESC_F_NEXT | VRING_DESC_F_WRITE, 2};
	*desc(r, 2) = (struct vring_desc){BUF + 64, 16, VRING_DESC_F_WRITE, 0};
	offer(r, 0);
	r->q.tolerant = false;
	assert_int_equal(virtq_pop(&r->q, &r->c), -EIO);
	r->q.tolerant = true;
	start(r, false);
	assert_true(r->q.tolerant); /* a reset changes nothing of that */
	*desc(r, 0) = (struct vring_desc){BUF, 16, VRING_DESC_F_NEXT, 1};
	*desc(r, 1) = (struct vring_desc){window, 16, VRING_DESC_F_NEXT | VRING_DESC_F_WRITE, 2};
	*desc(r, 2) = (struct vring_desc){BUF + 64, 16, VRING_DESC_F_WRITE, 0};
	offer(r, 0);
	assert_int_equal(virtq_pop(&r->q, &r->c), 1);
	assert_true(r->c.unreachable && r->c.in_bytes == 32 && r->c.out_bytes == 16);
	assert_true(chain_read(&r->c, 0, b, 16));
	assert_false(chain_write(&r->c, 0, b, 1));
	assert_false(chain_write(&r->c, 15, b, 2));
	assert_true(chain_write(&r->c, 31, b, 1)); /* a status behind it */
	assert_int_equal(chain_slice(&r->c, true, 0, 32, iov), 0);
	virtq_push(&r->q, &r->c, 1);
	*desc(r, 1) = (struct vring_desc){BUF + 32, 16, VRING_DESC_F_NEXT | VRING_DESC_F_WRITE, 2};
	offer(r, 0);
	assert_int_equal(virtq_pop(&r->q, &r->c), 1);
	assert_false(r->c.unreachable);
}

static void total_bytes(void **state)
{
	struct ring *r = *state;
	u8 *big = r->m->ram;
	r->m->mem.slot[0].size = 0xf0000000; /* never touched: only the arithmetic is */
	for (int i = 0; i < 2; i++)
		*desc(r, i) = (struct vring_desc){0, 0x80000000, i ? 0 : VRING_DESC_F_NEXT, 1};
	offer(r, 0);
	assert_int_equal(virtq_pop(&r->q, &r->c), -EIO);
	r->m->mem.slot[0].size = FAKE_RAM;
	assert_ptr_equal(big, r->m->ram);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(plain_chain, setup, teardown),
	    cmocka_unit_test_setup_teardown(indirect_chain, setup, teardown),
	    cmocka_unit_test_setup_teardown(many_rounds, setup, teardown),
	    cmocka_unit_test_setup_teardown(event_index, setup, teardown),
	    cmocka_unit_test_setup_teardown(bad_tables, setup, teardown),
	    cmocka_unit_test_setup_teardown(hostile_drivers, setup, teardown),
	    cmocka_unit_test_setup_teardown(windows, setup, teardown),
	    cmocka_unit_test_setup_teardown(total_bytes, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
