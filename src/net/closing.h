/*
 * Connections that have ended. After a close from the network's side libslirp holds a connection for ten more seconds (TIME_WAIT), with
 * its socket and buffers, against segments that wander about in the net; between it and the guest there is none where they could.
 * So when both FINs have been sent and acknowledged, libslirp gets a RST as if from the guest, which ends TIME_WAIT.
 */
#ifndef NET_CLOSING_H
#define NET_CLOSING_H

#include "base/types.h"

enum { CLOSING_FRAME = 74 }; /* Ethernet, IPv6, TCP */

struct closing;
struct closing *closing_new(void); /* NULL: no memory */
void closing_free(struct closing *c);
void closing_from_net(struct closing *c, const u8 *frame, u32 len);
void closing_from_guest(struct closing *c, const u8 *frame, u32 len);
/* After libslirp has taken a frame: length of the RST that is due now, 0: none. */
u32 closing_rst(struct closing *c, u8 frame[CLOSING_FRAME]);

#endif
