/* The gdb server's packets on a machine made of memory; the screen. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include "debug/gdb.h"
#include "debug/screen.h"

struct fake {
	struct guestmem ram;
	u8 memory[0x4000];
	struct cpu_state cpu[2];
	struct kvm_guest_debug debug[2];
	u64 going;
	struct gdb *g;
};

static void fake_stop(void *arg)
{
	((struct fake *)arg)->going = 0;
}

static void fake_go(void *arg, u64 cpus)
{
	((struct fake *)arg)->going = cpus;
}

static void fake_kill(void *arg) {}

static int fake_get(void *arg, u32 cpu, struct cpu_state *c)
{
	*c = ((struct fake *)arg)->cpu[cpu];
	return 0;
}

static int fake_set(void *arg, u32 cpu, const struct cpu_state *c, u32 parts)
{
	((struct fake *)arg)->cpu[cpu] = *c;
	return 0;
}

static int fake_debug(void *arg, u32 cpu, const struct kvm_guest_debug *d)
{
	((struct fake *)arg)->debug[cpu] = *d;
	return 0;
}

static struct fake *start(void)
{
	struct fake *f = calloc(1, sizeof(*f));
	struct gdb_target t = {.arg = f, .ncpus = 2, .ram = &f->ram, .debug_flags = KVM_GUESTDBG_BLOCKIRQ, .stop = fake_stop, .go = fake_go,
			       .kill = fake_kill, .get = fake_get, .set = fake_set, .set_debug = fake_debug};

	assert_non_null(f);
	f->ram.nslots = 1;
	f->ram.slot[0].size = sizeof(f->memory);
	f->ram.slot[0].host = f->memory;
	memset(f->memory, 0x90, sizeof(f->memory));
	f->cpu[0].s.cr0 = f->cpu[1].s.cr0 = 1;
	f->cpu[0].s.cs.db = f->cpu[1].s.cs.db = 1;
	f->g = gdb_new(&t);
	f->going = 3;
	gdb_attach(f->g);
	assert_int_equal(f->going, 0);
	return f;
}

static void end(struct fake *f)
{
	gdb_free(f->g);
	free(f);
}

/* What the server says to these bytes. */
static const char *raw(struct fake *f, const char *bytes, size_t n)
{
	static char answer[40000];
	const char *p = NULL;

	gdb_input(f->g, (const u8 *)bytes, n);
	p = gdb_output(f->g, &n);
	assert_true(n < sizeof(answer));
	if (n)
		memcpy(answer, p, n);
	answer[n] = 0;
	gdb_output_taken(f->g, n);
	return answer;
}

/* The packet's answer without its frame; "" also for none. */
static const char *ask(struct fake *f, const char *text)
{
	static char out[40000];
	char packet[2000];
	u8 sum = 0;
	char *p = NULL, *hash = NULL;

	for (const char *c = text; *c; c++)
		sum += (u8)*c;
	snprintf(packet, sizeof(packet), "$%s#%02x", text, sum);
	snprintf(out, sizeof(out), "%s", raw(f, packet, strlen(packet)));
	p = strrchr(out, '$');
	if (!p)
		return "";
	hash = strchr(p, '#');
	assert_non_null(hash);
	*hash = 0;
	return p + 1;
}

static void frames(void **state)
{
	struct fake *f = start();

	assert_string_equal(raw(f, "$?#3f", 5), "+$T05thread:1;#d7");
	assert_string_equal(raw(f, "-", 1), "$T05thread:1;#d7");
	assert_string_equal(raw(f, "$?#40", 5), "-");
	assert_string_equal(raw(f, "+++$vMustReplyEmpty#3a", 22), "+$#00");
	assert_string_equal(raw(f, "\003", 1), ""); /* it is stopped */
	assert_string_equal(ask(f, "QStartNoAckMode"), "OK");
	assert_string_equal(raw(f, "$?#3f", 5), "$T05thread:1;#d7");
	assert_string_equal(ask(f, "m0,100000000000000000"), "E16");
	assert_string_equal(ask(f, "Hg3"), "E16");
	end(f);
}

