/*
 * Between the VMM and doppel-net: a SOCK_SEQPACKET socket. A message is a virtio-net header and an Ethernet frame, or, told by the
 * header's num_buffers, which frames do not use, a word from one to the other. doppel-net's first message is LINK_READY or
 * LINK_FAILED with a text.
 */
#ifndef BACKENDS_NET_PROTO_H
#define BACKENDS_NET_PROTO_H

#include "backends/net.h"

enum link_type {
	LINK_FRAME,
	LINK_READY,
	LINK_FAILED,   /* text */
	LINK_OFFLOADS, /* u64: VIRTIO_NET_F_GUEST_* that the VM understands */
	LINK_TYPES
};
enum { LINK_MESSAGE_MAX = NET_HDR + NET_FRAME_MAX, LINK_BUFFER = 4 << 20 };

#endif
