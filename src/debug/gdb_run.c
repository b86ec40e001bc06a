/*
 * Going on and stopping. gdb says for each vCPU whether it stays, runs or steps; a step is one instruction with interrupts held back,
 * so that it ends at the next one and not in a handler.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "base/base.h"
#include "debug/gdb_int.h"

enum { SIG_INT = 2, SIG_TRAP = 5, SIG_SEGV = 11 }; /* gdb's own numbers */
#define DR6_BS BIT64(14)
enum { EXC_DEBUG = 1, EXC_BREAKPOINT = 3 };

/* ---- going on ---- */
static struct kvm_guest_debug debug_of(struct gdb *g, u32 cpu)
{
	struct kvm_guest_debug d = {0};
	u64 dr[8];

	if (g->nbrk)
		d.control |= KVM_GUESTDBG_USE_SW_BP;
	if (break_registers(g, dr)) {
		d.control |= KVM_GUESTDBG_USE_HW_BP;
		memcpy(d.arch.debugreg, dr, sizeof(d.arch.debugreg));
	}
	if (g->c[cpu].action == ACT_STEP || g->c[cpu].action == ACT_RANGE)
		d.control |= KVM_GUESTDBG_SINGLESTEP | (g->t.debug_flags & KVM_GUESTDBG_BLOCKIRQ);
	d.control |= g->c[cpu].inject;
	if (d.control)
		d.control |= KVM_GUESTDBG_ENABLE;
	return d;
}

static int apply_debug(struct gdb *g, u32 cpu)
{
	struct kvm_guest_debug d = debug_of(g, cpu);
	int ret = 0;

	if (!memcmp(&d, &g->c[cpu].set, sizeof(d)))
		return 0;
	ret = g->t.set_debug(g->t.arg, cpu, &d);
	if (ret)
		return ret;
	d.control &= ~(u32)(KVM_GUESTDBG_INJECT_BP | KVM_GUESTDBG_INJECT_DB); /* done with the request */
	g->c[cpu].set = d;
	g->c[cpu].inject = 0;
	return 0;
}

/* What a vCPU met when another one's stop was told: told now. */
static bool tell_pending(struct gdb *g)
{
	struct gdb_exit e[GDB_CPUS_MAX] = {0};
	bool any = false;

	for (u32 i = 0; i < g->t.ncpus; i++) {
		if (g->c[i].action == ACT_STAY || !g->c[i].exit.valid)
			continue;
		e[i] = g->c[i].exit;
		g->c[i].exit.valid = false;
		any = true;
	}
	if (!any)
		return false;
	g->running = true;
	gdb_exits(g, e);
	return true;
}

static void let_go(struct gdb *g)
{
	u64 mask = 0;

	for (u32 i = 0; i < g->t.ncpus; i++) {
		int ret = apply_debug(g, i);

		if (ret) {
			char text[80];
			int n = snprintf(text, sizeof(text), "doppel: KVM_SET_GUEST_DEBUG: %s\n", strerror(-ret));

			reply_console(g, text, (size_t)n);
			gdb_report(g, g->cpu, SIG_TRAP, "");
			return;
		}
		if (g->c[i].action != ACT_STAY)
			mask |= BIT64(i);
	}
	g->running = true;
	g->known_cpu = GDB_CPUS_MAX;
	g->t.go(g->t.arg, mask);
}

void gdb_resume(struct gdb *g)
{
	if (g->connected && tell_pending(g))
		return;
	let_go(g);
}

/* ---- vCont, c, s ---- */
static bool scan_action(struct scan *s, enum gdb_action *a, u64 *from, u64 *to)
{
	u64 sig = 0;
	char c = s->p < s->end ? *s->p++ : 0;

	*from = *to = 0;
	switch (c) {
	case 'c':
	case 'C': /* signals mean nothing to a machine */
		*a = ACT_RUN;
		return c == 'c' || scan_hex(s, &sig);
	case 's':
	case 'S':
		*a = ACT_STEP;
		return c == 's' || scan_hex(s, &sig);
	case 't':
		*a = ACT_STAY;
		return true;
	case 'r':
		*a = ACT_RANGE;
		return scan_hex(s, from) && scan_char(s, ',') && scan_hex(s, to);
	default:
		return false;
	}
}

