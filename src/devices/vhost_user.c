/* See vhost_user.h: the session with the server, from its beginning to its end. */
#include <linux/virtio_ring.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "devices/vhost_user_int.h"

#define GIB (1ull << 30)

/* ---- its end ---- */
static const char *reason(int error)
{
	switch (error) {
	case -ECONNRESET:
	case -EPIPE:
		return "it ended";
	case -EPROTO:
	case -EINVAL:
		return "its answers make no sense";
	case -ETIMEDOUT:
		return "it does not answer";
	case -EREMOTEIO:
		return "it refused a request";
	default:
		return strerror(-error);
	}
}

void vhost_user_die(struct vhost_user *u, int error)
{
	if (u->dead)
		return;
	u->dead = true;
	log_msg(LOG_ERROR,
		"%s: the server is lost: %s (the guest gets errors; restart the VM to get it back)",
		u->o.name, reason(error));
	if (u->watched)
		loop_del(machine_loop(u->machine), u->o.sock);
	u->watched = false;
	if (u->direct) {
		direct_take_over(u);
		return;
	}
	shutdown(u->o.sock, SHUT_RDWR); /* nothing that it still says counts, and it stops */
	if (u->running)
		relay_fail_all(u);
}

/* The server speaks only when asked, and whoever asks holds the lock: what is there now is its end, or wrong.
 */
static void on_socket(void *arg, u32 events)
{
	struct vhost_user *u = arg;
	u8 byte;

	pthread_mutex_lock(&u->v->lock);
	ssize_t n = recv(u->o.sock, &byte, 1, MSG_PEEK | MSG_DONTWAIT);

	if (n >= 0)
		vhost_user_die(u, n ? -EPROTO : -ECONNRESET);
	else if (errno != EAGAIN && errno != EINTR)
		vhost_user_die(u, -errno);
	pthread_mutex_unlock(&u->v->lock);
}

/* ---- start and stop ---- */
static int start_ring(struct vhost_user *u, unsigned i)
{
	struct relay *q = &u->relay[i];
	struct vu_message m;
	u64 count;
	int ret = 0;

	memset(q->area, 0, relay_tables_at(u));
	q->avail_next = q->used_next = 0;
	if (read(q->call, &count, sizeof(count)) < 0 && errno != EAGAIN)
		return -errno;
	ret = vhost_user_set_state(u, VU_SET_VRING_NUM, i, u->o.queue_size);
	if (!ret)
		ret = vhost_user_set_state(u, VU_SET_VRING_BASE, i, 0);
	m = (struct vu_message){
	    .h = {.request = VU_SET_VRING_ADDR, .flags = VU_VERSION, .size = sizeof(m.addr)},
	    .addr = {.index = i,
		     .desc = (u64)q->area,
		     .avail = (u64)q->area + relay_avail_at(u),
		     .used = (u64)q->area + relay_used_at(u)}};
	if (!ret)
		ret = vhost_user_tell(u, &m);
	if (!ret)
		ret = vhost_user_send_fd(u, VU_SET_VRING_CALL, i, q->call);
	return ret ? ret : vhost_user_send_fd(u, VU_SET_VRING_KICK, i, q->kick);
}

/* Relayed rings are not the driver's. */
static u64 agreed_features(const struct vhost_user *u)
{
	const u64 ours = BIT64(VIRTIO_RING_F_EVENT_IDX) | BIT64(VIRTIO_RING_F_INDIRECT_DESC);
	u64 features = u->v->driver_features & u->features;

	if (!u->direct)
		features = (features & ~ours) | BIT64(VIRTIO_RING_F_INDIRECT_DESC);
	return features | BIT64(VHOST_USER_F_PROTOCOL_FEATURES);
}

void vhost_user_activate(struct vhost_user *u)
{
	u64 features = agreed_features(u);
	int ret = 0;

	u->running = true;
	if (u->dead)
		return;
	ret = vhost_user_set_u64(u, VU_SET_FEATURES, features);
	for (unsigned i = 0; i < u->o.n_queues && !ret; i++)
		ret = u->direct ? direct_start_ring(u, i) : start_ring(u, i);
	for (unsigned i = 0; i < u->o.n_queues && !ret; i++)
		if (!u->direct || u->v->queue[i].enabled)
			ret = vhost_user_set_state(u, VU_SET_VRING_ENABLE, i, 1);
	if (ret)
		vhost_user_die(u, ret);
}

