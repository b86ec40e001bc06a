/* UART, debug exit, keyboard controller, real-time clock. */
#include <setjmp.h>
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "backends/chardev.h"
#include "devices/cmos.h"
#include "devices/debug_exit.h"
#include "devices/i8042.h"
#include "devices/uart.h"
#include "fake_machine.h"

/* ---- a chardev that takes what it has room for ---- */
struct sink {
	struct chardev base;
	u8 out[4096];
	size_t n, room;
	unsigned resumes;
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

static void sink_attached(struct chardev *c) {}

static const struct chardev_ops sink_ops = {
    .write = sink_write, .resume = sink_resume, .attached = sink_attached};

struct fixture {
	struct machine *m;
	struct sink s;
};

enum { COM1 = 0x3f8, IRQ = 4 };

static int uart_setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct uart *u;
	f->m = fake_machine_new();
	f->s.base.ops = &sink_ops;
	f->s.room = sizeof(f->s.out);
	const struct uart_config c = {.port = COM1, .gsi = IRQ, .chardev = &f->s.base};
	assert_int_equal(uart_create(f->m, &c, &u), 0);
	*state = f;
	return 0;
}

static int plain_setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	f->m = fake_machine_new();
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	fake_machine_free(f->m);
	free(f);
	return 0;
}

static size_t push(struct fixture *f, const char *s)
{
	return f->s.base.sink->input(f->s.base.dev, (const u8 *)s, strlen(s));
}

static void uart_identity(void **state)
{
	struct fixture *f = *state;
	struct machine *m = f->m;
	out8(m, COM1 + 7, 0x5a);
	assert_int_equal(in8(m, COM1 + 7), 0x5a);
	out8(m, COM1 + 1, 0xff);
	assert_int_equal(in8(m, COM1 + 1), 0x0f);
	out8(m, COM1 + 1, 0);
	assert_int_equal(in8(m, COM1 + 2), 0x01); /* 16450 until the FIFO is on */
	out8(m, COM1 + 2, 1);
	assert_int_equal(in8(m, COM1 + 2), 0xc1); /* 16550A */
	out8(m, COM1 + 3, 0x83);
	out8(m, COM1, 1);
	out8(m, COM1 + 1, 2);
	assert_int_equal(in8(m, COM1), 1);
	assert_int_equal(in8(m, COM1 + 1), 2);
	out8(m, COM1 + 3, 3);
	assert_int_equal(in8(m, COM1 + 1), 0);
	assert_int_equal(in8(m, COM1 + 5), 0x60);
	assert_int_equal(in8(m, COM1 + 6), 0xb0);
	struct uart *u;
	const struct uart_config c = {.port = COM1, .gsi = IRQ};
	assert_int_equal(uart_create(m, &c, &u), -EBUSY);
}

static void uart_output(void **state)
{
	struct fixture *f = *state;
	struct machine *m = f->m;
	out8(m, COM1 + 4, 0x08);
	out8(m, COM1, 'a');
	assert_false(m->irq[IRQ]);
	out8(m, COM1 + 1, 0x02);
	assert_true(m->irq[IRQ]); /* enabling THRE while it is empty interrupts */
	assert_int_equal(in8(m, COM1 + 2) & 0x0f, 0x02);
	assert_false(m->irq[IRQ]);
	out8(m, COM1, 'b');
	assert_true(m->irq[IRQ]);
	assert_memory_equal(f->s.out, "ab", 2);
	out8(m, COM1 + 4, 0); /* without OUT2 no interrupt leaves the card */
	assert_false(m->irq[IRQ]);
}

