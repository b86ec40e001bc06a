/* The agent: process 1 of a duplicate, once the machine is put together. */
#ifndef GUEST_AGENT_H
#define GUEST_AGENT_H

#include "guest/session.h"

/* The driver that is loaded last, by agent_serve(): whoever waits for the agent is let in by its coming. */
#define AGENT_TRANSPORT "vmw_vsock_virtio_transport."

/* Returns only on failure, with errno. */
void agent_serve(const struct agent *a);

#endif
