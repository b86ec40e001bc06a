/* --disk FILE[,OPTION...] */
#ifndef CLI_DISK_OPT_H
#define CLI_DISK_OPT_H

#include "vmm/machine.h"

/* d->disk.path is to be freed. */
int disk_opt_parse(const char *value, struct machine_disk *d, struct err *e);

#endif