static void uart_backpressure(void **state)
{
	struct fixture *f = *state;
	struct machine *m = f->m;
	f->s.room = 1;
	out8(m, COM1 + 2, 1);
	out8(m, COM1 + 4, 8);
	out8(m, COM1 + 1, 2);
	in8(m, COM1 + 2);
	out8(m, COM1, 'x');
	in8(m, COM1 + 2);
	for (int i = 0; i < 20; i++)
		out8(m, COM1, 'a' + i); /* 16 fit the FIFO */
	assert_int_equal(in8(m, COM1 + 5) & 0x60, 0);
	assert_false(m->irq[IRQ]);
	f->s.room = 100;
	f->s.base.sink->drained(f->s.base.dev);
	assert_int_equal(in8(m, COM1 + 5) & 0x60, 0x60);
	assert_true(m->irq[IRQ]);
	assert_int_equal(f->s.n, 17);
	assert_memory_equal(f->s.out, "xabcdefghijklmnop", 17);
}

static void uart_input(void **state)
{
	struct fixture *f = *state;
	struct machine *m = f->m;
	out8(m, COM1 + 2, 0x81); /* FIFO, trigger at 8 */
	out8(m, COM1 + 4, 8);
	out8(m, COM1 + 1, 1);
	assert_int_equal(push(f, "abc"), 3);
	assert_true(m->irq[IRQ]);
	assert_int_equal(in8(m, COM1 + 2) & 0x0f, 0x0c); /* below the trigger: time-out */
	assert_int_equal(push(f, "defghijklmnopqrst"), 13);
	assert_int_equal(in8(m, COM1 + 2) & 0x0f, 0x04);
	for (int i = 0; i < 16; i++) {
		assert_int_equal(in8(m, COM1 + 5) & 1, 1);
		assert_int_equal(in8(m, COM1), 'a' + i);
	}
	assert_int_equal(in8(m, COM1 + 5) & 1, 0);
	assert_false(m->irq[IRQ]);
	assert_int_equal(f->s.resumes, 1);
}

static void uart_loopback(void **state)
{
	struct fixture *f = *state;
	struct machine *m = f->m;
	out8(m, COM1 + 4, 0x1a); /* LOOP OUT2 RTS */
	assert_int_equal(in8(m, COM1 + 6) & 0xf0, 0x90);
	out8(m, COM1, 0x42);
	assert_int_equal(in8(m, COM1), 0x42);
	out8(m, COM1, 1);
	out8(m, COM1, 2);
	assert_int_equal(in8(m, COM1 + 5) & 2, 2); /* overrun */
	assert_int_equal(f->s.n, 0);
	assert_int_equal(push(f, "x"), 0);
	fake_reset(m);
	assert_int_equal(in8(m, COM1 + 4), 0);
	assert_int_equal(push(f, "x"), 1);
}

static void debug_exit_status(void **state)
{
	struct fixture *f = *state;
	struct debug_exit *d;
	const struct debug_exit_config c = {.port = 0xf4};
	assert_int_equal(debug_exit_create(f->m, &c, &d), 0);
	out32(f->m, 0xf4, 0x10);
	assert_int_equal(f->m->last_event, MACHINE_DEBUG_EXIT);
	assert_int_equal(f->m->last_code, 0x21);
	out8(f->m, 0xf4, 0);
	assert_int_equal(f->m->last_code, 1);
}

static void keyboard_controller(void **state)
{
	struct fixture *f = *state;
	struct machine *m = f->m;
	struct i8042 *k;
	assert_int_equal(i8042_create(m, &k), 0);
	assert_int_equal(in8(m, 0x64) & 1, 0);
	out8(m, 0x64, 0xaa);
	assert_int_equal(in8(m, 0x64) & 1, 1);
	assert_int_equal(in8(m, 0x60), 0x55);
	out8(m, 0x64, 0x60);
	out8(m, 0x60, 0x45);
	out8(m, 0x64, 0x20);
	assert_int_equal(in8(m, 0x60), 0x45);
	out8(m, 0x64, 0xd3);
	out8(m, 0x60, 0x5a);
	assert_int_not_equal(in8(m, 0x60), 0x5a); /* no auxiliary port */
	out8(m, 0x64, 0xd1);
	out8(m, 0x60, 0x03);
	assert_int_equal(m->requests, 0);
	out8(m, 0x64, 0xfe);
	assert_int_equal(m->requests, 1);
	assert_int_equal(m->last_event, MACHINE_RESET);
	out8(m, 0x92, in8(m, 0x92) | 2);
	assert_int_equal(m->requests, 1);
	out8(m, 0x92, 3);
	out8(m, 0x92, 3);
	assert_int_equal(m->requests, 2);
	for (int v = 0; v < 256; v++) { /* nothing hangs or crashes */
		out8(m, 0x64, v);
		out8(m, 0x60, v);
	}
}

