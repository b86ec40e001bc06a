/* doppel exec: one more command in a duplicate that runs. */
#include <limits.h>
#include <unistd.h>
#include <string.h>
#include "cli/cli.h"
#include "cli/duplicate.h"

struct exec_options {
	struct duplicate_options dup; /* env */
	const char *workdir, *user;
};

static int parse_env(void *target, const char *value, struct err *e)
{
	return duplicate_parse_env(&((struct exec_options *)target)->dup, value, e);
}

#define AT(field) offsetof(struct exec_options, field)
static const struct opt exec_opts[] = {
	{"env", 0, OPT_CALL, 0, "NAME[=VALUE]", "variable for the command, besides those here", 0, 0, parse_env},
	{"workdir", 'w', OPT_STRING, AT(workdir), "DIR", "the command's directory (default: this one)", 0, 0, NULL},
	{"user", 'u', OPT_STRING, AT(user), "USER[:GROUP]", "who the command is (default: you)", 0, 0, NULL},
	{NULL, 0, OPT_END, 0, NULL, NULL, 0, 0, NULL},
};

static int exec_main(const struct command *c, int argc, char **argv)
{
	struct exec_options o = {0};
	struct session_result result;
	struct user user;
	struct err e = {0};
	char cwd[PATH_MAX];
	int ret = opts_parse(c, &o, &argc, argv);
	const struct duplicate_command command = {.argv = argc > 2 ? argv + 2 : NULL};

	if (ret)
		return ret == OPTS_DONE ? 0 : EXIT_DOPPEL;
	if (duplicate_cwd(o.workdir, cwd, sizeof(cwd), &e) < 0 || user_resolve(&user, o.user, o.dup.env, o.dup.n_env, &e) < 0)
		return cli_fail(&e);
	ret = duplicate_session(&user, cwd, argv[1], &command, NULL, &result, &e);
	ret = ret ? cli_fail(&e) : session_status(&result, command.argv ? command.argv[0] : user.shell);
	user_free(&user);
	return ret;
}

const struct command cmd_exec = {
	.name = "exec",
	.args = "[options] NAME [-- COMMAND ARG...]",
	.summary = "runs a command in a duplicate that runs; without one a shell",
	.opts = exec_opts,
	.min_args = 1,
	.max_args = 1,
	.rest = true,
	.main = exec_main,
};
