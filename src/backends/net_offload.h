/*
 * What a network card does for its driver, in software (Virtio 1.2, 5.1.6.2): the checksum that a frame still needs, and cutting a
 * large TCP frame into segments. Header and frame are untrusted; both are checked before the frame is touched.
 */
#ifndef BACKENDS_NET_OFFLOAD_H
#define BACKENDS_NET_OFFLOAD_H

#include <linux/virtio_net.h>

#include "base/types.h"

/* Makes the frame whole: its checksum is right, a large TCP frame is one large IP packet. 0, or -EINVAL: header and frame do not
 * match. */
int offload_finish(const struct virtio_net_hdr_v1 *h, u8 *frame, u32 len) __attribute__((warn_unused_result));
/* Calls out for each segment, with its checksums right; for a frame that is not to be cut, once. -EINVAL as above. The frame is
 * scratch space. */
int offload_segment(const struct virtio_net_hdr_v1 *h, u8 *frame, u32 len, void (*out)(void *arg, const u8 *frame, u32 len),
		    void *arg) __attribute__((warn_unused_result));
/* The Internet checksum's sum over bytes, not folded (RFC 1071). */
u64 offload_sum(const u8 *p, u32 n, u64 sum);
u16 offload_fold(u64 sum);

#endif