/* ---- CMOS ---- */
static u64 test_now;
static u64 fake_now_ns(void *arg)
{
	return test_now;
}

static u8 cmos_get(struct machine *m, u8 r)
{
	out8(m, 0x70, r);
	return in8(m, 0x71);
}

static void cmos_put(struct machine *m, u8 r, u8 v)
{
	out8(m, 0x70, r);
	out8(m, 0x71, v);
}

static void make_cmos(struct machine *m)
{
	struct cmos *c;
	const struct cmos_config cfg = {
	    .ram_below_4g = 0xc0000000, .ram_above_4g = 0x40000000, .gsi = 8, .now_ns = fake_now_ns};
	test_now = 1709210096ull * 1000000000; /* 2024-02-29 12:34:56 UTC, a Thursday */
	assert_int_equal(cmos_create(m, &cfg, &c), 0);
}

static void cmos_time(void **state)
{
	struct fixture *f = *state;
	struct machine *m = f->m;
	make_cmos(m);
	static const u8 bcd[][2] = {{0, 0x56}, {2, 0x34}, {4, 0x12}, {6, 5},
				    {7, 0x29}, {8, 2},    {9, 0x24}, {0x32, 0x20}};
	for (size_t i = 0; i < ARRAY_SIZE(bcd); i++)
		assert_int_equal(cmos_get(m, bcd[i][0]), bcd[i][1]);
	cmos_put(m, 0x0b, 0x06); /* binary, 24 h */
	assert_int_equal(cmos_get(m, 0), 56);
	cmos_put(m, 0x0b, 0x04); /* 12 h */
	assert_int_equal(cmos_get(m, 4), 0x8c);
	test_now += 11 * 3600 * 1000000000ull + 26 * 60 * 1000000000ull;
	assert_int_equal(cmos_get(m, 4), 12); /* 00:00:56 is 12 AM */
	assert_int_equal(cmos_get(m, 7), 1);
	assert_int_equal(cmos_get(m, 8), 3);
	assert_int_equal(cmos_get(m, 0x0d), 0x80);
}

static void cmos_set_time(void **state)
{
	struct fixture *f = *state;
	struct machine *m = f->m;
	make_cmos(m);
	cmos_put(m, 0x0b, 0x82);
	static const u8 set[][2] = {{0, 0x01}, {2, 0x02}, {4, 0x23},   {7, 0x31},
				    {8, 0x12}, {9, 0x99}, {0x32, 0x19}};
	for (size_t i = 0; i < ARRAY_SIZE(set); i++)
		cmos_put(m, set[i][0], set[i][1]);
	test_now += 5000000000ull;
	assert_int_equal(cmos_get(m, 0), 0x01); /* stands still while SET */
	cmos_put(m, 0x0b, 0x02);
	test_now += 3600 * 1000000000ull;
	assert_int_equal(cmos_get(m, 9), 0x00);
	assert_int_equal(cmos_get(m, 0x32), 0x20);
	assert_int_equal(cmos_get(m, 7), 0x01);
	assert_int_equal(cmos_get(m, 4), 0x00);
	assert_int_equal(cmos_get(m, 0), 0x01);
	for (int r = 0; r < 128; r++) /* nonsense */
		cmos_put(m, r, 0xff);
	for (int r = 0; r < 128; r++)
		cmos_get(m, r);
	cmos_put(m, 0x0b, 0x02);
	for (int r = 0; r < 128; r++)
		cmos_get(m, r);
}

