/* Making and freeing a bus; what devices use of it stands in machine_if.h. */
#ifndef DEVICES_BUS_H
#define DEVICES_BUS_H

#include "devices/machine_if.h"

struct bus *bus_new(void);
void bus_free(struct bus *b); /* regions belong to their devices */

/* changed(arg) after each later bus_add() and bus_del(), on their thread, before they return. */
void bus_watch(struct bus *b, void (*changed)(void *arg), void *arg);
/* Sets the bit of each address below bits (a multiple of 8) where no region lies, enabled or not; clears the others. */
void bus_free_map(struct bus *b, u8 *map, u32 bits);

#endif
