/*
 * See vhost_user.h. Memory of a queue towards the server (all offsets from its start; N: its size):
 *   0                descriptors, one for each chain in flight, at the index that the guest's chain has
 *   USED, AVAIL      the rings
 *   TABLES           for each chain a table of N descriptors, to which its one descriptor points (indirect)
 * The area lies behind the guest's RAM in the address space that the server is told of, not in the guest's.
 *
 * The server may write all of that at any time; nothing is read back from it but the used ring, and of that only numbers that
 * are checked. What a chain is, is kept here.
 */
#include "devices/vhost_user.h"

#include <linux/virtio_ring.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/vhost_user.h"
#include "devices/guestmem.h"

enum { REPLY_MS = 10000 };
#define GIB (1ull << 30)

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
	struct virtq_chain chain;
	struct relay relay[VIRTIO_QUEUES_MAX];
};

static u64 avail_at(const struct vhost_user *u)
{
	return 16 * (u64)u->o.queue_size;
}

static u64 used_at(const struct vhost_user *u)
{
	return ALIGN_UP(avail_at(u) + 6 + 2 * (u64)u->o.queue_size, 64);
}

static u64 tables_at(const struct vhost_user *u)
{
	return ALIGN_UP(used_at(u) + 6 + 8 * (u64)u->o.queue_size, PAGE_SIZE);
}

static u64 table_bytes(const struct vhost_user *u)
{
	return 16 * (u64)u->o.queue_size;
}

/* ---- messages; v->lock held once the vCPUs run ---- */
static void put_u64(struct vu_message *m, u32 request, u64 x)
{
	*m = (struct vu_message){.h = {.request = request, .flags = VU_VERSION, .size = 8}, .u64 = x};
}

static void put_state(struct vu_message *m, u32 request, u32 index, u32 num)
{
	*m = (struct vu_message){.h = {.request = request, .flags = VU_VERSION, .size = 8}, .state = {index, num}};
}

static int receive_reply(struct vhost_user *u, struct vu_message *m, u32 request, u32 size)
{
	int ret = vu_receive(u->o.sock, m, REPLY_MS);

	vu_close_fds(m);
	if (!ret && (m->h.request != request || !(m->h.flags & VU_REPLY) || m->h.size < size))
		ret = -EPROTO;
	return ret;
}

/* A request that has an answer. */
static int ask(struct vhost_user *u, struct vu_message *m, u32 size)
{
	u32 request = m->h.request;
	int ret = vu_send(u->o.sock, m);

	return ret ? ret : receive_reply(u, m, request, size);
}

/* One that has none; with REPLY_ACK the server says whether it did it. */
static int tell(struct vhost_user *u, struct vu_message *m)
{
	u32 request = m->h.request;
	bool ack = u->protocol & BIT64(VU_PROTOCOL_REPLY_ACK);

	if (ack)
		m->h.flags |= VU_NEED_REPLY;
	int ret = vu_send(u->o.sock, m);

	if (ret || !ack)
		return ret;
	ret = receive_reply(u, m, request, 8);
	return ret ? ret : m->u64 ? -EREMOTEIO : 0;
}

static int get_u64(struct vhost_user *u, u32 request, u64 *x)
{
	struct vu_message m = {.h = {.request = request, .flags = VU_VERSION}};
	int ret = ask(u, &m, 8);

	*x = m.u64;
	return ret;
}

static int set_u64(struct vhost_user *u, u32 request, u64 x)
{
	struct vu_message m;

	put_u64(&m, request, x);
	return tell(u, &m);
}

static int set_state(struct vhost_user *u, u32 request, u32 index, u32 num)
{
	struct vu_message m;

	put_state(&m, request, index, num);
	return tell(u, &m);
}

static int send_fd(struct vhost_user *u, u32 request, u32 index, int fd)
{
	struct vu_message m;

	put_u64(&m, request, index);
	m.n_fds = 1;
	m.fds[0] = fd;
	return tell(u, &m);
}

