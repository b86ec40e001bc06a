/* q and Q packets. */
#include <stdlib.h>
#include <string.h>
#include "base/base.h"
#include "debug/gdb_int.h"

/* ---- what we can ---- */
static void supported(struct gdb *g, struct scan *s)
{
	while (s->p < s->end) {
		const char *end = memchr(s->p, ';', (size_t)(s->end - s->p));
		size_t n = (size_t)((end ? end : s->end) - s->p);

		g->swbreak |= n == 8 && !memcmp(s->p, "swbreak+", 8);
		g->hwbreak |= n == 8 && !memcmp(s->p, "hwbreak+", 8);
		s->p += n + (end != NULL);
	}
	reply_text(g, "PacketSize=%x;qXfer:features:read+;QStartNoAckMode+;swbreak+;hwbreak+;vContSupported+;multiprocess-",
		   GDB_PACKET_MAX);
}

static void attached(struct gdb *g, struct scan *s)
{
	reply_text(g, "1"); /* so that gdb detaches when it quits, and does not kill */
}

static void current_thread(struct gdb *g, struct scan *s)
{
	reply_text(g, "QC%x", g->cpu + 1);
}

static void symbols(struct gdb *g, struct scan *s)
{
	reply_text(g, "OK"); /* none wanted */
}

/* ---- threads ---- */
static void next_threads(struct gdb *g, struct scan *s)
{
	char sep = 'm';

	if (g->list_at >= g->t.ncpus)
		reply_text(g, "l");
	for (u32 i = 0; i < 32 && g->list_at < g->t.ncpus; i++, g->list_at++, sep = ',')
		reply_text(g, "%c%x", sep, g->list_at + 1);
}

static void first_threads(struct gdb *g, struct scan *s)
{
	g->list_at = 0;
	next_threads(g, s);
}

static void thread_info(struct gdb *g, struct scan *s)
{
	struct cpu_state c;
	char text[80];
	s64 id = 0;
	int cpu = scan_thread(s, &id) && id > 0 ? gdb_cpu_of(g, id) : -1;

	if (cpu < 0 || gdb_get(g, (u32)cpu, &c)) {
		reply_text(g, "E03");
		return;
	}
	snprintf(text, sizeof(text), "vCPU %d: %s, %s, ring %d", cpu, cpu_state_activity(&c), cpu_state_mode(&c),
		 c.s.ss.dpl);
	reply_hex(g, text, strlen(text));
}

/* ---- transfers ---- */
static void features(struct gdb *g, struct scan *s)
{
	u64 at = 0, n = 0;
	size_t size = 0;
	char *text = NULL;

	if (!scan_word(s, "target.xml:") || !scan_hex(s, &at) || !scan_char(s, ',') || !scan_hex(s, &n)) {
		reply_text(g, "E00");
		return;
	}
	text = gdb_description(g, &size);
	if (!text || at > size) {
		free(text);
		reply_text(g, "E01");
		return;
	}
	n = MIN(MIN(n, size - at), (u64)GDB_PACKET_MAX / 2 - 8);
	reply_text(g, "%c", at + n < size ? 'm' : 'l');
	reply_binary(g, text + at, n);
	free(text);
}

/* ---- memory by physical address, as qemu's stub has it ---- */
static void physical(struct gdb *g, struct scan *s)
{
	reply_text(g, "%d", g->physical);
}

static void set_physical(struct gdb *g, struct scan *s)
{
	u64 v = 0;

	if (!scan_hex(s, &v) || v > 1) {
		reply_text(g, "E16");
		return;
	}
	g->physical = v;
	reply_text(g, "OK");
}

static void no_ack(struct gdb *g, struct scan *s)
{
	g->no_ack = true;
	reply_text(g, "OK");
}

struct query {
	const char *word;
	void (*fn)(struct gdb *g, struct scan *s);
};

/* An entry must not follow one that it begins with. */
static const struct query queries[] = {
	{"Supported:", supported}, {"Supported", supported}, {"Attached", attached}, {"Symbol:", symbols},
	{"fThreadInfo", first_threads}, {"sThreadInfo", next_threads}, {"ThreadExtraInfo,", thread_info},
	{"Xfer:features:read:", features}, {"Rcmd,", gdb_monitor}, {"qemu.PhyMemMode", physical}, {"C", current_thread},
};
static const struct query settings[] = {{"StartNoAckMode", no_ack}, {"qemu.PhyMemMode:", set_physical}};

static void find(struct gdb *g, struct scan *s, const struct query *q, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (scan_word(s, q[i].word)) {
			q[i].fn(g, s);
			return;
		}
	}
}

void gdb_query(struct gdb *g, struct scan *s)
{
	if (s->end - s->p > 1 && *s->p == 'C') /* qCRC and others: not ours */
		return;
	find(g, s, queries, ARRAY_SIZE(queries));
}

void gdb_set(struct gdb *g, struct scan *s)
{
	find(g, s, settings, ARRAY_SIZE(settings));
}
