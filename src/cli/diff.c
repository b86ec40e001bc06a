/*
 * doppel diff, apply, discard: what a duplicate changed. Its agent is asked: the one that runs under that name, or one that is booted
 * for it on the kept layer.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "cli/apply.h"
#include "cli/changes.h"
#include "cli/cli.h"
#include "cli/duplicate.h"

static bool running(const char *name)
{
	struct instance_info info;
	struct err e = {0};

	return instance_read_info(name, &info, &e) == 0;
}

static int ask(const char *vm, u32 operation, char **paths, struct changes *c, struct err *e)
{
	int ret = duplicate_operation(vm, operation, paths, changes_sink, c, e);

	if (!ret && !changes_whole(c))
		ret = err_set(e, EPROTO, "%s: its agent broke off", vm);
	changes_free(c);
	return ret;
}

/* ---- diff ---- */
int print_changes(const char *vm, void *file, struct err *e)
{
	struct changes c = {.record = changes_print, .arg = file};
	int ret = ask(vm, OP_DIFF, NULL, &c, e);

	return !ret && fflush(file) ? err_set(e, errno, "output: %s", strerror(errno)) : ret;
}

static int print_work(void *arg, const char *vm, struct err *e)
{
	return print_changes(vm, arg, e);
}

static int diff_main(const struct command *c, int argc, char **argv)
{
	struct err e = {0};
	int ret = opts_parse(c, NULL, &argc, argv);

	if (ret)
		return ret == OPTS_DONE ? 0 : EXIT_DOPPEL;
	if (!running(argv[1]))
		return run_on_layer(argv[1], print_work, stdout);
	return print_changes(argv[1], stdout, &e) < 0 ? cli_fail(&e) : 0;
}

const struct command cmd_diff = {
	.name = "diff",
	.args = "NAME",
	.summary = "lists what a duplicate changed: A added, C changed, D deleted",
	.min_args = 1,
	.max_args = 1,
	.main = diff_main,
};

/* ---- apply ---- */
struct apply_options {
	bool force;
};
static const struct opt apply_opts[] = {
	{"force", 'f', OPT_FLAG, offsetof(struct apply_options, force), NULL, "also over what changed here meanwhile", 0, 0, NULL},
	{NULL, 0, OPT_END, 0, NULL, NULL, 0, 0, NULL},
};
struct apply_work {
	struct apply a;
	char **paths;
};

/* All is checked before anything is changed. */
static int apply_work(void *arg, const char *vm, struct err *e)
{
	struct apply_work *w = arg;
	struct changes check = {.record = apply_check, .arg = &w->a};
	struct changes commit = {.record = apply_record, .content = apply_content, .arg = &w->a};
	int ret = w->a.force ? 0 : ask(vm, OP_DIFF, w->paths, &check, e);

	if (ret || w->a.conflicts)
		return ret;
	return ask(vm, OP_EXPORT, w->paths, &commit, e);
}

/* The layer is as old as its duplicate. */
static int find_age(const char *name, u64 *since_ns, struct err *e)
{
	struct instance_info info;
	int ret = layer_age(name, since_ns);

	if (!ret)
		return 0;
	ret = instance_read_info(name, &info, e);
	*since_ns = info.started * 1000000000ull;
	return ret;
}

static int check_paths(char **paths)
{
	for (; *paths; paths++) {
		if (paths[0][0] != '/' || strstr(*paths, "/../") || strstr(*paths, "//")) {
			log_msg(LOG_ERROR, "apply: %s: not an absolute path of the duplicate, as doppel diff shows it", *paths);
			return -EINVAL;
		}
	}
	return 0;
}

static int report(const struct apply *a)
{
	if (a->conflicts)
		log_msg(LOG_ERROR, "apply: %u in conflict: %s (--force overwrites them)", a->conflicts,
			a->done ? "left as they are" : "nothing was changed");
	if (!a->conflicts && !a->failed && !a->done)
		log_msg(LOG_ERROR, "apply: the duplicate changed nothing there");
	return a->conflicts || a->failed || !a->done ? 1 : 0;
}

static int apply_main(const struct command *c, int argc, char **argv)
{
	struct apply_options o = {0};
	struct apply_work w = {.a = {.dir = -1, .file = -1}};
	struct err e = {0};
	int ret = opts_parse(c, &o, &argc, argv);

	if (ret)
		return ret == OPTS_DONE ? 0 : EXIT_DOPPEL;
	w.paths = argv + 2;
	w.a.force = o.force;
	if (check_paths(w.paths) < 0)
		return EXIT_DOPPEL;
	if (find_age(argv[1], &w.a.since_ns, &e) < 0)
		return cli_fail(&e);
	w.a.root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (!running(argv[1]))
		ret = run_on_layer(argv[1], apply_work, &w);
	else if (apply_work(&w, argv[1], &e) < 0)
		ret = cli_fail(&e);
	apply_free(&w.a);
	close(w.a.root);
	return ret ? ret : report(&w.a);
}

const struct command cmd_apply = {
	.name = "apply",
	.args = "[--force] NAME [PATH...]",
	.summary = "brings what a duplicate changed (there) back to this machine",
	.details = "Status 1: something was not brought back; stderr says what.\n",
	.opts = apply_opts,
	.min_args = 1,
	.max_args = 4096,
	.main = apply_main,
};

/* ---- discard ---- */
static int discard_main(const struct command *c, int argc, char **argv)
{
	struct err e = {0};
	int ret = opts_parse(c, NULL, &argc, argv);

	if (ret)
		return ret == OPTS_DONE ? 0 : EXIT_DOPPEL;
	return layer_discard(argv[1], &e) < 0 ? cli_fail(&e) : 0;
}

const struct command cmd_discard = {
	.name = "discard",
	.args = "NAME",
	.summary = "removes a kept duplicate and what it changed",
	.min_args = 1,
	.max_args = 1,
	.main = discard_main,
};
