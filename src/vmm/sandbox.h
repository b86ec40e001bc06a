/* What the process of a running VM may still ask of its host. */
#ifndef VMM_SANDBOX_H
#define VMM_SANDBOX_H

#include "base/base.h"

/*
 * For good, in all threads: no new privileges, and the system calls of a VM that runs and ends. Whatever needs more (files, sockets,
 * threads, processes) is acquired before. Anything else kills the process, after one line that names the call.
 */
int sandbox_enter(bool kvm_device, int engine_pid, struct err *e);

#endif
