/* Options of doppel run for looking into the guest: --symbols, --panic, --autopsy, --branches. */
#ifndef CLI_INSIGHT_OPTS_H
#define CLI_INSIGHT_OPTS_H

#include "vmm/machine.h"

struct insight_options {
	const char *symbols, *autopsy, *panic;
	bool branches;
	int fd;
	struct symbols *table;
};
/* Opens and reads what they name, and tells the machine. */
int insight_options_open(struct insight_options *o, struct machine_config *cfg, struct err *e);
int insight_options_start(const struct insight_options *o, struct machine *m, struct err *e);
void insight_options_free(struct insight_options *o);

#endif
