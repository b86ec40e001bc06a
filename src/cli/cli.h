/* The doppel command: each subcommand is one file with one struct command. */
#ifndef CLI_CLI_H
#define CLI_CLI_H

#include "base/version.h"
#include "cli/opts.h"

enum { EXIT_DOPPEL = 125 }; /* doppel itself failed */

extern const struct command cmd_run, cmd_ps, cmd_console, cmd_stop, cmd_pause, cmd_resume, cmd_stats, cmd_doctor, cmd_help,
	cmd_debug, cmd_regs, cmd_mem, cmd_disasm, cmd_screenshot, cmd_symbols, cmd_autopsy, cmd_profile, cmd_coverage, cmd_version, cmd_exec, cmd_logs, cmd_cp,
	cmd_diff, cmd_apply, cmd_discard;

const struct command *cli_find(const char *name);
void cli_overview(void);
int cli_fail(const struct err *e); /* says it; returns EXIT_DOPPEL */

#endif
