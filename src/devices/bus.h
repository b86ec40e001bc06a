/* Making and freeing a bus; what devices use of it stands in machine_if.h. */
#ifndef DEVICES_BUS_H
#define DEVICES_BUS_H

#include "devices/machine_if.h"

struct bus *bus_new(void);
void bus_free(struct bus *b); /* regions belong to their devices */

#endif
