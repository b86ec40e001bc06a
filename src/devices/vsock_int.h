/*
 * Inside the vsock device: virtio_vsock.c has the rings and packets, vsock_host.c the host's sockets.
 *
 * Everything but reset runs on the main thread, with v.lock held; a reset from a vCPU thread only marks, and what it
 * ends is ended on the main thread.
 *
 * Flow control (Virtio 1.2, 5.10.6.3). Guest to host: VSOCK_BUF bytes per connection are buffered here at most; what the
 * guest sends beyond that is a broken rule and ends the connection. Host to guest: nothing is buffered; a socket is read
 * when the guest has given credit and a buffer.
 */
#ifndef DEVICES_VSOCK_INT_H
#define DEVICES_VSOCK_INT_H

#include <linux/virtio_vsock.h>

#include "devices/virtio.h"
#include "devices/virtio_vsock.h"

enum {
	VSOCK_HOST_CID = 2,
	VSOCK_CONNS_MAX = 256,
	VSOCK_BUF = 128 << 10,
	VSOCK_LINE_MAX = 32,
	VSOCK_REPLIES_MAX = 64,
};

enum vsock_state {
	VSOCK_LINE,      /* a host client that has not said where to yet */
	VSOCK_DIALING,   /* the guest's request; PATH_N is being reached */
	VSOCK_REQUESTED, /* the host's request; the guest has not answered */
	VSOCK_OPEN,
};
/* Packets owed to the guest, in the order in which they go. */
enum vsock_owed {
	VSOCK_OWE_REQUEST = 1,
	VSOCK_OWE_RESPONSE = 2,
	VSOCK_OWE_CREDIT = 4,
	VSOCK_OWE_CREDIT_REQUEST = 8,
	VSOCK_OWE_SHUTDOWN = 16,
};

struct vsock_conn {
	struct virtio_vsock *s;
	int fd; /* -1 while dialing */
	enum vsock_state state;
	u8 owed;
	u32 host_port, guest_port;
	u32 peer_alloc, peer_fwd; /* the guest's last word on its buffer */
	u32 sent;                 /* bytes to the guest, ever */
	u32 taken;                /* bytes of the guest that reached the socket, ever */
	u32 taken_told;
	u8 guest_shut;            /* VIRTIO_VSOCK_SHUTDOWN_*: what the guest will not do any more */
	u8 host_shut;
	bool in_ready;            /* the socket has bytes (or its end), and is not watched for them */
	bool asked_credit;
	bool hung_up;             /* the client is gone and the loop does not watch; what it wrote may still be there */
	u32 events;               /* what the loop watches */
	u8 *buf;                  /* from the guest, not yet taken by the socket */
	u32 head, n;
};

struct vsock_reply { /* RST to whom we do not know */
	u32 host_port, guest_port;
	u64 host_cid;
	u16 type;
};

struct virtio_vsock {
	struct virtio v;
	struct virtio_pci *pci;
	u8 config[8]; /* struct virtio_vsock_config */
	struct virtio_vsock_options o;
	struct vsock_conn *conn[VSOCK_CONNS_MAX];
	unsigned next; /* whose turn it is */
	u32 next_port;
	struct vsock_reply reply[VSOCK_REPLIES_MAX];
	unsigned n_replies;
	bool tx_waits; /* for room in reply[] */
	struct virtq_chain chain;
	struct iovec iov[VIRTQ_SIZE_MAX];
};

/* ---- virtio_vsock.c ---- */
void vsock_pump(struct virtio_vsock *s); /* sends the guest what is owed and readable */
/* An RST for these two; false: no room, nothing done. */
bool vsock_reply_rst(struct virtio_vsock *s, const struct vsock_reply *r);

/* ---- vsock_host.c ---- */
int vsock_host_start(struct virtio_vsock *s);
void vsock_host_stop(struct virtio_vsock *s);
struct vsock_conn *vsock_find(struct virtio_vsock *s, u32 host_port, u32 guest_port);
void vsock_conn_free(struct vsock_conn *c);
/* The guest asks for host port c->host_port; false: refused. */
bool vsock_dial(struct virtio_vsock *s, const struct virtio_vsock_hdr *h);
void vsock_accepted(struct vsock_conn *c);      /* by the guest: tells the client */
/* n bytes at offset 44 of the chain; false: more than was granted. The connection may end at the next event, not now. */
bool vsock_to_host(struct vsock_conn *c, const struct virtq_chain *chain, u32 n);
void vsock_guest_shut(struct vsock_conn *c);    /* guest_shut changed; may free c */
u32 vsock_credit(const struct vsock_conn *c);   /* bytes the guest will take */
/* Reads at most n into iov; bytes, 0 at the end, -EAGAIN: later (and watched again), -errno. */
ssize_t vsock_from_host(struct vsock_conn *c, const struct iovec *iov, unsigned n);

#endif
