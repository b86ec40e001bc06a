/* doppel trace: what a running VM's vCPUs meet, event by event, until Ctrl-C. */
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>
#include "cli/cli.h"
#include "cli/client.h"
#include "cli/trace_follow.h"
#include "debug/trace.h"

struct trace_options {
	struct trace_choice choice;
	u64 lo, hi;
	u32 cpu, seconds, limit;
	bool one_cpu, user, kernel, json, chrome, wait;
	const char *output;
};

static int parse_events(void *target, const char *value, struct err *e)
{
	return trace_choice_parse(&((struct trace_options *)target)->choice, value, e);
}

static int parse_cpu(void *target, const char *value, struct err *e)
{
	struct trace_options *o = target;
	char *end = NULL;
	unsigned long n = strtoul(value, &end, 10);

	if (end == value || *end || n >= TRACE_CPUS)
		return err_set(e, EINVAL, "%s: not a vCPU (0 to %d)", value, TRACE_CPUS - 1);
	o->cpu = (u32)n;
	o->one_cpu = true;
	return 0;
}

/* LO-HI, or one address. */
static int parse_rip(void *target, const char *value, struct err *e)
{
	struct trace_options *o = target;
	char *end = NULL, *from = NULL;

	o->lo = o->hi = strtoull(value, &end, 0);
	if (end != value && *end == '-') {
		from = end + 1;
		o->hi = strtoull(from, &end, 0);
	}
	if (end == value || end == from || *end || o->hi < o->lo)
		return err_set(e, EINVAL, "%s: not a range of addresses (LO-HI)", value);
	return 0;
}

#define AT(field) offsetof(struct trace_options, field)
static const struct opt trace_opts[] = {
	{"events", 'e', OPT_CALL, 0, "LIST", "insn,exit,exception,irq,pt,mmio,pio,halt,code or instructions (cpuid,wrmsr); -irq: not these",
	 0, 0, parse_events},
	{"cpu", 0, OPT_CALL, 0, "N", "only this vCPU", 0, 0, parse_cpu},
	{"rip", 0, OPT_CALL, 0, "LO-HI", "only from code at these addresses", 0, 0, parse_rip},
	{"user", 0, OPT_FLAG, AT(user), NULL, "only from code at CPL 3", 0, 0, NULL},
	{"kernel", 0, OPT_FLAG, AT(kernel), NULL, "only from code at CPL 0 to 2", 0, 0, NULL},
	{"for", 0, OPT_UINT, AT(seconds), "SECONDS", "end after this time", 1, 1000000, NULL},
	{"limit", 'n', OPT_UINT, AT(limit), "N", "end after so many events", 1, 0xffffffff, NULL},
	{"wait", 0, OPT_FLAG, AT(wait), NULL, "hold the guest rather than lose events", 0, 0, NULL},
	{"json", 0, OPT_FLAG, AT(json), NULL, "print lines of JSON", 0, 0, NULL},
	{"chrome", 0, OPT_FLAG, AT(chrome), NULL, "write JSON for Perfetto and chrome://tracing", 0, 0, NULL},
	{"output", 'o', OPT_STRING, AT(output), "FILE", "write there instead of standard output", 0, 0, NULL},
	{NULL, 0, OPT_END, 0, NULL, NULL, 0, 0, NULL},
};

static void add_number(cJSON *j, const char *key, u64 v)
{
	char text[24];

	snprintf(text, sizeof(text), "0x%llx", (unsigned long long)v);
	cJSON_AddStringToObject(j, key, text);
}

static cJSON *arguments(const struct trace_options *o)
{
	cJSON *j = cJSON_CreateObject();

	add_number(j, "kinds", o->choice.kinds);
	add_number(j, "cpus", o->one_cpu ? BIT64(o->cpu) : ~0ull);
	add_number(j, "lo", o->lo);
	add_number(j, "hi", o->hi);
	add_number(j, "cpls", o->user ? 8 : o->kernel ? 7 : 15);
	add_number(j, "wait", o->wait);
	return j;
}

