/* isa-debug-exit: a guest ends the machine with a status of its choice. */
#ifndef DEVICES_DEBUG_EXIT_H
#define DEVICES_DEBUG_EXIT_H

#include "devices/machine_if.h"

struct debug_exit;
struct debug_exit_config {
	u16 port; /* usually 0xf4 */
};
int debug_exit_create(struct machine *m, const struct debug_exit_config *c, struct debug_exit **out);

#endif