/* The leftmost action that names a thread is its own (GDB manual E.2, vCont). */
void gdb_vcont(struct gdb *g, struct scan *s)
{
	bool given[GDB_CPUS_MAX] = {false}, some = false;

	for (u32 i = 0; i < g->t.ncpus; i++)
		g->c[i].action = ACT_STAY;
	while (scan_char(s, ';')) {
		enum gdb_action a = ACT_STAY;
		u64 from = 0, to = 0;
		s64 id = -1;

		if (!scan_action(s, &a, &from, &to) || (scan_char(s, ':') && !scan_thread(s, &id)) || gdb_cpu_of(g, id) < 0) {
			reply_text(g, "E16");
			return;
		}
		for (u32 i = 0; i < g->t.ncpus; i++) {
			if (given[i] || (id > 0 && id != (s64)i + 1))
				continue;
			given[i] = true;
			g->c[i].action = a;
			g->c[i].from = from;
			g->c[i].to = to;
			some |= a != ACT_STAY;
		}
	}
	if (s->p != s->end || !some) {
		reply_text(g, "E16");
		return;
	}
	gdb_resume(g);
}

void gdb_step_or_continue(struct gdb *g, struct scan *s, bool step, bool with_signal)
{
	u32 cpu = g->run_cpu < g->t.ncpus ? g->run_cpu : g->cpu;
	u64 sig = 0, addr = 0;

	if (with_signal && !scan_hex(s, &sig)) {
		reply_text(g, "E16");
		return;
	}
	if (with_signal ? scan_char(s, ';') && scan_hex(s, &addr) : scan_hex(s, &addr)) {
		struct cpu_state c;

		if (!gdb_get(g, cpu, &c)) {
			c.r.rip = addr - (cpu_state_pc(&c) - c.r.rip);
			gdb_put(g, cpu, &c, CPU_STATE_REGS);
		}
	}
	for (u32 i = 0; i < g->t.ncpus; i++)
		g->c[i].action = step ? ACT_STAY : ACT_RUN;
	if (step)
		g->c[cpu].action = ACT_STEP;
	gdb_resume(g);
}

/* ---- stopping ---- */
void gdb_report(struct gdb *g, u32 cpu, unsigned sig, const char *why)
{
	g->running = false;
	g->told = true;
	g->cpu = cpu;
	g->run_cpu = GDB_CPUS_MAX;
	snprintf(g->stop, sizeof(g->stop), "T%02xthread:%x;%s", sig, cpu + 1, why);
	reply_reset(g);
	reply_text(g, "%s", g->stop);
	reply_send(g);
}

/* The vCPU that does something, if one does. */
static u32 busy_cpu(struct gdb *g)
{
	for (u32 i = 0; i < g->t.ncpus; i++) {
		struct cpu_state c;

		if (!gdb_get(g, i, &c) && c.mp_state == KVM_MP_STATE_RUNNABLE)
			return i;
	}
	return 0;
}

void gdb_interrupt(struct gdb *g)
{
	if (!g->running || g->ended)
		return;
	g->t.stop(g->t.arg);
	gdb_report(g, busy_cpu(g), SIG_INT, "");
}

/* What an exit means to gdb: EXIT_OTHERS is the guest's own, or a part of a range that goes on. */
enum meaning { EXIT_NONE, EXIT_OTHERS, EXIT_BREAK, EXIT_DATA, EXIT_STEP };

static enum meaning by_register(const struct gdb *g, u64 dr6, char *why, size_t n)
{
	static const char *const names[] = {[Z_WRITE] = "watch", [Z_READ] = "rwatch", [Z_ACCESS] = "awatch"};