/* ---- chains ---- */
/* Out of what was kept; the guest's memory does not go away. */
static void rebuild(struct vhost_user *u, struct virtq_chain *c, u16 head, const struct flight *f)
{
	c->head = head;
	c->n_out = f->n_out;
	c->n_in = f->n_in;
	c->out_bytes = c->in_bytes = 0;
	for (unsigned i = 0; i < (unsigned)f->n_out + f->n_in; i++) {
		c->gpa[i] = f->seg[i].gpa;
		c->iov[i] = (struct iovec){guest_ptr(u->machine, f->seg[i].gpa, f->seg[i].len), f->seg[i].len};
		*(i < f->n_out ? &c->out_bytes : &c->in_bytes) += f->seg[i].len;
	}
}

static bool keep(struct flight *f, const struct virtq_chain *c)
{
	unsigned n = c->n_out + c->n_in;

	if (f->room < n) {
		struct segment *bigger = realloc(f->seg, n * sizeof(*bigger));

		if (!bigger)
			return false;
		f->seg = bigger;
		f->room = (u16)n;
	}
	for (unsigned i = 0; i < n; i++)
		f->seg[i] = (struct segment){c->gpa[i], (u32)c->iov[i].iov_len};
	f->n_out = (u16)c->n_out;
	f->n_in = (u16)c->n_in;
	f->busy = true;
	return true;
}

static void fail_chain(struct vhost_user *u, unsigned queue, const struct virtq_chain *c)
{
	virtq_push(&u->v->queue[queue], c, u->o.fail(u->v, queue, c));
}

static void fail_in_flight(struct vhost_user *u)
{
	for (unsigned i = 0; i < u->o.n_queues; i++) {
		struct relay *q = &u->relay[i];

		for (u16 head = 0; head < u->o.queue_size; head++) {
			if (!q->flight[head].busy)
				continue;
			q->flight[head].busy = false;
			rebuild(u, &u->chain, head, &q->flight[head]);
			fail_chain(u, i, &u->chain);
		}
		virtio_signal_queue(u->v, i);
	}
}

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

static void die(struct vhost_user *u, int error)
{
	if (u->dead)
		return;
	u->dead = true;
	log_msg(LOG_ERROR, "%s: the server is lost: %s (the guest gets errors; restart the VM to get it back)", u->o.name,
		reason(error));
	shutdown(u->o.sock, SHUT_RDWR); /* nothing that it still says counts, and it stops */
	if (u->watched)
		loop_del(machine_loop(u->machine), u->o.sock);
	u->watched = false;
	if (u->running)
		fail_in_flight(u);
}

/* ---- from the guest to the server ---- */
static void put_desc(u8 *at, u64 addr, u32 len, u16 flags, u16 next)
{
	struct vring_desc d = {.addr = addr, .len = len, .flags = flags, .next = next};

	memcpy(at, &d, sizeof(d));
}

static void forward(struct relay *q, const struct virtq_chain *c)
{
	struct vhost_user *u = q->u;
	unsigned n = c->n_out + c->n_in;
	u64 table = tables_at(u) + c->head * table_bytes(u);
	u8 *avail = q->area + avail_at(u);

	for (unsigned i = 0; i < n; i++)
		put_desc(q->area + table + 16 * i, c->gpa[i], (u32)c->iov[i].iov_len,
			 (u16)((i < c->n_out ? 0 : VRING_DESC_F_WRITE) | (i + 1 < n ? VRING_DESC_F_NEXT : 0)), (u16)(i + 1));
	put_desc(q->area + 16 * c->head, q->gpa + table, 16 * n, VRING_DESC_F_INDIRECT, 0);
	memcpy(avail + 4 + 2 * (q->avail_next & (u->o.queue_size - 1)), &c->head, 2);
	q->avail_next++;
	__atomic_store_n((u16 *)(avail + 2), q->avail_next, __ATOMIC_RELEASE);
}

