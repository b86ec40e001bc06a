/* Fuzzes gdb's protocol: random and mutated packets with good and bad checksums, in random pieces, on a machine made of memory. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "debug/gdb.h"
#include "debug/screen.h"

enum { RAM = 1 << 20, CPUS = 2 };

static u64 rng_state;

static u64 rng(void)
{
	u64 z = (rng_state += 0x9e3779b97f4a7c15);

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	return z ^ z >> 27;
}

/* ---- the machine ---- */
struct fake {
	struct guestmem ram;
	struct cpu_state cpu[CPUS];
	bool going;
	u64 goes;
};

static void fake_stop(void *arg)
{
	((struct fake *)arg)->going = false;
}

static void fake_go(void *arg, u64 cpus)
{
	struct fake *f = arg;

	f->going = true;
	f->goes++;
}

static void fake_kill(void *arg) {}

static int fake_get(void *arg, u32 cpu, struct cpu_state *c)
{
	struct fake *f = arg;

	if (f->going)
		abort(); /* registers of a running vCPU */
	*c = f->cpu[cpu];
	return 0;
}

static int fake_set(void *arg, u32 cpu, const struct cpu_state *c, u32 parts)
{
	struct fake *f = arg;

	int ret = rng() % 50 ? 0 : -EINVAL;

	if (f->going)
		abort();
	memcpy(&f->cpu[cpu], c, sizeof(*c));
	return ret;
}

static int fake_debug(void *arg, u32 cpu, const struct kvm_guest_debug *d)
{
	return rng() % 50 ? 0 : -EINVAL;
}

static bool fake_monitor(void *arg, u32 cpu, const char *what, FILE *out)
{
	fprintf(out, "%s\n", what);
	return !strcmp(what, "irqs");
}

/* ---- input ---- */
static const char *const good[] = {
	"qSupported:multiprocess+;swbreak+;hwbreak+", "?", "g", "p10", "P10=0000000000000000", "m1000,40", "M1000,4:cccccccc", "X2000,3:abc",
	"vCont?", "vCont;c", "vCont;s:1;c", "vCont;r1000,2000:2", "vCont;t", "c", "s", "C05;1000", "S05", "Hg2", "Hc-1", "T1", "qfThreadInfo",
	"qsThreadInfo", "qThreadExtraInfo,1", "qC", "qAttached", "Z0,1000,1", "z0,1000,1", "Z1,1000,1", "Z2,1004,8", "Z3,1001,10", "Z4,fff,20",
	"z2,1004,8", "D", "k", "vKill;1", "qRcmd,696e666f20726567697374657273", "qRcmd,70616765203078313030", "qRcmd,68656c70",
	"qRcmd,6465736372697074696f6e2069333836", "qXfer:features:read:target.xml:0,fff", "QStartNoAckMode", "Qqemu.PhyMemMode:1", "G00",
	"vMustReplyEmpty", "qSymbol::", "qRcmd,69727173",
};

static size_t packet(u8 *to, size_t room)
{
	static const char alphabet[] = "0123456789abcdef,;:=.-+pxZzmMXgGvCsSctrHTqQ}#$*";
	const char *g = good[rng() % ARRAY_SIZE(good)];
	size_t n = 0;
	u8 sum = 0;

	to[n++] = '$';
	for (; *g && n < room - 8; g++) {
		u64 r = rng() % 40;

		if (r == 0)
			continue;
		to[n++] = r == 1 ? (u8)alphabet[rng() % (sizeof(alphabet) - 1)] : r == 2 ? (u8)rng() : (u8)*g;
	}
	if (rng() % 200 == 0)
		while (n < room - 8)
			to[n++] = (u8)alphabet[rng() % 16];
	for (size_t i = 1; i < n; i++)
		sum += to[i];
	sum += rng() % 100 == 0;
	n += (size_t)sprintf((char *)to + n, "#%02x", sum);
	if (rng() % 20 == 0)
		to[n++] = 3;
	if (rng() % 20 == 0)
		to[n++] = "+-"[rng() % 2];
	return n;
}

