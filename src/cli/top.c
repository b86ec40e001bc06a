/*
 * doppel top: VMs and vCPUs, live. Rates are differences of the counters of x-doppel-top between two looks; where the time goes is what the
 * engine's sampler saw in between.
 */
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/term.h"
#include "cli/cli.h"
#include "cli/client.h"
#include "cli/top.h"
#include "vmm/instance.h"

struct top_options {
	u32 seconds, count;
	bool json, batch, insns;
};

#define AT(field) offsetof(struct top_options, field)
static const struct opt top_opts[] = {
	{"delay", 'd', OPT_UINT, AT(seconds), "SECONDS", "between two looks (default 2)", 1, 3600, NULL},
	{"count", 'n', OPT_UINT, AT(count), "COUNT", "end after so many tables", 1, 1000000, NULL},
	{"insns", 'i', OPT_FLAG, AT(insns), NULL, "count the instructions of translated code, which makes it slower meanwhile", 0, 0, NULL},
	{"batch", 'b', OPT_FLAG, AT(batch), NULL, "print one table after the other, for files and pipes", 0, 0, NULL},
	{"json", 0, OPT_FLAG, AT(json), NULL, "print a line of JSON for each look", 0, 0, NULL},
	{NULL, 0, OPT_END, 0, NULL, NULL, 0, 0, NULL},
};

/* ---- looking ---- */

static double number(const cJSON *j, const char *key)
{
	const cJSON *v = cJSON_GetObjectItemCaseSensitive(j, key);

	return cJSON_IsNumber(v) && v->valuedouble >= 0 ? v->valuedouble : 0;
}

static void text(const cJSON *j, const char *key, char *buf, size_t n)
{
	const char *s = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(j, key));

	snprintf(buf, n, "%s", s ? s : "?");
	for (char *p = buf; *p; p++)
		if (*p < ' ' || *p == 0x7f)
			*p = '?';
}

/* Memory of a process that is its own: without guest RAM, which is shared. */
static u64 own_memory(int pid)
{
	char path[40], line[128];
	u64 sum = 0;
	FILE *f = NULL;

	if (pid <= 0)
		return 0;
	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f))
		if (!strncmp(line, "RssAnon:", 8) || !strncmp(line, "RssFile:", 8))
			sum += strtoull(line + 8, NULL, 10) << 10;
	if (f)
		fclose(f);
	return sum;
}

static void take_cpu(struct top_cpu *c, const cJSON *cpu, const cJSON *samples)
{
	static const char *const names[TOP_COUNTERS] = {
#define X(field, group, key, head, width) [TOP_##field] = key,
		TOP_COLUMNS(X)
#undef X
	};
	static const char *const groups[TOP_COUNTERS] = {
#define X(field, group, key, head, width) [TOP_##field] = group,
		TOP_COLUMNS(X)
#undef X
	};
	static const char *const kinds[] = {"user", "kernel", "monitor", "idle"};

	for (u32 i = 0; i < TOP_COUNTERS; i++)
		c->counter[i] = number(cJSON_GetObjectItem(cpu, groups[i]), names[i]);
	c->sampled = samples != NULL;
	for (u32 i = 0; i < ARRAY_SIZE(kinds); i++)
		c->sample[i] = number(samples, kinds[i]);
}

static void take_vm(struct top_vm *v, const cJSON *j)
{
	const cJSON *cpus = cJSON_GetObjectItem(j, "cpus"), *samples = cJSON_GetObjectItem(j, "samples"), *cpu = NULL;

	text(j, "engine", v->engine, sizeof(v->engine));
	text(j, "state", v->state, sizeof(v->state));
	v->memory = (u64)number(j, "memory");
	v->touched = (u64)number(j, "memory-touched");
	v->own = own_memory((int)number(j, "pid")) + own_memory((int)number(j, "engine-pid"));
	v->up_ms = (u64)number(j, "uptime-ms");
	v->ncpus = 0;
	cJSON_ArrayForEach(cpu, cpus) {
		if (v->ncpus == TOP_CPUS)
			break;
		take_cpu(&v->cpu[v->ncpus], cpu, cJSON_GetArrayItem(samples, (int)v->ncpus));
		v->ncpus++;
	}
}