/* 1: taken, 0: none, < 0: the driver broke the rules */
static int take_one(struct vhost_user *u, unsigned queue)
{
	struct relay *q = &u->relay[queue];
	struct virtq_chain *c = &u->chain;
	int got = virtq_pop(&u->v->queue[queue], c);

	if (got <= 0)
		return got;
	if (u->dead) {
		fail_chain(u, queue, c);
		return 1;
	}
	if (q->flight[c->head].busy)
		return -EIO; /* a buffer given twice */
	if (!keep(&q->flight[c->head], c)) {
		virtq_unpop(&u->v->queue[queue]);
		return 0; /* out of memory: the next notification brings us back */
	}
	forward(q, c);
	return 1;
}

void vhost_user_notify(struct vhost_user *u, unsigned queue)
{
	struct virtq *q = &u->v->queue[queue];
	const u64 one = 1;
	int budget = VIRTIO_BUDGET, got = 0;
	bool any = false;

	if (!u->running)
		return;
	do {
		virtq_quiet(q);
		while (budget > 0 && (got = take_one(u, queue)) > 0) {
			any = true;
			budget--;
		}
	} while (!got && virtq_listen(q) && budget > 0);
	if (any && !u->dead && write(u->relay[queue].kick, &one, sizeof(one)) < 0)
		log_msg(LOG_DEBUG, "%s: kick lost", u->o.name); /* the counter is full: the server has not looked yet */
	if (got < 0)
		virtio_needs_reset_locked(u->v, "bad descriptor chain");
	else if (budget <= 0)
		virtio_again(u->v, queue);
	if (u->dead)
		virtio_signal_queue(u->v, queue);
}

/* ---- and back ---- */
static bool complete(struct relay *q, u32 id, u32 len)
{
	struct vhost_user *u = q->u;
	struct flight *f = id < u->o.queue_size ? &q->flight[id] : NULL;
	struct virtq_chain *c = &u->chain;

	if (!f || !f->busy)
		return false;
	rebuild(u, c, (u16)id, f);
	if (len > c->in_bytes)
		return false;
	f->busy = false;
	for (unsigned i = c->n_out; i < c->n_out + c->n_in; i++) /* whatever it says it wrote */
		guest_written(u->machine, c->gpa[i], c->iov[i].iov_len);
	virtq_push(&u->v->queue[q->index], c, len);
	return true;
}

static void collect_locked(struct relay *q)
{
	struct vhost_user *u = q->u;
	const u8 *used = q->area + used_at(u);
	u16 idx = __atomic_load_n((const u16 *)(used + 2), __ATOMIC_ACQUIRE);

	if ((u16)(idx - q->used_next) > u->o.queue_size) {
		die(u, -EPROTO);
		return;
	}
	while (q->used_next != idx) {
		struct vring_used_elem e;

		memcpy(&e, used + 4 + sizeof(e) * (q->used_next & (u->o.queue_size - 1)), sizeof(e));
		__asm__ volatile("" ::: "memory"); /* read once */
		q->used_next++;
		if (!complete(q, e.id, e.len)) {
			die(u, -EPROTO);
			return;
		}
	}
	virtio_signal_queue(u->v, q->index);
}

static void on_call(void *arg, u32 events)
{
	struct relay *q = arg;
	struct vhost_user *u = q->u;
	u64 count;

	if (read(q->call, &count, sizeof(count)) != sizeof(count))
		return;
	pthread_mutex_lock(&u->v->lock);
	if (u->running && !u->dead)
		collect_locked(q);
	pthread_mutex_unlock(&u->v->lock);
}

/* The server speaks only when asked, and whoever asks holds the lock: what is there now is its end, or wrong. */
static void on_socket(void *arg, u32 events)
{
	struct vhost_user *u = arg;
	u8 byte;

	pthread_mutex_lock(&u->v->lock);
	ssize_t n = recv(u->o.sock, &byte, 1, MSG_PEEK | MSG_DONTWAIT);

	if (n >= 0)
		die(u, n ? -EPROTO : -ECONNRESET);
	else if (errno != EAGAIN && errno != EINTR)
		die(u, -errno);
	pthread_mutex_unlock(&u->v->lock);
}

