/*
 * The writable layer of a duplicate: a sparse ext4 image on the host's disk under $XDG_STATE_HOME/doppel. A temporary one has no name
 * from the start, so nothing is left however we end; a kept one is NAME/layer.img, with NAME/layer.json beside it.
 */
#ifndef CLI_LAYER_H
#define CLI_LAYER_H

#include <limits.h>
#include "base/base.h"

struct layer {
	int fd;               /* of the image; also its lock */
	char dir[PATH_MAX];   /* of a kept one; "" */
	char path[PATH_MAX];  /* by which the VM opens the image */
	u64 created_ns;       /* CLOCK_REALTIME: what the host changed later is in conflict */
	bool fresh;
};
int layer_temporary(struct layer *l, struct err *e);
/* Opens or makes the kept layer of that name; make false: it must be there. */
int layer_kept(struct layer *l, const char *name, bool make, struct err *e);
void layer_close(struct layer *l);
/* When the kept one of that name was made; -errno: there is none. */
int layer_age(const char *name, u64 *created_ns);
/* Removes a kept one that nobody uses. */
int layer_discard(const char *name, struct err *e);

#endif