static void memory(void **state)
{
	struct fake *f = start();

	assert_string_equal(ask(f, "M1000,3:010203"), "OK");
	assert_string_equal(ask(f, "m1000,4"), "01020390");
	assert_string_equal(ask(f, "X1001,2:}\x03}]"), "OK"); /* '#' and '}' escaped */
	assert_string_equal(ask(f, "m1000,4"), "01237d90");
	assert_string_equal(ask(f, "m3fff,2"), "90"); /* what is there */
	assert_string_equal(ask(f, "m4000,1"), "E0e");
	/* breakpoints are not seen, and survive being written over */
	assert_string_equal(ask(f, "Z0,1001,1"), "OK");
	assert_string_equal(ask(f, "Z0,1001,1"), "OK");
	assert_int_equal(f->memory[0x1001], 0xcc);
	assert_string_equal(ask(f, "m1000,3"), "01237d");
	assert_string_equal(ask(f, "M1000,3:aabbcc"), "OK");
	assert_int_equal(f->memory[0x1001], 0xcc);
	assert_string_equal(ask(f, "m1000,3"), "aabbcc");
	assert_string_equal(ask(f, "z0,1001,1"), "OK");
	assert_int_equal(f->memory[0x1001], 0xbb);
	/* the guest has put the page to another use */
	assert_string_equal(ask(f, "Z0,1001,1"), "OK");
	f->memory[0x1001] = 0x55;
	assert_string_equal(ask(f, "z0,1001,1"), "OK");
	assert_int_equal(f->memory[0x1001], 0x55);
	end(f);
}

static void debug_registers(void **state)
{
	struct fake *f = start();

	assert_string_equal(ask(f, "Z1,1234,1"), "OK");
	assert_string_equal(ask(f, "Z2,2001,7"), "OK"); /* 1 + 2 + 4 bytes */
	assert_string_equal(ask(f, "Z4,3000,1"), "E1c");
	assert_string_equal(ask(f, "vCont;c"), "");
	assert_int_equal(f->going, 3);
	assert_int_equal(f->debug[1].control, KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP);
	assert_int_equal(f->debug[1].arch.debugreg[0], 0x1234);
	assert_int_equal(f->debug[1].arch.debugreg[1], 0x2001);
	assert_int_equal(f->debug[1].arch.debugreg[2], 0x2002);
	assert_int_equal(f->debug[1].arch.debugreg[3], 0x2004);
	assert_int_equal(f->debug[1].arch.debugreg[7] & 0xffff00ff, 0xd51000aa);
	end(f);
}

static void exits(void **state)
{
	struct fake *f = start();
	struct gdb_exit e[GDB_CPUS_MAX] = {0};

	ask(f, "qSupported:swbreak+;hwbreak+");
	ask(f, "Z0,1000,1");
	ask(f, "Z2,2000,4");
	ask(f, "Hg2"); /* its turn comes last */
	ask(f, "vCont;c");
	/* both at once: the breakpoint is told, the watchpoint kept */
	f->going = 0;
	e[0] = (struct gdb_exit){.valid = true, .a = {.exception = 3, .pc = 0x1000}};
	e[1] = (struct gdb_exit){.valid = true, .a = {.exception = 1, .pc = 0x1500, .dr6 = 1}};
	gdb_exits(f->g, e);
	assert_non_null(strstr(raw(f, "", 0), "$T05thread:1;swbreak:;#"));
	assert_string_equal(ask(f, "vCont;s:1;c"), "T05thread:2;watch:2000;");
	assert_int_equal(f->going, 0);
	/* an INT3 of the guest's own goes back to it */
	ask(f, "vCont;c");
	f->going = 0;
	memset(e, 0, sizeof(e));
	e[1] = (struct gdb_exit){.valid = true, .a = {.exception = 3, .pc = 0x1800}};
	gdb_exits(f->g, e);
	assert_string_equal(raw(f, "", 0), "");
	assert_int_equal(f->going, 3);
	assert_true(f->debug[1].control & KVM_GUESTDBG_INJECT_BP);
	/* a step, and a step over a range */
	assert_string_equal(raw(f, "\003", 1), "$T02thread:1;#d4");
	ask(f, "vCont;r1000,1008:2");
	assert_int_equal(f->going, 2);
	assert_true(f->debug[1].control & KVM_GUESTDBG_SINGLESTEP && f->debug[1].control & KVM_GUESTDBG_BLOCKIRQ);
	e[1] = (struct gdb_exit){.valid = true, .a = {.exception = 1, .dr6 = 0x4000}};
	f->cpu[1].r.rip = 0x1004;
	f->going = 0;
	gdb_exits(f->g, e);
	assert_int_equal(f->going, 2);
	f->cpu[1].r.rip = 0x1008;
	f->going = 0;
	gdb_exits(f->g, e);
	assert_non_null(strstr(raw(f, "", 0), "T05thread:2;#"));
	assert_int_equal(f->going, 0);
	/* leaving takes the breakpoints along */
	assert_string_equal(ask(f, "D"), "OK");
	assert_int_equal(f->memory[0x1000], 0x90);
	assert_int_equal(f->going, 3);
	assert_int_equal(f->debug[0].control | f->debug[1].control, 0);
	end(f);
}

