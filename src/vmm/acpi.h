/* ACPI tables of the machine, and its power management device. */
#ifndef VMM_ACPI_H
#define VMM_ACPI_H

#include "base/base.h"
#include "devices/machine_if.h"
#include "vmm/memmap.h"

struct acpi_config {
	u32 ncpus;
	const struct memmap *map;
};
/* All tables as they lie at MEM_ACPI (RSDP first); size <= MEM_ACPI_SIZE. Returns the bytes used, or -ENOSPC. */
long acpi_build(const struct acpi_config *c, u8 *buf, u64 cap);
/* The DSDT alone (for tests): bytes with its header. */
long acpi_build_dsdt(const struct acpi_config *c, u8 *buf, u64 cap);

struct acpi_pm;
int acpi_pm_create(struct machine *m, struct acpi_pm **out);
void acpi_pm_power_button(struct acpi_pm *pm);

#endif
