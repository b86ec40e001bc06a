/*
 * Options of a subcommand: one table per subcommand says how each is spelled, what it takes and what it is for; parsing and --help
 * both come from it.
 */
#ifndef CLI_OPTS_H
#define CLI_OPTS_H

#include "base/base.h"

enum opt_kind {
	OPT_FLAG,   /* bool */
	OPT_STRING, /* const char * */
	OPT_SIZE,   /* u64, "512M" */
	OPT_UINT,   /* u32 */
	OPT_CALL,   /* parse() */
	OPT_END,
};
struct opt {
	const char *name; /* without the dashes */
	char letter;      /* 0: none */
	enum opt_kind kind;
	size_t offset;    /* into the target struct */
	const char *arg;  /* what --help calls the argument */
	const char *help;
	u64 min, max;     /* OPT_UINT, OPT_SIZE; max 0: no bound */
	int (*parse)(void *target, const char *value, struct err *e); /* OPT_CALL: e names value and why */
};

struct command {
	const char *name, *args, *summary; /* "run", "[options]", "starts a VM" */
	const char *details;               /* more text for --help; NULL */
	const struct opt *opts;            /* ends with OPT_END; NULL: none */
	int min_args, max_args;
	bool rest; /* arguments after "--" are a command: they count for neither, and stay behind the others */
	int (*main)(const struct command *c, int argc, char **argv); /* argv[0] is the subcommand; the process' status */
};

enum { OPTS_OK = 0, OPTS_DONE = 1 }; /* DONE: --help was answered */
/* Fills target; leaves argc and argv with the positional arguments only (argv[0] kept). Negative: error, said on stderr. */
int opts_parse(const struct command *c, void *target, int *argc, char **argv);
void opts_help(const struct command *c);

#endif
