/* Which frames of the guest the user-mode network takes. */
#ifndef NET_FILTER_H
#define NET_FILTER_H

#include "base/types.h"

/*
 * False for packets to addresses that mean "this machine" to the host's kernel: libslirp would connect to what listens on the
 * loopback. Only 10.0.2.2 and fec0::2 may lead there, and only when asked for.
 */
bool filter_allows(const u8 *frame, u32 len);

#endif
