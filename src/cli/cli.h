/* The doppel command: each subcommand is one file with one struct command. */
#ifndef CLI_CLI_H
#define CLI_CLI_H

#include "base/version.h"
#include "cli/opts.h"

enum { EXIT_DOPPEL = 125 }; /* doppel itself failed */

/* All subcommands, in the order of the overview. */
#define CLI_COMMANDS(X)                                                                                          \
	X(run) X(exec) X(ps) X(logs) X(console) X(stop) X(pause) X(resume)                                       \
	X(cp) X(diff) X(apply) X(discard)                                                                        \
	X(stats) X(top)                                                                                          \
	X(debug) X(regs) X(mem) X(disasm) X(screenshot) X(symbols) X(autopsy) X(profile) X(coverage)             \
	X(trace) X(explain)                                                                                      \
	X(doctor) X(help) X(version)
#define X(name) extern const struct command cmd_##name;
CLI_COMMANDS(X)
#undef X

const struct command *cli_find(const char *name);
void cli_overview(void);
int cli_fail(const struct err *e); /* says it; returns EXIT_DOPPEL */

#endif