/* ---- start and stop ---- */
static int start_ring(struct vhost_user *u, unsigned i)
{
	struct relay *q = &u->relay[i];
	struct vu_message m;
	u64 count;
	int ret = 0;

	memset(q->area, 0, tables_at(u));
	q->avail_next = q->used_next = 0;
	if (read(q->call, &count, sizeof(count)) < 0 && errno != EAGAIN)
		return -errno;
	ret = set_state(u, VU_SET_VRING_NUM, i, u->o.queue_size);
	if (!ret)
		ret = set_state(u, VU_SET_VRING_BASE, i, 0);
	m = (struct vu_message){.h = {.request = VU_SET_VRING_ADDR, .flags = VU_VERSION, .size = sizeof(m.addr)},
				.addr = {.index = i, .desc = (u64)q->area, .avail = (u64)q->area + avail_at(u),
					 .used = (u64)q->area + used_at(u)}};
	if (!ret)
		ret = tell(u, &m);
	if (!ret)
		ret = send_fd(u, VU_SET_VRING_CALL, i, q->call);
	return ret ? ret : send_fd(u, VU_SET_VRING_KICK, i, q->kick);
}

void vhost_user_activate(struct vhost_user *u)
{
	u64 ours = BIT64(VIRTIO_RING_F_EVENT_IDX) | BIT64(VIRTIO_RING_F_INDIRECT_DESC);
	u64 features = (u->v->driver_features & u->features & ~ours) | BIT64(VIRTIO_RING_F_INDIRECT_DESC) |
		       BIT64(VHOST_USER_F_PROTOCOL_FEATURES);
	int ret = 0;

	u->running = true;
	if (u->dead)
		return;
	ret = set_u64(u, VU_SET_FEATURES, features);
	for (unsigned i = 0; i < u->o.n_queues && !ret; i++)
		ret = start_ring(u, i);
	for (unsigned i = 0; i < u->o.n_queues && !ret; i++)
		ret = set_state(u, VU_SET_VRING_ENABLE, i, 1);
	if (ret)
		die(u, ret);
}

