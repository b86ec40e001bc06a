/* Inside the front-end of vhost-user: its state, its messages, its relay. v->lock is held once the vCPUs run.
 */
#ifndef DEVICES_VHOST_USER_INT_H
#define DEVICES_VHOST_USER_INT_H

#include "base/vhost_user.h"
#include "devices/guestmem.h"
#include "devices/vhost_user.h"

struct segment {
	gpa_t gpa;
	u32 len;
};
struct flight { /* a chain the server has */
	bool busy;
	u16 n_out, n_in, room;
	struct segment *seg;
};

struct relay { /* a queue */
	struct vhost_user *u;
	unsigned index;
	u8 *area; /* shared with the server */
	gpa_t gpa;
	u16 avail_next, used_next;
	int kick, call;
	struct flight flight[VIRTQ_SIZE_MAX];
};

struct vhost_user {
	struct vhost_user_options o;
	struct machine *machine;
	struct virtio *v;
	u64 features, protocol;
	int area_fd;
	u8 *area;
	u64 area_bytes, queue_bytes;
	gpa_t area_gpa;
	bool running, dead, watched;
	bool direct;      /* the server has the guest's own rings; then: */
	int channel;      /* where it tells of code that it has overwritten */
	bool listening;   /* the loop watches the channel */
	struct virtio_pci *pci;
	struct virtq_chain chain;
	struct relay relay[VIRTIO_QUEUES_MAX];
};

/* ---- messages (vhost_user_msg.c): 0 or -errno ---- */
int vhost_user_ask(struct vhost_user *u, struct vu_message *m, u32 size); /* has an answer of size bytes */
int vhost_user_tell(struct vhost_user *u, struct vu_message *m);          /* has none */
int vhost_user_get_u64(struct vhost_user *u, u32 request, u64 *x);
int vhost_user_set_u64(struct vhost_user *u, u32 request, u64 x);
int vhost_user_set_state(struct vhost_user *u, u32 request, u32 index, u32 num);
int vhost_user_send_fd(struct vhost_user *u, u32 request, u32 index, int fd);

/* ---- the relay (vhost_user_relay.c) ---- */
/* Offsets in a queue's area */
u64 relay_avail_at(const struct vhost_user *u);
u64 relay_used_at(const struct vhost_user *u);
u64 relay_tables_at(const struct vhost_user *u);
u64 relay_bytes(const struct vhost_user *u);
void relay_on_call(void *relay, u32 events); /* loop callback */
void relay_fail_all(struct vhost_user *u);   /* answers what is in flight without the server */

/* ---- the guest's own rings (vhost_user_direct.c) ---- */
int direct_start_ring(struct vhost_user *u, unsigned i);
int direct_await(struct vhost_user *u, int timeout_ms); /* until the server says something on its socket, or -errno */
void direct_take_over(struct vhost_user *u);            /* the server is lost */
void direct_destroy(struct vhost_user *u);

/* ---- vhost_user.c ---- */
void vhost_user_die(struct vhost_user *u, int error); /* gives the server up */

#endif
