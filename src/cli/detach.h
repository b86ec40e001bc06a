/* Into the background, for the VM's process or a duplicate's session. */
#ifndef CLI_DETACH_H
#define CLI_DETACH_H

#include "vmm/instance.h"

/* In the child, before it has children of its own: a session, no terminal, messages into the log file of the VM. */
void leave_terminal(const struct instance *in);
/* In the parent: waits for one message, "+" and what to say if the VM runs, else why not. The status to exit with. */
int wait_for_vm(int fd, const char *name);

#endif
