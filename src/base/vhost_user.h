/*
 * The vhost-user protocol (QEMU, docs/interop/vhost-user.rst), as far as doppel speaks it, for both ends: the
 * VMM (front-end) and device servers (back-ends). A message is a header and a payload on a Unix stream
 * socket; descriptors come with the header.
 */
#ifndef BASE_VHOST_USER_H
#define BASE_VHOST_USER_H

#include "base/base.h"

enum vhost_user_request {
	VU_GET_FEATURES = 1,
	VU_SET_FEATURES = 2,
	VU_SET_OWNER = 3,
	VU_RESET_OWNER = 4,
	VU_SET_MEM_TABLE = 5,
	VU_SET_VRING_NUM = 8,
	VU_SET_VRING_ADDR = 9,
	VU_SET_VRING_BASE = 10,
	VU_GET_VRING_BASE = 11,
	VU_SET_VRING_KICK = 12,
	VU_SET_VRING_CALL = 13,
	VU_SET_VRING_ERR = 14,
	VU_GET_PROTOCOL_FEATURES = 15,
	VU_SET_PROTOCOL_FEATURES = 16,
	VU_GET_QUEUE_NUM = 17,
	VU_SET_VRING_ENABLE = 18,
	VU_GET_CONFIG = 24,
	VU_SET_CONFIG = 25,
	VU_SET_DIRECT = 200, /* doppel's own */
};

/* feature bits beside those of Virtio, and protocol feature bits */
enum { VHOST_USER_F_PROTOCOL_FEATURES = 30 };
enum { VU_PROTOCOL_MQ = 0, VU_PROTOCOL_REPLY_ACK = 3, VU_PROTOCOL_CONFIG = 9 };
/*
 * doppel's own, between its VMM and its servers: the back-end can do what it takes to be given the guest's own rings, and learns by
 * VU_SET_DIRECT with what. Before it publishes an answer it tells of pages written that hold code (struct vu_written on the channel, a
 * SOCK_SEQPACKET, answered by the same), and of a ring that the driver broke (the same, of size 0); and it may ring vCPUs (base/wake.h).
 */
enum { VU_PROTOCOL_DIRECT = 62, VU_DIRECT_QUEUES = 9 };

enum { VU_VERSION = 1, VU_VERSION_MASK = 3, VU_REPLY = 4, VU_NEED_REPLY = 8 };
enum { VU_REGIONS_MAX = 8, VU_FDS_MAX = 8, VU_CONFIG_MAX = 256 };
enum { VU_INDEX_MASK = 0xff, VU_NO_FD = 0x100 }; /* payload of SET_VRING_KICK, CALL and ERR */

struct vu_header {
	u32 request, flags, size;
};
struct vu_vring_state {
	u32 index, num;
};
struct vu_vring_addr {
	u32 index, flags;
	u64 desc, used, avail, log; /* addresses in the front-end's own memory */
};
struct vu_region {
	u64 gpa, size, user_addr, mmap_offset;
};
struct vu_mem_table {
	u32 n, padding;
	struct vu_region region[VU_REGIONS_MAX];
};
struct vu_config {
	u32 offset, size, flags;
	u8 data[VU_CONFIG_MAX];
};

/* Descriptors, in this order: the channel, the pages' attributes unless there are 0, the window's socket unless it is of size 0 (base/window.h), the
 * wake page if has_wake. */
struct vu_direct {
	u64 attr_pages, window;
	u64 windows_gpa, windows_size; /* where any device has such (devices/guestmem.h) */
	u32 attr_code; /* a page's byte has these bits: it holds code */
	u32 has_wake;
	u32 wake_source[VU_DIRECT_QUEUES], padding;
};
struct vu_written {
	u64 gpa, size;
};

struct vu_message {
	struct vu_header h;
	union {
		u8 payload[268]; /* VU_PAYLOAD_MAX */
		u64 u64;
		struct vu_vring_state state;
		struct vu_vring_addr addr;
		struct vu_mem_table mem;
		struct vu_config config;
		struct vu_direct direct;
	};
	int fds[VU_FDS_MAX];
	unsigned n_fds;
};
enum { VU_HEADER_BYTES = 12, VU_PAYLOAD_MAX = 268 };

/* Sends header, h.size bytes of payload and the fds, which stay the caller's. 0 or -errno. */
int vu_send(int sock, const struct vu_message *m);
/*
 * Receives one message; its fds are the caller's then. 0, -ECONNRESET when the peer has closed, -EPROTO for
 * what is no message (too long, another version), -ETIMEDOUT when timeout_ms (< 0: none) passes, other
 * -errno. After an error the stream is of no more use.
 */
int vu_receive(int sock, struct vu_message *m, int timeout_ms);
void vu_close_fds(struct vu_message *m);

#endif
