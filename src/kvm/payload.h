/* How many bytes go each way with a KVM request: mostly in its number; the exceptions are in payload.c. */
#ifndef KVM_PAYLOAD_H
#define KVM_PAYLOAD_H

#include "base/types.h"

/* Bytes to send with the request whose argument is arg (a pointer in the caller's memory); by_value: arg itself is the value. */
u32 kvm_payload_in(unsigned long request, const void *arg, bool *by_value);
/* Room for the answer at arg. */
u32 kvm_payload_out(unsigned long request, const void *arg);

#endif
