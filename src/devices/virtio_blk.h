/*
 * virtio-blk: disks, in two halves. virtio_blk.c serves the requests, in a process that holds the image and nothing else
 * (src/disk); virtio_disk.c is the PCI device in the VMM. What both must know of a disk stands here.
 */
#ifndef DEVICES_VIRTIO_BLK_H
#define DEVICES_VIRTIO_BLK_H

#include <linux/virtio_blk.h>
#include "devices/virtio.h"

enum { BLK_QUEUES_MAX = 8, BLK_QUEUE_SIZE = 256, BLK_CLASS = 0x010000 /* SCSI, other */ };

/* What the guest is told of a disk. */
struct blk_shape {
	u64 size;
	u32 block_size, discard_align;
	u8 read_only, can_discard, write_through;
};
u64 blk_features(const struct blk_shape *s, unsigned queues);
void blk_config(struct virtio_blk_config *c, const struct blk_shape *s, unsigned queues);

/* The KVM's notes on the guest's pages, a byte each, for who writes guest memory without the VMM: where one has the bits of code,
 * the VMM must be told. */
struct page_attr {
	int fd; /* -1: the KVM has none */
	u8 code;
	u64 bytes;
};

#define BLK_COUNTERS(X)                                                                                          \
	X(reads) X(writes) X(flushes) X(discards) X(errors) X(read_bytes) X(written_bytes)
struct blk_counters {
#define X(name) u64 name;
	BLK_COUNTERS(X)
#undef X
};

/*
 * A page that both halves map. The server keeps books here so that the VMM, should the server die, can answer what it had
 * taken: heads of chains that are taken and not answered, and where it stood in the rings. It is read then, and believed in
 * nothing that would harm anybody but the guest.
 */
struct blk_shared {
	struct blk_counters counters;
	struct blk_books {
		u16 avail_next, used_next;
		u8 busy[BLK_QUEUE_SIZE];
	} queue[BLK_QUEUES_MAX];
};

/* ---- the server's half ---- */
struct disk;
struct virtio_blk;
struct virtio_blk_options {
	struct disk *disk;  /* owned by the device from success on */
	const char *serial; /* up to 20 bytes, for GET_ID; NULL: none */
	unsigned queues;    /* as many as the guest has CPUs; bounded, 0 is 1 */
	bool stop_on_enospc;
	struct blk_shared *shared; /* NULL: nobody else looks */
};
int virtio_blk_create(struct machine *m, const struct virtio_blk_options *o, struct virtio_blk **out);
struct virtio *virtio_blk_virtio(struct virtio_blk *b);
void virtio_blk_shape(const struct virtio_blk *b, struct blk_shape *s);
bool virtio_blk_idle(const struct virtio_blk *b); /* no request is taken and not answered */
void virtio_blk_drain(struct virtio_blk *b);  /* answers all but what is held, and forgets that */
void virtio_blk_resume(struct virtio_blk *b); /* tries again what was held for want of room */
/* The end, in two steps: the last answers may still need the transport. */
void virtio_blk_close(struct virtio_blk *b);
void virtio_blk_free(struct virtio_blk *b);

#endif