bool vhost_user_reset(struct vhost_user *u)
{
	struct vu_message m;

	for (unsigned i = 0; i < u->o.n_queues && u->running && !u->dead; i++) {
		m = (struct vu_message){.h = {.request = VU_GET_VRING_BASE, .flags = VU_VERSION, .size = 8},
					.state = {.index = i}}; /* it has stopped when it answers */
		int ret = vhost_user_ask(u, &m, 8);

		if (ret) {
			u->running = false; /* the guest has forgotten what was in flight */
			vhost_user_die(u, ret);
		}
	}
	u->running = false;
	for (unsigned i = 0; i < u->o.n_queues; i++)
		for (unsigned head = 0; head < u->o.queue_size; head++)
			u->relay[i].flight[head].busy = false;
	return true;
}

/* ---- configuration ---- */
u64 vhost_user_features(const struct vhost_user *u)
{
	return u->features;
}

int vhost_user_get_config(struct vhost_user *u, void *buf, unsigned size)
{
	struct vu_message m = {.h = {.request = VU_GET_CONFIG, .flags = VU_VERSION, .size = 12 + size},
			       .config.size = size};

	if (!(u->protocol & BIT64(VU_PROTOCOL_CONFIG)) || size > VU_CONFIG_MAX)
		return -ENOTSUP;
	int ret = vhost_user_ask(u, &m, 12 + size);

	if (!ret)
		memcpy(buf, m.config.data, size);
	return ret;
}

int vhost_user_set_config(struct vhost_user *u, unsigned off, const void *buf, unsigned size)
{
	struct vu_message m = {.h = {.request = VU_SET_CONFIG, .flags = VU_VERSION, .size = 12 + size},
			       .config = {.offset = off, .size = size}};
	int ret = u->dead ? -EIO : 0;

	if (!(u->protocol & BIT64(VU_PROTOCOL_CONFIG)) || size > VU_CONFIG_MAX)
		return -ENOTSUP;
	memcpy(m.config.data, buf, size);
	if (!ret)
		ret = vhost_user_tell(u, &m);
	if (ret)
		vhost_user_die(u, ret);
	return ret;
}

/* ---- lifecycle ---- */
static int make_area(struct vhost_user *u)
{
	const struct guestmem *g = machine_guestmem(u->machine);

	u->queue_bytes = relay_bytes(u);
	u->area_bytes = u->queue_bytes * u->o.n_queues;
	for (u32 i = 0; i < g->nslots; i++)
		u->area_gpa = MAX(u->area_gpa, ALIGN_UP(g->slot[i].gpa + g->slot[i].size, GIB));
	u->area_fd = memfd_create("vhost-user-rings", MFD_CLOEXEC);
	if (u->area_fd < 0 || ftruncate(u->area_fd, (off_t)u->area_bytes) < 0)
		return -errno;
	u->area =
	    mmap(NULL, u->area_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, u->area_fd, 0);
	if (u->area == MAP_FAILED) {
		u->area = NULL;
		return -errno;
	}
	return 0;
}

static int make_relays(struct vhost_user *u)
{
	for (unsigned i = 0; i < u->o.n_queues; i++) {
		struct relay *q = &u->relay[i];

		q->u = u;
		q->index = i;
		q->area = u->area + i * u->queue_bytes;
		q->gpa = u->area_gpa + i * u->queue_bytes;
		q->kick = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
		q->call = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
		if (q->kick < 0 || q->call < 0)
			return -errno;
	}
	return 0;
}

static void add_region(struct vu_message *m, gpa_t gpa, u64 size, const void *host, u64 offset, int fd)
{
	m->mem.region[m->mem.n++] =
	    (struct vu_region){.gpa = gpa, .size = size, .user_addr = (u64)host, .mmap_offset = offset};
	m->fds[m->n_fds++] = fd;
}

static int share_memory(struct vhost_user *u)
{
	const struct guestmem *g = machine_guestmem(u->machine);
	struct vu_message m = {.h = {.request = VU_SET_MEM_TABLE, .flags = VU_VERSION}};

	if (g->nslots >= VU_REGIONS_MAX)
		return -E2BIG;
	for (u32 i = 0; i < g->nslots; i++)
		add_region(&m, g->slot[i].gpa, g->slot[i].size, g->slot[i].host, g->slot[i].offset,
			   g->slot[i].fd);
	if (u->area)
		add_region(&m, u->area_gpa, u->area_bytes, u->area, 0, u->area_fd);
	m.h.size = 8 + m.mem.n * (u32)sizeof(struct vu_region);
	return vhost_user_tell(u, &m);
}