static void events(struct gdb *g, struct fake *f)
{
	struct gdb_exit e[GDB_CPUS_MAX] = {0};
	static const u64 dr6[] = {1, 2, 4, 8, 0x4000, 0, 0xf};

	f->going = false;
	switch (rng() % 40) {
	case 0:
		gdb_was_reset(g);
		break;
	case 1:
		gdb_crashed(g, (u32)(rng() % CPUS), "crash\n");
		break;
	default:
		for (u32 i = 0; i < CPUS; i++)
			e[i] = (struct gdb_exit){.valid = rng() & 1, .a = {.exception = rng() & 1 ? 3 : 1, .pc = 0x1000 + rng() % 2,
									   .dr6 = dr6[rng() % ARRAY_SIZE(dr6)]}};
		gdb_exits(g, e);
	}
}

static void session(struct fake *f)
{
	struct gdb_target t = {.arg = f, .ncpus = CPUS, .ram = &f->ram, .debug_flags = KVM_GUESTDBG_BLOCKIRQ, .stop = fake_stop, .go = fake_go,
			       .kill = fake_kill, .get = fake_get, .set = fake_set, .set_debug = fake_debug, .monitor = fake_monitor};
	struct gdb *g = gdb_new(&t);
	u8 buf[20000];

	gdb_attach(g);
	for (int i = 0; i < 60 && !gdb_wants_close(g); i++) {
		size_t n = packet(buf, rng() % 50 ? 400 : sizeof(buf)), at = 0, out = 0;

		while (at < n) {
			size_t most = 1 + rng() % 64, now = MIN(n - at, most);

			gdb_input(g, buf + at, now);
			at += now;
		}
		if (f->going)
			events(g, f);
		gdb_output(g, &out);
		gdb_output_taken(g, rng() & 1 ? out : out / 2);
	}
	if (rng() & 1)
		gdb_ended(g, 1);
	else
		gdb_detach(g);
	gdb_free(g);
}

static void screen(void)
{
	static const char alphabet[] = "\033\033[[[[;;?0123456789ABCDHJKLMPSTXr@su78McD(]\007\\\n\r\t\bhello\xc3\xa9\xe2\x82\xac\xf0";
	char line[4 * SCREEN_COLUMNS + 1];
	struct screen s;

	screen_init(&s);
	for (int i = 0; i < 3000; i++) {
		u8 b = rng() % 30 ? (u8)alphabet[rng() % (sizeof(alphabet) - 1)] : (u8)rng();

		screen_feed(&s, &b, 1);
		if (s.row >= SCREEN_ROWS || s.column >= SCREEN_COLUMNS)
			abort();
	}
	for (u32 i = 0; i < SCREEN_ROWS; i++)
		screen_line(&s, i, line);
}

int main(int argc, char **argv)
{
	u64 seconds = argc > 1 ? strtoull(argv[1], NULL, 0) : 5, runs = 0;
	u64 seed = argc > 2 ? strtoull(argv[2], NULL, 0) : (u64)time(NULL);
	time_t end = time(NULL) + (time_t)seconds;
	struct fake f = {.ram = {.nslots = 1, .slot[0] = {.gpa = 0, .size = RAM, .host = malloc(RAM)}}};

	rng_state = seed;
	printf("seed %llu\n", (unsigned long long)seed);
	fflush(stdout);
	memset(f.ram.slot[0].host, 0x90, RAM);
	for (u32 i = 0; i < CPUS; i++)
		f.cpu[i].s.cr0 = 1;
	while (time(NULL) < end) {
		f.going = true;
		session(&f);
		screen();
		runs++;
	}
	free(f.ram.slot[0].host);
	printf("%llu sessions, %llu times going on\n1 passed, 0 failed\n", (unsigned long long)runs, (unsigned long long)f.goes);
	return 0;
}
