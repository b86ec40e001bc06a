/* Sessions, and packets by their first letter. An empty answer says: not known here. */
#include <stdlib.h>
#include <string.h>
#include "base/base.h"
#include "debug/gdb_int.h"

int gdb_cpu_of(const struct gdb *g, s64 id)
{
	if (id == 0 || id == -1)
		return (int)g->cpu;
	return id > 0 && id <= (s64)g->t.ncpus ? (int)id - 1 : -1;
}

int gdb_get(struct gdb *g, u32 cpu, struct cpu_state *c)
{
	int ret = 0;

	if (g->known_cpu != cpu) {
		g->known_cpu = GDB_CPUS_MAX;
		ret = g->t.get(g->t.arg, cpu, &g->known);
	}
	if (ret)
		return ret;
	g->known_cpu = cpu;
	*c = g->known;
	return 0;
}

int gdb_put(struct gdb *g, u32 cpu, const struct cpu_state *c, u32 parts)
{
	g->known_cpu = GDB_CPUS_MAX;
	return g->t.set(g->t.arg, cpu, c, parts);
}

static void answer(struct gdb *g, int ret)
{
	if (ret < 0)
		reply_text(g, "E%02x", (unsigned)-ret & 0xff);
	else
		reply_text(g, "OK");
}

typedef void packet_fn(struct gdb *g, struct scan *s);

static void why_stopped(struct gdb *g, struct scan *s)
{
	reply_text(g, "%s", g->stop);
}

static void read_registers(struct gdb *g, struct scan *s)
{
	gdb_read_all(g);
}

static void read_memory(struct gdb *g, struct scan *s)
{
	u64 addr = 0, n = 0;
	u8 buf[GDB_PACKET_MAX / 2];

	if (!scan_hex(s, &addr) || !scan_char(s, ',') || !scan_hex(s, &n)) {
		answer(g, -EINVAL);
		return;
	}
	n = MIN(n, sizeof(buf) - 8);
	if (n) {
		n = gdb_mem_read(g, addr, buf, n);
		if (!n)
			answer(g, -EFAULT);
	}
	reply_hex(g, buf, n);
}

/* M: hex digits; X: bytes, which the packet layer has unescaped. */
static void write_memory(struct gdb *g, struct scan *s, bool binary)
{
	u64 addr = 0, n = 0;
	u8 buf[GDB_PACKET_MAX];
	const u8 *from = buf;

	if (!scan_hex(s, &addr) || !scan_char(s, ',') || !scan_hex(s, &n) || !scan_char(s, ':') || n > sizeof(buf)) {
		answer(g, -EINVAL);
		return;
	}
	if (binary) {
		from = (const u8 *)s->p;
		if ((size_t)(s->end - s->p) != n) {
			answer(g, -EINVAL);
			return;
		}
	} else if (!scan_bytes(s, buf, n)) {
		answer(g, -EINVAL);
		return;
	}
	answer(g, gdb_mem_write(g, addr, from, n) == n ? 0 : -EFAULT);
}

static void write_hex(struct gdb *g, struct scan *s)
{
	write_memory(g, s, false);
}

static void write_binary(struct gdb *g, struct scan *s)
{
	write_memory(g, s, true);
}

static void set_thread(struct gdb *g, struct scan *s)
{
	char op = s->p < s->end ? *s->p++ : 0;
	s64 id = 0;
	int cpu = scan_thread(s, &id) ? gdb_cpu_of(g, id) : -1;

	if (cpu < 0 || (op != 'g' && op != 'c')) {
		answer(g, -EINVAL);
		return;
	}
	if (op == 'g')
		g->cpu = (u32)cpu;
	else
		g->run_cpu = id > 0 ? (u32)cpu : GDB_CPUS_MAX;
	answer(g, 0);
}

static void thread_alive(struct gdb *g, struct scan *s)
{
	s64 id = 0;

	answer(g, scan_thread(s, &id) && id > 0 && gdb_cpu_of(g, id) >= 0 ? 0 : -ESRCH);
}

static void z_packet(struct gdb *g, struct scan *s, bool insert)
{
	u64 type = 0, addr = 0, kind = 0;

	if (!scan_hex(s, &type) || !scan_char(s, ',') || !scan_hex(s, &addr) || !scan_char(s, ',') || !scan_hex(s, &kind)) {
		answer(g, -EINVAL);
		return;
	}
	if (type <= Z_ACCESS)
		answer(g, (insert ? break_insert : break_remove)(g, (enum gdb_z)type, addr, kind));
}