static void cmos_memory(void **state)
{
	struct fixture *f = *state;
	struct machine *m = f->m;
	make_cmos(m);
	assert_int_equal(cmos_get(m, 0x15) | cmos_get(m, 0x16) << 8, 640);
	assert_int_equal(cmos_get(m, 0x30) | cmos_get(m, 0x31) << 8, 0xffff);
	assert_int_equal(cmos_get(m, 0x34) | cmos_get(m, 0x35) << 8, 0xbf00);
	assert_int_equal(cmos_get(m, 0x5b) | cmos_get(m, 0x5c) << 8 | cmos_get(m, 0x5d) << 16, 0x4000);
	cmos_put(m, 0x0f, 0x0a);
	fake_reset(m);
	assert_int_equal(cmos_get(m, 0x8f), 0x0a); /* survives a reset; bit 7 of the index is not the RAM's */
}

static void cmos_flags(void **state)
{
	struct fixture *f = *state;
	struct machine *m = f->m;
	make_cmos(m);
	cmos_get(m, 0x0c);
	assert_int_equal(cmos_get(m, 0x0c), 0);
	assert_int_equal(cmos_get(m, 0x0a) & 0x80, 0);
	test_now += 999000000;
	assert_int_equal(cmos_get(m, 0x0a) & 0x80, 0x80); /* update in progress */
	test_now += 1000000;
	assert_int_equal(cmos_get(m, 0x0c), 0x10);
	cmos_put(m, 1, 0x05); /* alarm at any hour, 35:05 */
	cmos_put(m, 3, 0x35);
	cmos_put(m, 5, 0xff);
	test_now += 7 * 1000000000ull;
	assert_int_equal(cmos_get(m, 0x0c), 0x10);
	test_now += 3 * 1000000000ull;
	assert_int_equal(cmos_get(m, 0x0c), 0x30);
	assert_false(m->irq[8]);
}

static bool irq8(void *arg)
{
	return ((struct machine *)arg)->irq[8];
}

static void cmos_interrupts(void **state)
{
	struct fixture *f = *state;
	struct machine *m = f->m;
	make_cmos(m);
	cmos_put(m, 0x0a, 0x26); /* 1024 Hz */
	cmos_put(m, 0x0b, 0x42);
	assert_true(fake_run_until(m, irq8, m));
	assert_int_equal(cmos_get(m, 0x0c) & 0xc0, 0xc0);
	assert_false(m->irq[8]);
	assert_true(fake_run_until(m, irq8, m));
	cmos_put(m, 0x0b, 0x02);
	assert_false(m->irq[8]);
	test_now += 1500000000;
	cmos_get(m, 0x0c);
	test_now += 490000000;
	cmos_put(m, 0x0b, 0x12); /* update interrupt, in 10 ms */
	test_now += 20000000;
	assert_true(fake_run_until(m, irq8, m));
	fake_reset(m);
	assert_false(m->irq[8]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(uart_identity, uart_setup, teardown),
	    cmocka_unit_test_setup_teardown(uart_output, uart_setup, teardown),
	    cmocka_unit_test_setup_teardown(uart_backpressure, uart_setup, teardown),
	    cmocka_unit_test_setup_teardown(uart_input, uart_setup, teardown),
	    cmocka_unit_test_setup_teardown(uart_loopback, uart_setup, teardown),
	    cmocka_unit_test_setup_teardown(debug_exit_status, plain_setup, teardown),
	    cmocka_unit_test_setup_teardown(keyboard_controller, plain_setup, teardown),
	    cmocka_unit_test_setup_teardown(cmos_time, plain_setup, teardown),
	    cmocka_unit_test_setup_teardown(cmos_set_time, plain_setup, teardown),
	    cmocka_unit_test_setup_teardown(cmos_memory, plain_setup, teardown),
	    cmocka_unit_test_setup_teardown(cmos_flags, plain_setup, teardown),
	    cmocka_unit_test_setup_teardown(cmos_interrupts, plain_setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
