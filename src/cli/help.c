/* doppel help, doppel version. */
#include <stdio.h>
#include "cli/cli.h"

static int help_main(const struct command *c, int argc, char **argv)
{
	const struct command *about = NULL;
	int ret = opts_parse(c, NULL, &argc, argv);

	if (ret)
		return ret == OPTS_DONE ? 0 : EXIT_DOPPEL;
	if (argc < 2) {
		cli_overview();
		return 0;
	}
	about = cli_find(argv[1]);
	if (!about) {
		log_msg(LOG_ERROR, "%s: no such command (doppel --help lists them)", argv[1]);
		return EXIT_DOPPEL;
	}
	opts_help(about);
	return 0;
}

const struct command cmd_help = {
	.name = "help", .args = "[COMMAND]", .summary = "explains doppel or a command", .max_args = 1, .main = help_main};

static int version_main(const struct command *c, int argc, char **argv)
{
	int ret = opts_parse(c, NULL, &argc, argv);

	if (ret)
		return ret == OPTS_DONE ? 0 : EXIT_DOPPEL;
	printf("doppel %s\n", DOPPEL_VERSION);
	return 0;
}

const struct command cmd_version = {
	.name = "version", .args = "", .summary = "prints the version", .main = version_main};
