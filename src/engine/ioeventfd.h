/* KVM_IOEVENTFD. */
#ifndef ENGINE_IOEVENTFD_H
#define ENGINE_IOEVENTFD_H

#include "engine/vm.h"

/* Main thread. Takes fd. 0 or -errno. */
int vm_ioeventfd(struct vm *vm, const struct kvm_ioeventfd *q, int fd);

#endif
