/* Frames on their way to a VM: small ones are gathered and sent many at a time; what its socket does not take waits. */
#ifndef NET_QUEUE_H
#define NET_QUEUE_H

#include "backends/net_proto.h"

enum { QUEUE_BYTES = 8 << 20 };

struct queue {
	u8 *buf;	  /* records {u32 length, message} */
	u32 head, tail;	  /* in buf */
	u32 bytes;	  /* waiting */
	u64 sent, dropped;
};
int queue_init(struct queue *q);
void queue_free(struct queue *q);
void queue_add(struct queue *q, int fd, const struct virtio_net_hdr_v1 *h, const u8 *frame, u32 len);
void queue_flush(struct queue *q, int fd);

#endif
