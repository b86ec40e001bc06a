/* 16550A serial port. */
#ifndef DEVICES_UART_H
#define DEVICES_UART_H

#include "devices/machine_if.h"

struct chardev;
struct uart;
struct uart_config {
	u16 port;                /* 0x3f8, 0x2f8, ... */
	u32 gsi;                 /* 4, 3, ... */
	struct chardev *chardev; /* NULL: nothing is connected; not owned */
};
int uart_create(struct machine *m, const struct uart_config *c, struct uart **out);

#endif