static void insert_break(struct gdb *g, struct scan *s)
{
	z_packet(g, s, true);
}

static void remove_break(struct gdb *g, struct scan *s)
{
	z_packet(g, s, false);
}

static void go_on(struct gdb *g, struct scan *s)
{
	gdb_step_or_continue(g, s, false, false);
}

static void go_on_signal(struct gdb *g, struct scan *s)
{
	gdb_step_or_continue(g, s, false, true);
}

static void step(struct gdb *g, struct scan *s)
{
	gdb_step_or_continue(g, s, true, false);
}

static void step_signal(struct gdb *g, struct scan *s)
{
	gdb_step_or_continue(g, s, true, true);
}

static void detach(struct gdb *g, struct scan *s)
{
	answer(g, 0);
	reply_send(g);
	gdb_detach(g);
}

static void kill_vm(struct gdb *g, struct scan *s)
{
	g->close_wanted = true;
	g->t.kill(g->t.arg);
}

static void v_packet(struct gdb *g, struct scan *s)
{
	if (scan_word(s, "Cont?")) {
		reply_text(g, "vCont;c;C;s;S;t;r");
	} else if (scan_word(s, "Cont")) {
		gdb_vcont(g, s);
	} else if (scan_word(s, "Kill")) {
		answer(g, 0);
		reply_send(g);
		kill_vm(g, s);
	}
}

static packet_fn *const packets[128] = {
	['?'] = why_stopped, ['g'] = read_registers,	   ['G'] = gdb_write_all, ['p'] = gdb_read_one, ['P'] = gdb_write_one,
	['m'] = read_memory, ['M'] = write_hex,	   ['X'] = write_binary,  ['H'] = set_thread,	['T'] = thread_alive,
	['Z'] = insert_break, ['z'] = remove_break, ['c'] = go_on,	  ['C'] = go_on_signal, ['s'] = step,
	['S'] = step_signal, ['D'] = detach,	   ['k'] = kill_vm,	  ['v'] = v_packet,	['q'] = gdb_query,
	['Q'] = gdb_set,
};

/* These say by themselves whether and when there is an answer. */
static bool answers_itself(const struct gdb *g, char c)
{
	return !g->connected || g->close_wanted || g->running || g->told || c == 'D' || c == 'k';
}

void gdb_packet(struct gdb *g, const char *p, size_t n)
{
	struct scan s = {.p = p + 1, .end = p + n};
	packet_fn *fn = n && !(p[0] & 0x80) ? packets[(u8)p[0]] : NULL;
	bool was_running = g->running;

	if (g->ended || was_running) {
		answer(g, -EBUSY); /* all-stop: gdb itself asks nothing now */
		reply_send(g);
		return;
	}
	g->told = false;
	if (fn)
		fn(g, &s);
	if (!answers_itself(g, n ? p[0] : 0))
		reply_send(g);
}

/* ---- sessions ---- */
struct gdb *gdb_new(const struct gdb_target *t)
{
	struct gdb *g = t->ncpus <= GDB_CPUS_MAX ? calloc(1, sizeof(*g)) : NULL;

	if (g)
		g->t = *t;
	return g;
}

void gdb_free(struct gdb *g)
{
	if (!g)
		return;
	free(g->out);
	free(g);
}

void gdb_attach(struct gdb *g)
{
	g->connected = true;
	g->running = g->no_ack = g->close_wanted = g->swbreak = g->hwbreak = g->physical = false;
	g->description = DESC_X86_64;
	g->state = IN_IDLE;
	g->nout = g->last_len = 0;
	g->cpu = 0;
	g->known_cpu = GDB_CPUS_MAX;
	g->run_cpu = GDB_CPUS_MAX;
	for (u32 i = 0; i < g->t.ncpus; i++)
		g->c[i].exit.valid = false;
	g->t.stop(g->t.arg);
	snprintf(g->stop, sizeof(g->stop), "T05thread:1;");
}

void gdb_detach(struct gdb *g)
{
	if (!g->connected)
		return;
	g->connected = false;
	g->close_wanted = true;
	if (g->ended)
		return;
	g->t.stop(g->t.arg);
	break_remove_all(g);
	for (u32 i = 0; i < g->t.ncpus; i++) {
		g->c[i].action = ACT_RUN;
		g->c[i].exit.valid = false;
	}
	gdb_resume(g);
	g->running = false;
}
