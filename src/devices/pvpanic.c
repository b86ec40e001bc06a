/*
 * pvpanic (QEMU, docs/specs/pvpanic): one port. A read gives the events that are known, a write tells of some; here it is
 * bit 0, "the guest has panicked". ACPI presents it as QEMU0001.
 */
#include "devices/pvpanic.h"

#include <errno.h>
#include <stdlib.h>

#include "devices/bus.h"

enum { PANICKED = 1 << 0 };

struct pvpanic {
	struct device dev;
	struct region region;
};

static u64 pvpanic_read(void *dev, u64 offset, unsigned size)
{
	return PANICKED;
}

static void pvpanic_write(void *dev, u64 offset, unsigned size, u64 value)
{
	struct pvpanic *p = dev;

	if (value & PANICKED)
		machine_request(p->dev.machine, MACHINE_PANIC, 0);
}

static const struct region_ops pvpanic_ops = {.read = pvpanic_read, .write = pvpanic_write};

static void pvpanic_destroy(struct device *d)
{
	struct pvpanic *p = container_of(d, struct pvpanic, dev);

	bus_del(machine_pio(d->machine), &p->region);
	free(p);
}

static const struct device_class pvpanic_class = {.name = "pvpanic", .destroy = pvpanic_destroy};

int pvpanic_create(struct machine *m, struct pvpanic **out)
{
	struct pvpanic *p = calloc(1, sizeof(*p));
	int ret = 0;

	if (!p)
		return -ENOMEM;
	p->dev = (struct device){.cls = &pvpanic_class, .machine = m};
	p->region = (struct region){.name = "pvpanic", .base = PORT_PVPANIC, .size = 1, .min_size = 1, .max_size = 1,
				    .ops = &pvpanic_ops, .dev = p, .enabled = true};
	ret = bus_add(machine_pio(m), &p->region);
	if (ret) {
		free(p);
		return ret;
	}
	machine_add_device(m, &p->dev);
	*out = p;
	return 0;
}
