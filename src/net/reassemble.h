/*
 * IPv4 datagrams out of the fragments that a guest sends (RFC 791): libslirp gets whole packets only. Fragments that overlap, or do
 * not fit together, lose their datagram.
 */
#ifndef NET_REASSEMBLE_H
#define NET_REASSEMBLE_H

#include "base/types.h"

struct reassembler;
struct reassembler *reassembler_new(void); /* NULL: no memory */
void reassembler_free(struct reassembler *r);
/* A frame that filter_allows. True for a fragment. */
bool reassemble_needed(const u8 *frame);
/* Takes a fragment; the whole frame when it was the last missing one (valid until the next call), else NULL. */
const u8 *reassemble(struct reassembler *r, const u8 *frame, u64 now_ms, u32 *len);

#endif