bool vhost_user_reset(struct vhost_user *u)
{
	struct vu_message m;

	for (unsigned i = 0; i < u->o.n_queues && u->running && !u->dead; i++) {
		put_state(&m, VU_GET_VRING_BASE, i, 0); /* it has stopped when it answers */
		int ret = ask(u, &m, 8);

		if (ret) {
			u->running = false; /* the guest has forgotten what was in flight */
			die(u, ret);
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
	struct vu_message m = {.h = {.request = VU_GET_CONFIG, .flags = VU_VERSION, .size = 12 + size}, .config.size = size};

	if (!(u->protocol & BIT64(VU_PROTOCOL_CONFIG)) || size > VU_CONFIG_MAX)
		return -ENOTSUP;
	int ret = ask(u, &m, 12 + size);

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
		ret = tell(u, &m);
	if (ret)
		die(u, ret);
	return ret;
}

/* ---- lifecycle ---- */
static int make_area(struct vhost_user *u)
{
	const struct guestmem *g = machine_guestmem(u->machine);

	u->queue_bytes = ALIGN_UP(tables_at(u) + u->o.queue_size * table_bytes(u), PAGE_SIZE);
	u->area_bytes = u->queue_bytes * u->o.n_queues;
	for (u32 i = 0; i < g->nslots; i++)
		u->area_gpa = MAX(u->area_gpa, ALIGN_UP(g->slot[i].gpa + g->slot[i].size, GIB));
	u->area_fd = memfd_create("vhost-user-rings", MFD_CLOEXEC);
	if (u->area_fd < 0 || ftruncate(u->area_fd, (off_t)u->area_bytes) < 0)
		return -errno;
	u->area = mmap(NULL, u->area_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, u->area_fd, 0);
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
	m->mem.region[m->mem.n++] = (struct vu_region){.gpa = gpa, .size = size, .user_addr = (u64)host, .mmap_offset = offset};
	m->fds[m->n_fds++] = fd;
}

static int share_memory(struct vhost_user *u)
{
	const struct guestmem *g = machine_guestmem(u->machine);
	struct vu_message m = {.h = {.request = VU_SET_MEM_TABLE, .flags = VU_VERSION}};

	if (g->nslots >= VU_REGIONS_MAX)
		return -E2BIG;
	for (u32 i = 0; i < g->nslots; i++)
		add_region(&m, g->slot[i].gpa, g->slot[i].size, g->slot[i].host, g->slot[i].offset, g->slot[i].fd);
	add_region(&m, u->area_gpa, u->area_bytes, u->area, 0, u->area_fd);
	m.h.size = 8 + m.mem.n * (u32)sizeof(struct vu_region);
	return tell(u, &m);
}

static int hello(struct vhost_user *u)
{
	const u64 need = BIT64(VIRTIO_F_VERSION_1) | BIT64(VIRTIO_RING_F_INDIRECT_DESC) | BIT64(VHOST_USER_F_PROTOCOL_FEATURES);
	const u64 want = BIT64(VU_PROTOCOL_MQ) | BIT64(VU_PROTOCOL_REPLY_ACK) | BIT64(VU_PROTOCOL_CONFIG);
	struct vu_message owner = {.h = {.request = VU_SET_OWNER, .flags = VU_VERSION}};
	u64 offered = 0, queues = u->o.n_queues;
	int ret = get_u64(u, VU_GET_FEATURES, &u->features);

	if (!ret && (u->features & need) != need)
		ret = -EPROTONOSUPPORT;
	if (!ret)
		ret = get_u64(u, VU_GET_PROTOCOL_FEATURES, &offered);
	if (!ret)
		ret = set_u64(u, VU_SET_PROTOCOL_FEATURES, offered & want);
	u->protocol = offered & want;
	if (!ret && (u->protocol & BIT64(VU_PROTOCOL_MQ)))
		ret = get_u64(u, VU_GET_QUEUE_NUM, &queues);
	if (!ret && queues < u->o.n_queues)
		ret = -EPROTONOSUPPORT;
	if (!ret)
		ret = tell(u, &owner);
	return ret ? ret : share_memory(u);
}

static int add_to_loop(struct vhost_user *u)
{
	struct loop *l = machine_loop(u->machine);
	int ret = 0;

	for (unsigned i = 0; i < u->o.n_queues && !ret; i++)
		ret = loop_add(l, u->relay[i].call, EPOLLIN, on_call, &u->relay[i]);
	if (!ret)
		ret = loop_add(l, u->o.sock, EPOLLIN | EPOLLRDHUP, on_socket, u);
	u->watched = !ret;
	return ret;
}

int vhost_user_create(struct machine *m, const struct vhost_user_options *o, struct vhost_user **out, struct err *e)
{
	struct vhost_user *u = calloc(1, sizeof(*u));
	int ret = u ? 0 : -ENOMEM;

	if (!u) {
		close(o->sock);
		return err_set(e, ENOMEM, "%s: no memory", o->name);
	}
	u->o = *o;
	u->machine = m;
	u->area_fd = -1;
	for (unsigned i = 0; i < VIRTIO_QUEUES_MAX; i++)
		u->relay[i].kick = u->relay[i].call = -1;
	ret = make_area(u);
	if (!ret)
		ret = make_relays(u);
	if (!ret)
		ret = hello(u);
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
	close(u->o.sock);
	if (u->area)
		munmap(u->area, u->area_bytes);
	if (u->area_fd >= 0)
		close(u->area_fd);
	free(u);
}
