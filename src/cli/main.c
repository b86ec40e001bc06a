/* doppel: the table of subcommands. */
#include <stdio.h>
#include <string.h>
#include "cli/cli.h"

static const struct command *const commands[] = {
#define X(name) &cmd_##name,
	CLI_COMMANDS(X)
#undef X
};

const struct command *cli_find(const char *name)
{
	for (u32 i = 0; i < ARRAY_SIZE(commands); i++)
		if (!strcmp(commands[i]->name, name))
			return commands[i];
	return NULL;
}

void cli_overview(void)
{
	printf("doppel: virtual machines as ordinary processes, with or without /dev/kvm\n\n"
	       "usage: doppel COMMAND [options] [arguments]\n\n");
	for (u32 i = 0; i < ARRAY_SIZE(commands); i++)
		printf("  %-10s %s\n", commands[i]->name, commands[i]->summary);
	printf("\ndoppel COMMAND --help tells more; so does doppel(1).\n");
}

int cli_fail(const struct err *e)
{
	log_msg(LOG_ERROR, "%s", e->text);
	return EXIT_DOPPEL;
}

int main(int argc, char **argv)
{
	const struct command *c = NULL;
	char *alone[] = {argv[0], NULL};

	if (argc < 2) {
		cli_overview();
		return EXIT_DOPPEL;
	}
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"))
		return cmd_help.main(&cmd_help, 1, alone);
	if (!strcmp(argv[1], "--version") || !strcmp(argv[1], "-V"))
		return cmd_version.main(&cmd_version, 1, alone);
	c = cli_find(argv[1]);
	if (!c) {
		log_msg(LOG_ERROR, "%s: no such command (doppel --help lists them)", argv[1]);
		return EXIT_DOPPEL;
	}
	return c->main(c, argc - 1, argv + 1);
}