/* The VM's end shows on the control socket; Ctrl-C comes through the descriptor. */
static bool over(const struct client *c, int signals)
{
	struct pollfd p[2] = {{.fd = c->fd, .events = POLLIN}, {.fd = signals, .events = POLLIN}};
	char byte = 0;

	if (poll(p, 2, TRACE_PERIOD_MS) <= 0)
		return false;
	if (p[1].revents)
		return true;
	/* notices of the VM are nothing to us */
	return p[0].revents && recv(c->fd, &byte, 1, 0) <= 0;
}

static int catch_signals(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

static void follow(const struct trace_options *o, const struct client *c, struct trace_follow *f, int signals)
{
	u64 end = o->seconds ? now_ms() + o->seconds * 1000ull : ~0ull;

	while (trace_follow_some(f) && now_ms() < end && !over(c, signals))
		;
	trace_follow_some(f);
	trace_follow_end(f);
}

static int trace_vm(const struct trace_options *o, struct client *c, struct trace_writer *w, struct err *e)
{
	struct trace_follow f = {.choice = &o->choice, .limit = o->limit, .w = w};
	int signals = catch_signals(), ret = 0;

	ret = client_call_with(c, "x-doppel-trace-start", arguments(o), NULL, e);
	if (ret)
		return ret;
	ret = c->has_fd ? trace_reader_open(&f.reader, c->passed) : -EPROTO;
	if (ret)
		return err_set(e, -ret, "%s: the VM's trace cannot be read: %s", c->name, strerror(-ret));
	trace_write_begin(w, &f.reader.h);
	follow(o, c, &f, signals);
	if (f.lost)
		log_msg(LOG_WARN, "trace: %llu events were lost: the ring was full (--events and --rip choose less, --wait holds the guest)",
			(unsigned long long)f.lost);
	trace_reader_close(&f.reader);
	return 0;
}

static int trace_main(const struct command *c, int argc, char **argv)
{
	struct trace_options o = {.hi = ~0ull, .choice.kinds = TRACE_ALL};
	struct trace_writer w = {.out = stdout};
	struct client cl;
	struct err e = {0};
	int ret = opts_parse(c, &o, &argc, argv);

	if (ret)
		return ret == OPTS_DONE ? 0 : EXIT_DOPPEL;
	if ((o.json && o.chrome) || (o.user && o.kernel)) {
		log_msg(LOG_ERROR, "trace: %s exclude each other", o.user ? "--user and --kernel" : "--json and --chrome");
		return EXIT_DOPPEL;
	}
	w.format = o.json ? TRACE_JSON : o.chrome ? TRACE_CHROME : TRACE_TEXT;
	if (client_open(&cl, argv[1], &e) < 0)
		return cli_fail(&e);
	if (o.output)
		w.out = fopen(o.output, "we");
	if (!w.out)
		ret = err_set(&e, errno, "trace: %s: %s", o.output, strerror(errno));
	else
		ret = trace_vm(&o, &cl, &w, &e);
	client_close(&cl);
	if (w.out && !ret && (fflush(w.out) || ferror(w.out)) && errno != EPIPE)
		ret = err_set(&e, errno, "trace: %s: %s", o.output ? o.output : "standard output", strerror(errno));
	if (w.out && o.output)
		fclose(w.out);
	return ret ? cli_fail(&e) : 0;
}

const struct command cmd_trace = {
	.name = "trace", .args = "[options] NAME", .summary = "shows what a VM's vCPUs meet: sensitive instructions, exits, exceptions ...",
	.details = "Until Ctrl-C, the VM's end, --for or --limit. Each vCPU has a ring of 65536 events; those for which there was no room\n"
		   "are counted and said. While nobody traces, nothing is recorded and nothing is slower.\n",
	.opts = trace_opts, .min_args = 1, .max_args = 1, .main = trace_main};
