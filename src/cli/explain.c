/* doppel explain: teaching mode. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/paths.h"
#include "cli/cli.h"
#include "cli/explain.h"

enum { PCS = 32 };

static const struct {
	const char *name, *about;
} examples[] = {
	{"popf", "an instruction that is sensitive and does not trap"},
	{"tables", "page tables: walks, accessed and dirty bits, what the TLB remembers"},
	{"trap", "trap and emulate: privileged instructions in ring 3, devices in ring 0"},
	{"smc", "code that changes itself under a translator"},
	{"interrupts", "exceptions, INT, the local timer, HLT, and what CLI holds back"},
	{"balloon", "which memory a guest uses: what a balloon would give back"},
};

static int parse_engine(void *target, const char *value, struct err *e)
{
	struct explain_options *o = target;

	if (strcmp(value, "translate") != 0 && strcmp(value, "interp") != 0)
		return err_set(e, EINVAL, "%s: not translate or interp", value);
	o->engine = value;
	return 0;
}

#define AT(field) offsetof(struct explain_options, field)
static const struct opt explain_opts[] = {
	{"list", 'l', OPT_FLAG, AT(list), NULL, "list the worked examples", 0, 0, NULL},
	{"engine", 'e', OPT_CALL, 0, "ENGINE", "translate (default) or interp", 0, 0, parse_engine},
	{"append", 'a', OPT_STRING, AT(append), "STRING", "the guest's command line", 0, 0, NULL},
	{"limit", 'n', OPT_UINT, AT(limit), "N", "show so many steps", 1, 0xffffffff, NULL},
	{"for", 0, OPT_UINT, AT(seconds), "SECONDS", "end the guest after this time (default 10)", 1, 3600, NULL},
	{"all", 0, OPT_FLAG, AT(all), NULL, "each time an instruction is met, not the first three at each place", 0, 0, NULL},
	{"brief", 0, OPT_FLAG, AT(brief), NULL, "without the translated code", 0, 0, NULL},
	{"json", 0, OPT_FLAG, AT(json), NULL, "print JSON", 0, 0, NULL},
	{NULL, 0, OPT_END, 0, NULL, NULL, 0, 0, NULL},
};

static int list_examples(void)
{
	for (u32 i = 0; i < ARRAY_SIZE(examples); i++)
		printf("%-11s %s\n", examples[i].name, examples[i].about);
	return 0;
}

static int find_guest(struct explain_options *o, struct err *e)
{
	char part[64];

	for (u32 i = 0; i < ARRAY_SIZE(examples); i++) {
		if (strcmp(o->guest, examples[i].name) != 0)
			continue;
		snprintf(part, sizeof(part), "learn/%s.elf", o->guest);
		return path_part(part, NULL, R_OK, o->path, sizeof(o->path), e);
	}
	snprintf(o->path, sizeof(o->path), "%s", o->guest);
	return access(o->path, R_OK) == 0 ? 0
					  : err_set(e, errno, "%s: %s (a kernel file, or one of --list)", o->guest, strerror(errno));
}

/* Where sensitive instructions are, in the order they were met. */
static u32 places(const struct explained *x, u64 *pc)
{
	u32 n = 0;

	for (size_t i = 0; i < x->nrec && n < PCS; i++) {
		const struct trace_event *e = &x->rec[i].e;
		u32 k = 0;

		while (k < n && pc[k] != e->rip)
			k++;
		if (k == n && e->kind == TRACE_INSN)
			pc[n++] = e->rip;
	}
	return n;
}

static int explain(const struct explain_options *o, struct explained *x, struct err *e)
{
	u64 pc[PCS];
	int ret = explain_run(o, x, e);

	if (!ret && !strcmp(o->engine, "translate") && !x->timed_out)
		ret = explain_translate(o, x, pc, places(x, pc), e);
	if (ret)
		return ret;
	if (o->json)
		explain_print_json(o, x);
	else
		explain_print(o, x);
	return 0;
}

static int explain_main(const struct command *c, int argc, char **argv)
{
	struct explain_options o = {.engine = "translate", .append = "", .seconds = 10};
	struct explained x = {0};
	struct err e = {0};
	int ret = opts_parse(c, &o, &argc, argv);

	if (ret)
		return ret == OPTS_DONE ? 0 : EXIT_DOPPEL;
	if (o.list)
		return list_examples();
	o.guest = argv[1];
	if (!o.guest)
		ret = err_set(&e, EINVAL, "explain: no guest (doppel explain --list names examples)");
	else
		ret = find_guest(&o, &e);
	if (!ret)
		ret = explain(&o, &x, &e);
	explain_free(&x);
	return ret ? cli_fail(&e) : 0;
}

const struct command cmd_explain = {
	.name = "explain", .args = "[options] GUEST",
	.summary = "runs a small guest and tells how each sensitive instruction was met",
	.details = "GUEST is a kernel file (multiboot, ELF) that ends by itself, or one of the worked examples of --list. It is run twice:\n"
		   "traced, and for the translations. The manual is the Intel SDM, by volume and section; the classes are those of Popek\n"
		   "and Goldberg. docs/learn has a text for each example.\n",
	.opts = explain_opts, .max_args = 1, .main = explain_main};
