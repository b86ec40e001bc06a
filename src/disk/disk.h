/* doppel-disk: the process of one disk. It holds the disk's files, the guest's memory, and a socket to its VM. */
#ifndef DISK_DISK_H
#define DISK_DISK_H

#include "base/patience.h"
#include "base/wake.h"
#include "devices/disk_proto.h"

/* What the ring code and the device know of the machine. */
struct machine {
	struct guestmem ram;
	struct loop *loop;
	int sock, file; /* file: an image that has no name; -1: none */
	bool gone; /* the VM is: nobody listens */
	const u8 *attr; /* page attributes; NULL: the KVM has none */
	u64 attr_pages;
	u8 attr_code;
	struct blk_shared *shared;
	struct wake_page *wake; /* NULL: calls go by eventfd only */
	struct virtio_blk *blk;
	struct virtio *v;
	bool patient; /* there is another core for the guest */
	bool looked;
	struct patience patience;
	u64 idle_since; /* nanoseconds */
	unsigned queues;
	struct queue {
		struct machine *m;
		unsigned index;
		int kick, call;
		u32 wake_source;
		u64 left_at; /* when an interrupt was left for a vCPU to find (base/wake.h); 0: none is. v->lock */
	} queue[BLK_QUEUES_MAX];
	/* messages that came while an answer was waited for */
	struct disk_msg later[8];
	unsigned n_later;
};

/* open.c: the first message: memory, image, eventfds. 0, or -errno and e says what to do */
int machine_open(struct machine *m, struct err *e);
int machine_serve(struct machine *m); /* serve.c: until the VM goes; then the image is closed */
int machine_send(struct machine *m, struct disk_msg *msg);
int sandbox_enter(void); /* sandbox.c */

#endif