	for (u32 i = 0; i < GDB_HW_MAX; i++) {
		const struct gdb_hw *h = &g->hw[i];

		if (!(dr6 >> i & 1) || !h->used)
			continue;
		if (h->type == Z_HARD) {
			snprintf(why, n, "%s", g->hwbreak ? "hwbreak:;" : "");
			return EXIT_BREAK;
		}
		snprintf(why, n, "%s:%" PRIx64 ";", names[h->type], h->at);
		return EXIT_DATA;
	}
	return EXIT_NONE;
}

static bool in_range(struct gdb *g, u32 cpu)
{
	struct cpu_state c;
	u64 pc = 0;

	if (g->c[cpu].action != ACT_RANGE || gdb_get(g, cpu, &c))
		return false;
	pc = cpu_state_pc(&c);
	return pc >= g->c[cpu].from && pc < g->c[cpu].to;
}

static enum meaning understand(struct gdb *g, u32 cpu, const struct gdb_exit *e, char *why, size_t n)
{
	bool stepping = g->c[cpu].action == ACT_STEP || g->c[cpu].action == ACT_RANGE;
	enum meaning m = EXIT_NONE;

	why[0] = 0;
	if (!e->valid)
		return EXIT_NONE;
	if (e->a.exception == EXC_BREAKPOINT) {
		snprintf(why, n, "%s", g->swbreak ? "swbreak:;" : "");
		if (break_at(g, cpu, e->a.pc))
			return EXIT_BREAK;
		g->c[cpu].inject = KVM_GUESTDBG_INJECT_BP;
		return EXIT_OTHERS;
	}
	m = by_register(g, e->a.dr6, why, n);
	if (m != EXIT_NONE)
		return m;
	if (e->a.dr6 & DR6_BS && stepping)
		return in_range(g, cpu) ? EXIT_OTHERS : EXIT_STEP;
	if (e->a.dr6 & 0xf)
		return EXIT_OTHERS; /* of a watchpoint that has been removed since */
	g->c[cpu].inject = KVM_GUESTDBG_INJECT_DB;
	return EXIT_OTHERS;
}

/*
 * One stop can be told at a time. Of the others, an instruction breakpoint is met again when its vCPU goes on, since the instruction has
 * not been executed; what came behind an instruction is kept.
 */
void gdb_exits(struct gdb *g, const struct gdb_exit *exits)
{
	char why[48], told_why[48] = "";
	int told = -1;

	for (u32 k = 0; k < g->t.ncpus; k++) {
		u32 i = (g->cpu + 1 + k) % g->t.ncpus; /* the one that was told last comes last: none starves */
		enum meaning m = understand(g, i, &exits[i], why, sizeof(why));

		if (m == EXIT_NONE || m == EXIT_OTHERS)
			continue;
		if (g->running && told < 0) {
			told = (int)i;
			memcpy(told_why, why, sizeof(why));
		} else if (m == EXIT_DATA) {
			g->c[i].exit = exits[i];
		}
	}
	if (!g->running)
		return;
	if (told >= 0)
		gdb_report(g, (u32)told, SIG_TRAP, told_why);
	else
		let_go(g);
}

void gdb_was_reset(struct gdb *g)
{
	static const char text[] = "The guest restarts: it is stopped before its first instruction.\n";

	break_forget_soft(g);
	g->known_cpu = GDB_CPUS_MAX;
	for (u32 i = 0; i < g->t.ncpus; i++) {
		g->c[i].exit.valid = false;
		g->c[i].inject = 0;
	}
	if (!g->connected || !g->running)
		return;
	reply_console(g, text, sizeof(text) - 1);
	gdb_report(g, 0, SIG_TRAP, "");
}

bool gdb_crashed(struct gdb *g, u32 cpu, const char *text)
{
	if (!g->connected || !g->running)
		return false;
	reply_console(g, text, strlen(text));
	gdb_report(g, cpu, SIG_SEGV, "");
	return true;
}

void gdb_ended(struct gdb *g, int status)
{
	if (g->connected && !g->ended) {
		reply_reset(g);
		reply_text(g, "W%02x", status & 0xff);
		if (g->running)
			reply_send(g);
	}
	g->ended = true;
	g->running = false;
}
