/* MC146818 real-time clock and CMOS RAM. */
#ifndef DEVICES_CMOS_H
#define DEVICES_CMOS_H

#include "devices/machine_if.h"

struct cmos;
struct cmos_config {
	u64 ram_below_4g; /* bytes of RAM under the PCI hole, for the memory size bytes */
	u64 ram_above_4g;
	u32 gsi;                  /* 8 */
	u64 (*now_ns)(void *arg); /* wall clock in ns since 1970; NULL: the host's */
	void *now_arg;
};
int cmos_create(struct machine *m, const struct cmos_config *c, struct cmos **out); /* ports 70h, 71h */

#endif
