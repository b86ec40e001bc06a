/* Entering and leaving guest execution: see vm_safepoint() in vm.h for the other side. */
#ifndef ENGINE_SAFEPOINT_H
#define ENGINE_SAFEPOINT_H

#include "engine/vm.h"

/* Owning thread. Enter may wait for a safe point to end. */
void vcpu_enter_guest(struct vcpu *cpu);
void vcpu_leave_guest(struct vcpu *cpu);

#endif
