/*
 * Between the VMM and a disk's process (doppel-disk): messages on a SEQPACKET socket, struct disk_msg each. The first goes to
 * the process, with the descriptors; READY or REFUSED comes back. From then on nobody waits for the other, with one exception:
 * a process that has written where the guest has code (WRITTEN) does not go on before NOTED.
 *
 * Requests and data take other ways: the rings and the guest's memory are mapped by the process, kicks come by eventfd from the
 * KVM, and interrupts go by eventfd to the KVM.
 */
#ifndef DEVICES_DISK_PROTO_H
#define DEVICES_DISK_PROTO_H

#include "backends/disk.h"
#include "devices/guestmem.h"
#include "devices/virtio_blk.h"

enum { DISK_SOCKET = 3, DISK_PATH_MAX = 4096, DISK_FDS_MAX = 4 + GUESTMEM_SLOTS + 2 * BLK_QUEUES_MAX };

enum disk_msg_type {
	/* to the process */
	DISK_OPEN,
	DISK_START,  /* the driver is there: features, rings */
	DISK_RESET,  /* answered by QUIET when nothing touches the guest's memory any more */
	DISK_RESUME, /* the VM goes on: what was held for want of room is tried again */
	DISK_NOTED,
	/* from it */
	DISK_READY,
	DISK_REFUSED,
	DISK_QUIET,
	DISK_NO_ROOM, /* the host's disk is full, and the VM is to pause */
	DISK_BROKEN,  /* the driver broke the rules */
	DISK_WRITTEN,
};

/* Descriptors, in this order: struct blk_shared, one for each slot of memory, page attributes if there are, the wake page if
 * has_wake, the file if has_file, then kick and call of each queue. */
struct disk_open {
	struct {
		u64 gpa, size, offset;
	} slot[GUESTMEM_SLOTS];
	u64 windows_gpa, windows_size;
	u32 nslots, queues;
	struct page_attr attr; /* fd: >= 0 if there are any */
	bool stop_on_enospc;
	bool has_wake;
	u32 wake_source[BLK_QUEUES_MAX]; /* base/wake.h */
	bool has_file; /* the path was one of the VM's own descriptors, /proc/self/fd/N: it comes along */
	struct disk_config config; /* path is behind */
	char serial[21], path[DISK_PATH_MAX];
};
struct disk_start {
	u64 features;
	struct {
		u64 desc, avail, used;
		u32 size; /* 0: not enabled */
	} queue[BLK_QUEUES_MAX];
};
struct disk_msg {
	enum disk_msg_type type;
	union {
		struct disk_open open;
		struct disk_start start;
		bool drop; /* RESET: what is held is forgotten too */
		struct blk_shape ready;
		char refused[400];
		struct {
			u64 gpa, size;
		} written;
	};
};

/* Starts the process and hands it what m->open says. *sock and *pid are its. 0, or -errno and e. */
int disk_process_start(struct disk_msg *m, const int *fds, unsigned n_fds, struct blk_shape *shape, int *sock, int *pid,
		       struct err *e);
/* Bytes of a message of this type. */
u32 disk_msg_size(enum disk_msg_type t);

#endif
