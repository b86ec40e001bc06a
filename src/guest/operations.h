/* What the agent does itself: everything but running commands. */
#ifndef GUEST_OPERATIONS_H
#define GUEST_OPERATIONS_H

#include "guest/session_int.h"

void operation_serve(const struct agent *a, const struct request *r, struct stream *s);

/* Records (change.h) of what the layer changed, under these paths (none: everywhere); 0 or -errno. */
int layer_changes(const struct agent *a, char *const *paths, bool content, struct stream *s);

/* Everything written reaches the host. */
void agent_sync(const struct agent *a);
void __attribute__((noreturn)) agent_power_off(const struct agent *a);

#endif
