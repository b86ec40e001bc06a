/* Keyboard controller without a keyboard, and system control port A (92h). */
#ifndef DEVICES_I8042_H
#define DEVICES_I8042_H

#include "devices/machine_if.h"

struct i8042;
int i8042_create(struct machine *m, struct i8042 **out); /* ports 60h, 64h, 92h */

#endif