static void look_at(void *arg, const struct instance_info *info)
{
	struct top *t = arg;
	struct top_vm *v = NULL;
	cJSON *j = NULL, *args = NULL;

	if (t->n == TOP_VMS || (t->only && strcmp(t->only, info->name) != 0))
		return;
	if (t->insns) {
		args = cJSON_CreateObject();
		cJSON_AddTrueToObject(args, "count");
	}
	if (client_do_with(info->name, "x-doppel-top", args, &j, NULL) < 0)
		return; /* it has just ended */
	v = &t->vm[t->n++];
	memset(v, 0, sizeof(*v));
	snprintf(v->name, sizeof(v->name), "%s", info->name);
	take_vm(v, j);
	cJSON_Delete(j);
}

static int look(struct top *t, struct err *e)
{
	t->n = 0;
	return instance_each(look_at, t, e);
}

/* ---- waiting ---- */

enum wait_result { WAIT_LOOK, WAIT_DRAW, WAIT_QUIT };

static enum wait_result take_signal(int fd)
{
	struct signalfd_siginfo si;

	if (read(fd, &si, sizeof(si)) != sizeof(si))
		return WAIT_LOOK;
	return si.ssi_signo == SIGWINCH ? WAIT_DRAW : WAIT_QUIT;
}

static enum wait_result wait_until(u64 end, int signals, bool keys)
{
	struct pollfd p[2] = {{.fd = signals, .events = POLLIN}, {.fd = keys ? STDIN_FILENO : -1, .events = POLLIN}};
	u64 now = now_ms();
	char c = 0;

	if (now >= end || poll(p, 2, (int)MIN(end - now, 1000000ull)) == 0)
		return WAIT_LOOK;
	if (p[0].revents)
		return take_signal(signals);
	if (p[1].revents && (read(STDIN_FILENO, &c, 1) <= 0 || c == 'q' || c == 'Q' || c == 3 || c == 4))
		return WAIT_QUIT;
	return WAIT_DRAW;
}

static int catch_signals(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGWINCH);
	sigprocmask(SIG_BLOCK, &set, NULL);
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

/* ---- the loop ---- */

static void show(const struct top_options *o, const struct top *old, const struct top *now, bool screen)
{
	u16 cols = 0, rows = 0;

	if (o->json)
		top_json(old, now);
	else if (screen && term_size(STDOUT_FILENO, &cols, &rows))
		top_screen(old, now, cols, rows);
	else
		top_table(old, now);
	fflush(stdout);
}

static int run(const struct top_options *o, const char *only, bool screen, struct err *e)
{
	static struct top looks[2]; /* 100 KiB each: not for the stack */
	struct top *old = &looks[0], *now = &looks[1], *swap = NULL;
	int signals = catch_signals(), ret = 0;
	enum wait_result w = WAIT_LOOK;

	old->only = now->only = only;
	old->insns = now->insns = o->insns;
	old->ms = now_ms();
	ret = look(old, e);
	if (!ret && only && !old->n)
		return err_set(e, ENOENT, "%s: no such VM (doppel ps lists them)", only);
	for (u32 n = 0; !ret && w != WAIT_QUIT && (!o->count || n < o->count) && !ferror(stdout); n++) {
		while ((w = wait_until(old->ms + o->seconds * 1000ull, signals, screen)) == WAIT_DRAW)
			if (screen && now->ms)
				show(o, old, now, true);
		if (w == WAIT_QUIT)
			break;
		now->ms = now_ms();
		ret = look(now, e);
		if (!ret)
			show(o, old, now, screen);
		swap = old, old = now, now = swap;
		now->ms = 0;
	}
	return ret;
}

static int top_main(const struct command *c, int argc, char **argv)
{
	struct top_options o = {.seconds = 2};
	struct err e = {0};
	bool screen = false;
	int ret = opts_parse(c, &o, &argc, argv);

	if (ret)
		return ret == OPTS_DONE ? 0 : EXIT_DOPPEL;
	signal(SIGPIPE, SIG_IGN);
	screen = !o.json && !o.batch && isatty(STDIN_FILENO) && isatty(STDOUT_FILENO) && term_raw(STDIN_FILENO) == 0;
	ret = run(&o, argv[1], screen, &e);
	if (screen)
		fputs("\r\n", stdout);
	fflush(stdout);
	term_restore();
	return ret ? cli_fail(&e) : 0;
}

const struct command cmd_top = {
	.name = "top", .args = "[options] [NAME]", .summary = "shows live what VMs and their vCPUs do",
	.details = "q ends it. Of each vCPU: where its time goes (guest's user mode, guest's kernel, monitor, idle: sampled 100 times a second\n"
		   "while top runs, at no other time), exits by reason, interrupts, exceptions, page walks (TLB misses), blocks translated; instructions\n"
		   "by the second with --engine interp, or --insns.\n",
	.opts = top_opts, .max_args = 1, .main = top_main};
