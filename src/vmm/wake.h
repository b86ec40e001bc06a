/* The page by which processes that serve devices wake vCPUs (base/wake.h). */
#ifndef VMM_WAKE_H
#define VMM_WAKE_H

#include "base/types.h"

struct machine;
int wake_create(struct machine *m); /* 0 also if this KVM knows no such thing; or -errno */
void wake_free(struct machine *m);
/* A source for the eventfd; WAKE_SOURCES: there is no page, or it is full. */
u32 wake_source(struct machine *m, int eventfd);
void wake_forget(struct machine *m, u32 source); /* nobody's from now on; the eventfd may be closed */
bool wake_by(struct machine *m, u32 source);     /* false: write to the eventfd */
/* An eventfd, if it is a source of the page, becomes a GSI's, or nobody's. */
void wake_bound(struct machine *m, int eventfd, u32 gsi);
void wake_unbind(struct machine *m, int eventfd);

#endif
