/* The bus splits, widens, bounds; guest memory refuses whole or not at all. */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>
#include "devices/bus.h"
#include "fake_guest.h"

struct dev {
	u8 reg[16];
	u32 accesses;
	unsigned sizes[16];
};

static u64 dev_read(void *dev, u64 offset, unsigned size)
{
	struct dev *d = dev;
	u64 v = 0;

	assert_true(offset + size <= sizeof(d->reg));
	assert_int_equal(offset % size, 0);
	d->sizes[d->accesses++ % 16] = size;
	memcpy(&v, d->reg + offset, size);
	return v | (size < 8 ? ~0ull << size * 8 : 0); /* rubbish above the size: the bus must cut it */
}

static void dev_write(void *dev, u64 offset, unsigned size, u64 v)
{
	struct dev *d = dev;

	assert_true(offset + size <= sizeof(d->reg));
	d->sizes[d->accesses++ % 16] = size;
	memcpy(d->reg + offset, &v, size);
}

static const struct region_ops ops = {.read = dev_read, .write = dev_write};

static void split_and_widen(void **state)
{
	struct bus *b = bus_new();
	struct dev d = {0};
	struct region r = {.name = "d", .base = 0x100, .size = 16, .min_size = 2, .max_size = 4, .ops = &ops, .dev = &d,
			   .enabled = true};
	u64 v = 0x1122334455667788;

	assert_int_equal(bus_add(b, &r), 0);
	bus_write(b, 0x100, &v, 8); /* two of four */
	assert_int_equal(d.accesses, 2);
	assert_int_equal(d.sizes[0], 4);
	v = 0;
	bus_read(b, 0x100, &v, 8);
	assert_int_equal(v, 0x1122334455667788);
	v = 0xaa;
	bus_write(b, 0x101, &v, 1); /* read, merge, write of two bytes */
	assert_int_equal(d.reg[0], 0x88);
	assert_int_equal(d.reg[1], 0xaa);
	v = 0;
	bus_read(b, 0x101, &v, 4); /* unaligned: never misaligned for the handler */
	assert_int_equal(v, 0x445566aa);
	bus_free(b);
}

static void holes_and_ends(void **state)
{
	struct bus *b = bus_new();
	struct dev d = {0};
	struct region r = {.name = "d", .base = 0x100, .size = 16, .min_size = 1, .max_size = 8, .ops = &ops, .dev = &d,
			   .enabled = true},
		      top = r;
	u8 buf[8];

	assert_int_equal(bus_add(b, &r), 0);
	bus_read(b, 0xfc, buf, 8);
	assert_memory_equal(buf, "\xff\xff\xff\xff\0\0\0\0", 8);
	bus_read(b, 0x10c, buf, 8);
	assert_memory_equal(buf, "\0\0\0\0\xff\xff\xff\xff", 8);
	bus_write(b, 0x10c, buf, 8);
	assert_int_equal(bus_add(b, &top), -EBUSY);
	top.base = UINT64_MAX - 15;
	assert_int_equal(bus_add(b, &top), 0);
	bus_read(b, UINT64_MAX - 3, buf, 8); /* wraps to address 0: nobody there */
	top.base = UINT64_MAX - 7;
	assert_int_equal(bus_add(b, &top), -EINVAL);
	r.enabled = false;
	bus_read(b, 0x100, buf, 1);
	assert_int_equal(buf[0], 0xff);
	bus_del(b, &r);
	bus_free(b);
}

static void count(void *arg)
{
	++*(int *)arg;
}

/* What the engine is told of the ports: the map follows regions as they come, move and go. */
static void free_map(void **state)
{
	struct bus *b = bus_new();
	struct region bar = {.name = "bar", .base = 0x1008, .size = 16, .min_size = 1, .max_size = 4, .ops = &ops},
		      beyond = {.name = "beyond", .base = 0xfffa, .size = 0x100, .min_size = 1, .max_size = 4, .ops = &ops};
	u8 map[8192], all[8192];
	int changes = 0;

	memset(all, 0xff, sizeof(all));
	bus_watch(b, count, &changes);
	bus_free_map(b, map, 65536);
	assert_memory_equal(map, all, sizeof(map));
	assert_int_equal(bus_add(b, &bar), 0); /* not enabled: claimed all the same */
	assert_int_equal(bus_add(b, &beyond), 0);
	assert_int_equal(bus_add(b, &bar), -EBUSY);
	assert_int_equal(changes, 2);
	bus_free_map(b, map, 65536);
	assert_memory_equal(map + 0x200, "\xff\0\0\xff", 4);
	assert_int_equal(map[8191], 0x03);
	bus_del(b, &bar);
	bar.base = 0x81;
	bar.size = 3;
	assert_int_equal(bus_add(b, &bar), 0);
	bus_free_map(b, map, 65536);
	assert_memory_equal(map + 0x200, all, 4);
	assert_int_equal(map[0x10], 0xf1);
	bus_del(b, &beyond);
	bus_del(b, &bar);
	assert_int_equal(changes, 6);
	bus_free_map(b, map, 65536);
	assert_memory_equal(map, all, sizeof(map));
	bus_watch(b, NULL, NULL);
	bus_free(b);
}

static void guest_memory(void **state)
{
	struct machine m;
	u8 buf[64] = {1};

	assert_int_equal(fake_guest_init(&m, 5ull << 30), 0);
	assert_true(guest_write(&m, 0, buf, sizeof(buf)));
	assert_false(guest_write(&m, m.map.low - 8, buf, sizeof(buf)));
	assert_int_equal(m.ram.slot[0].host[m.map.low - 8], 0);
	assert_false(guest_read(&m, UINT64_MAX - 8, buf, sizeof(buf)));
	assert_null(guest_ptr(&m, MEM_4G - 1, 2));
	assert_non_null(guest_ptr(&m, MEM_4G, 1ull << 30));
	assert_null(guest_ptr(&m, MEM_4G, UINT64_MAX));
	fake_guest_free(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(split_and_widen), cmocka_unit_test(holes_and_ends),
					   cmocka_unit_test(free_map),
					   cmocka_unit_test(guest_memory)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