static void registers(void **state)
{
	struct fake *f = start();
	const char *g = NULL;

	f->cpu[0].s.cr0 = 0; /* real mode */
	f->cpu[0].s.cs.base = 0xffff0000;
	f->cpu[0].r.rip = 0xfff0;
	assert_string_equal(ask(f, "p10"), "f0ff" "ffff00000000");
	assert_string_equal(ask(f, "P10=f1ffffff00000000"), "OK");
	assert_int_equal(f->cpu[0].r.rip, 0xfff1);
	assert_string_equal(ask(f, "P7=1000000000000000"), "OK");
	assert_int_equal(f->cpu[0].r.rsp, 16);
	g = ask(f, "g");
	assert_int_equal(strlen(g), 2 * 864);
	assert_string_equal(ask(f, "P18=00000000000000e0ff3f"), "OK"); /* st0 */
	assert_string_equal(ask(f, "p18"), "00000000000000e0ff3f");
	assert_string_equal(ask(f, "P29=000102030405060708090a0b0c0d0e0f"), "OK"); /* xmm1 */
	assert_string_equal(ask(f, "p29"), "000102030405060708090a0b0c0d0e0f");
	assert_string_equal(ask(f, "p1000"), "E16");
	end(f);
}

/* ---- screen ---- */
static void shows(const char *text, u32 row, const char *line, u32 cursor_row, u32 cursor_column)
{
	char buf[4 * SCREEN_COLUMNS + 1];
	struct screen s;

	screen_init(&s);
	screen_feed(&s, (const u8 *)text, strlen(text));
	screen_line(&s, row, buf);
	assert_string_equal(buf, line);
	assert_int_equal(s.row, cursor_row);
	assert_int_equal(s.column, cursor_column);
}

static void screen(void **state)
{
	char wide[82];

	shows("hello\r\nworld", 1, "world", 1, 5);
	shows("a\tb\bc\x1b[31mred\x1b[0m", 0, "a       cred", 0, 12);
	shows("\x1b[3;5Hx\x1b[1A\x1b[2Dy", 1, "   y", 1, 4);
	shows("abcdef\x1b[1;3H\x1b[K", 0, "ab", 0, 2);
	shows("abcdef\x1b[1;3H\x1b[2P", 0, "abef", 0, 2);
	shows("abcdef\x1b[1;3H\x1b[2@", 0, "ab  cdef", 0, 2);
	shows("one\r\ntwo\r\nthree\x1b[2;1H\x1b[M", 1, "three", 1, 0);
	shows("one\r\ntwo\x1b[1;1H\x1b[L", 1, "one", 0, 0);
	shows("\x1b]0;a title\007text\x1b(B!", 0, "text!", 0, 5);
	shows("gr\xc3\xbc\xc3\x9f \xe2\x82\xac", 0, "gr\xc3\xbc\xc3\x9f \xe2\x82\xac", 0, 6);
	shows("x\x1b[2J\x1b[Hy", 0, "y", 0, 1);
	shows("\x1b[999;999Hz", 24, "                                                                               z", 24, 79);
	shows("a\x1b[2;4r\x1b[4;1Hlast\nnext", 2, "last", 3, 8);
	memset(wide, 'w', 81);
	wide[81] = 0;
	shows(wide, 1, "w", 1, 1);
	for (u32 i = 0; i < 30; i++) {
		struct screen s;
		char text[400] = "", buf[4 * SCREEN_COLUMNS + 1];

		screen_init(&s);
		for (u32 k = 0; k <= i; k++)
			snprintf(text + strlen(text), sizeof(text) - strlen(text), "%sline %u", k ? "\r\n" : "", k);
		screen_feed(&s, (const u8 *)text, strlen(text));
		screen_line(&s, s.row, buf);
		snprintf(text, sizeof(text), "line %u", i);
		assert_string_equal(buf, text);
		assert_int_equal(s.row, MIN(i, 24));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(frames), cmocka_unit_test(memory), cmocka_unit_test(debug_registers), cmocka_unit_test(exits),
		cmocka_unit_test(registers), cmocka_unit_test(screen),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
