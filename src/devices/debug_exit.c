/*
 * isa-debug-exit, as test kernels know it from QEMU: a write of v ends the machine with status (v << 1) | 1,
 * so that success of the guest (an odd status) is never taken for success of the monitor (0). Reads give 0.
 */
#include "devices/debug_exit.h"

#include <errno.h>
#include <stdlib.h>

struct debug_exit {
	struct device dev;
	struct region region;
};

static u64 debug_exit_read(void *dev, u64 offset, unsigned size)
{
	return 0;
}

static void debug_exit_write(void *dev, u64 offset, unsigned size, u64 value)
{
	struct debug_exit *d = dev;
	machine_request(d->dev.machine, MACHINE_DEBUG_EXIT, (int)((u32)value << 1 | 1));
}

static const struct region_ops debug_exit_ops = {.read = debug_exit_read, .write = debug_exit_write};

static void debug_exit_reset(struct device *d) {}

static void debug_exit_destroy(struct device *d)
{
	struct debug_exit *x = container_of(d, struct debug_exit, dev);
	bus_del(machine_pio(d->machine), &x->region);
	free(x);
}

static const struct device_class debug_exit_class = {
    .name = "debug-exit", .reset = debug_exit_reset, .destroy = debug_exit_destroy};

int debug_exit_create(struct machine *m, const struct debug_exit_config *c, struct debug_exit **out)
{
	struct debug_exit *x = calloc(1, sizeof(*x));
	if (!x)
		return -ENOMEM;
	x->dev = (struct device){.cls = &debug_exit_class, .machine = m};
	x->region = (struct region){.name = "debug-exit",
				    .base = c->port,
				    .size = 4,
				    .min_size = 1,
				    .max_size = 4,
				    .ops = &debug_exit_ops,
				    .dev = x,
				    .enabled = true};
	int r = bus_add(machine_pio(m), &x->region);
	if (r) {
		free(x);
		return r;
	}
	machine_add_device(m, &x->dev);
	*out = x;
	return 0;
}
