/* Inside the ACPI room: table headers, constants that tables and the PM device share. */
#ifndef VMM_ACPI_INT_H
#define VMM_ACPI_INT_H

#include "vmm/aml.h"

enum {
	ACPI_S5_TYPE = 5, /* SLP_TYP that means power off */
	ACPI_HEADER = 36,
	PM_EVT = 0,  /* offsets from PORT_PM: PM1a status and enable */
	PM_CNT = 4,  /* PM1a control */
	PM_TMR = 8,  /* PM timer */
	PM_SIZE = 12,
};

/* Starts a table at the end of a; acpi_finish() sets length and checksum of the table that starts at start. */
void acpi_header(struct aml *a, const char *signature, u8 revision);
long acpi_finish(struct aml *a, u32 start);

#endif
