/* --share: what it says. */
#ifndef CLI_SHARE_H
#define CLI_SHARE_H

#include "vmm/share.h"

struct share_option {
	struct machine_share share; /* path: to be freed */
	const char *guest; /* where the guest mounts it; NULL: the same path as here. In path's memory */
};
/* HOST[:GUEST][:rw][:cache=POLICY]; index: how many there were before */
int share_parse(struct share_option *o, const char *value, u32 index, struct err *e);

#endif
