/* pvpanic: the port on which a guest kernel says that it has panicked. */
#ifndef DEVICES_PVPANIC_H
#define DEVICES_PVPANIC_H

#include "devices/machine_if.h"

enum { PORT_PVPANIC = 0x505 };

struct pvpanic;
int pvpanic_create(struct machine *m, struct pvpanic **out);

#endif
