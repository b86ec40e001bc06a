/* virtio-console: a console and named ports to the host. */
#ifndef DEVICES_VIRTIO_CONSOLE_H
#define DEVICES_VIRTIO_CONSOLE_H

#include "devices/pci.h"

enum { VIRTIO_CONSOLE_PORTS_MAX = 8 };

struct chardev;
struct virtio_console;
struct virtio_console_port_options {
	struct chardev *chardev; /* not owned; NULL: output vanishes */
	const char *name;        /* /dev/virtio-ports/NAME in a Linux guest; NULL: none */
	bool console;            /* a terminal (hvc): has a size */
};
struct virtio_console_options {
	unsigned
	    n_ports; /* 1 .. VIRTIO_CONSOLE_PORTS_MAX; port 0 is all that a driver without MULTIPORT sees */
	struct virtio_console_port_options port[VIRTIO_CONSOLE_PORTS_MAX];
};
int virtio_console_create(struct machine *m, struct pci_host *h, const struct virtio_console_options *c,
			  struct virtio_console **out);

#endif