static int hello(struct vhost_user *u)
{
	const u64 need = BIT64(VIRTIO_F_VERSION_1) | BIT64(VIRTIO_RING_F_INDIRECT_DESC) |
			 BIT64(VHOST_USER_F_PROTOCOL_FEATURES);
	const u64 want = BIT64(VU_PROTOCOL_MQ) | BIT64(VU_PROTOCOL_REPLY_ACK) | BIT64(VU_PROTOCOL_CONFIG) |
			 (u->o.may_direct ? BIT64(VU_PROTOCOL_DIRECT) : 0);
	struct vu_message owner = {.h = {.request = VU_SET_OWNER, .flags = VU_VERSION}};
	u64 offered = 0, queues = u->o.n_queues;
	int ret = vhost_user_get_u64(u, VU_GET_FEATURES, &u->features);

	if (!ret && (u->features & need) != need)
		ret = -EPROTONOSUPPORT;
	if (!ret)
		ret = vhost_user_get_u64(u, VU_GET_PROTOCOL_FEATURES, &offered);
	if (!ret)
		ret = vhost_user_set_u64(u, VU_SET_PROTOCOL_FEATURES, offered & want);
	u->protocol = offered & want;
	if (!ret && (u->protocol & BIT64(VU_PROTOCOL_MQ)))
		ret = vhost_user_get_u64(u, VU_GET_QUEUE_NUM, &queues);
	if (!ret && queues < u->o.n_queues)
		ret = -EPROTONOSUPPORT;
	if (!ret)
		ret = vhost_user_tell(u, &owner);
	u->direct = u->protocol & BIT64(VU_PROTOCOL_DIRECT);
	return ret;
}

static int add_to_loop(struct vhost_user *u)
{
	struct loop *l = machine_loop(u->machine);
	int ret = 0;

	for (unsigned i = 0; i < u->o.n_queues && !ret && !u->direct; i++)
		ret = loop_add(l, u->relay[i].call, EPOLLIN, relay_on_call, &u->relay[i]);
	if (!ret)
		ret = loop_add(l, u->o.sock, EPOLLIN | EPOLLRDHUP, on_socket, u);
	u->watched = !ret;
	return ret;
}

int vhost_user_create(struct machine *m, const struct vhost_user_options *o, struct vhost_user **out,
		      struct err *e)
{
	struct vhost_user *u = calloc(1, sizeof(*u));
	int ret = u ? 0 : -ENOMEM;

	if (!u) {
		close(o->sock);
		return err_set(e, ENOMEM, "%s: no memory", o->name);
	}
	u->o = *o;
	u->machine = m;
	u->area_fd = u->channel = -1;
	for (unsigned i = 0; i < VIRTIO_QUEUES_MAX; i++)
		u->relay[i].kick = u->relay[i].call = -1;
	ret = hello(u);
	if (!ret && !u->direct)
		ret = make_area(u);
	if (!ret && !u->direct)
		ret = make_relays(u);
	if (!ret)
		ret = share_memory(u);
	if (!ret)
		ret = add_to_loop(u);
	if (ret) {
		vhost_user_destroy(u);
		return err_set(e, -ret, "%s: the server cannot be used: %s", o->name, reason(ret));
	}
	*out = u;
	return 0;
}

void vhost_user_attach(struct vhost_user *u, struct virtio *v)
{
	u->v = v;
	v->remote = u->direct;
}

bool vhost_user_is_direct(const struct vhost_user *u)
{
	return u->direct;
}

void vhost_user_destroy(struct vhost_user *u)
{
	if (!u)
		return;
	struct loop *l = machine_loop(u->machine);

	if (u->watched)
		loop_del(l, u->o.sock);
	for (unsigned i = 0; i < u->o.n_queues; i++) {
		struct relay *q = &u->relay[i];

		if (q->call >= 0) {
			loop_del(l, q->call);
			close(q->call);
		}
		if (q->kick >= 0)
			close(q->kick);
		for (unsigned head = 0; head < VIRTQ_SIZE_MAX; head++)
			free(q->flight[head].seg);
	}
	direct_destroy(u);
	close(u->o.sock);
	if (u->area)
		munmap(u->area, u->area_bytes);
	if (u->area_fd >= 0)
		close(u->area_fd);
	free(u);
}
