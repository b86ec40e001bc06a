/*
 * The back-end of vhost-user (QEMU, docs/interop/vhost-user.rst). The main thread answers messages; a queue
 * that has addresses, a kick eventfd and is enabled has a thread, which sleeps on the eventfd, takes chains
 * and serves them. Whoever changes a queue or the memory stops its thread first, so that the thread needs no
 * lock but that of the call eventfd.
 *
 * The front-end is trusted with this process' life, not more: numbers are checked, but it may lie about
 * memory.
 */
#include "fs/vhost.h"

#include <linux/virtio_ring.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/patience.h"
#include "base/vhost_user.h"
#include "devices/guestmem.h"
#include "fs/direct.h"

enum {
	QUEUES = 9, /* one for what may not wait, up to eight for requests */
	TIDY_MS = 50
};

#define FEATURES                                                                                             \
	(BIT64(VIRTIO_F_VERSION_1) | BIT64(VIRTIO_RING_F_INDIRECT_DESC) | BIT64(VIRTIO_RING_F_EVENT_IDX) |   \
	 BIT64(VHOST_USER_F_PROTOCOL_FEATURES))
#define PROTOCOL_FEATURES (BIT64(VU_PROTOCOL_MQ) | BIT64(VU_PROTOCOL_REPLY_ACK) | BIT64(VU_PROTOCOL_DIRECT))
_Static_assert((int)QUEUES <= (int)VU_DIRECT_QUEUES, "a source for each");

/* What the ring code knows of a machine: its memory. */
struct machine {
	struct guestmem ram;
};

struct mapping {
	u64 user_addr, gpa, size;
	void *base; /* of the mapping; mmap_offset below the region */
	size_t length;
};

struct queue {
	struct vhost *vh;
	struct virtq ring;
	struct vu_vring_addr addr;
	u16 base; /* next slot of the available ring, while stopped */
	int kick, stop;
	bool has_addr, enabled, running;
	bool stopping; /* atomic: the thread takes no more */
	struct patience patience;
	u64 left_at;	/* when an interrupt was left for a vCPU to find; 0: none is */
	u64 idle_since; /* the queue was empty then, */
	bool looked;	/* and stayed so while the thread looked */
	pthread_t thread;
	struct fs_thread *scratch;
	pthread_mutex_t call_lock;
	int call;
};

struct vhost {
	struct fs *fs;
	int sock;
	struct machine machine;
	struct fill_ram fill;
	struct direct direct;
	struct mapping map[VU_REGIONS_MAX];
	unsigned n_maps;
	u64 features;
	bool patient; /* there is another core for who fills the rings */
	struct queue queue[QUEUES];
};

struct guestmem *machine_guestmem(struct machine *m)
{
	return &m->ram;
}

/* ---- a queue's thread ---- */
static unsigned index_of(const struct queue *q)
{
	return (unsigned)(q - q->vh->queue);
}

static bool looks(const struct queue *q)
{
	return q->vh->patient && patience_looks(&q->patience);
}

static void write_call(struct queue *q)
{
	const u64 one = 1;

	pthread_mutex_lock(&q->call_lock);
	if (q->call >= 0 && write(q->call, &one, sizeof(one)) != sizeof(one))
		log_msg(LOG_DEBUG, "vhost-user: a call was lost"); /* the counter is full: the front-end has
								      not looked yet */
	pthread_mutex_unlock(&q->call_lock);
}

static void call(struct queue *q)
{
	if (wake_call(q->vh->direct.wake, q->vh->direct.source[index_of(q)], looks(q), &q->left_at))
		write_call(q);
}

/* A vCPU did not find in time what was left for it, or this thread is about to look no more. */
static void call_left(struct queue *q, bool now)
{
	if (q->left_at && wake_overdue(q->vh->direct.wake, q->vh->direct.source[index_of(q)], &q->left_at, now))
		write_call(q);
}

static bool more(const struct queue *q)
{
	return virtq_published(&q->ring) != q->ring.avail_next || __atomic_load_n(&q->stopping, __ATOMIC_RELAXED);
}

/* Until the next chain is there; false: none came soon. */
static bool look(struct queue *q)
{
	u64 until = now_ns() + PATIENCE_LOOK_NS;

	do {
		for (int i = 0; i < 16; i++) {
			if (more(q))
				return true;
			__builtin_ia32_pause();
		}
		call_left(q, false);
	} while (now_ns() < until);
	return false;
}

/* Everything that is there, unless we are to stop: the guest may go on for ever. False: the driver broke the
 * queue. */
static bool drain(struct queue *q)
{
	struct virtq_chain *c = &q->scratch->chain;
	bool found = false;
	int got = 0;

	do {
		virtq_quiet(&q->ring);
		while (!__atomic_load_n(&q->stopping, __ATOMIC_RELAXED) &&
		       (got = virtq_pop(&q->ring, c)) > 0) {
			call_left(q, true); /* this may take long */
			virtq_push(&q->ring, c, fs_handle(q->scratch, c));
			if (virtq_wants_interrupt(&q->ring))
				call(q);
		}
		fs_work_ahead(q->scratch);
		q->idle_since = now_ns();
		q->looked = !got && looks(q);
		found = q->looked && look(q);
		if (found)
			patience_learn(&q->patience, 0, true, true);
	} while (!got && (found || virtq_listen(&q->ring)) && !__atomic_load_n(&q->stopping, __ATOMIC_RELAXED));
	return got >= 0;
}

static void sleep_for_work(struct queue *q, struct pollfd p[2])
{
	int n = 0;

	do
		n = poll(p, 2, fs_untidy(q->vh->fs) ? TIDY_MS : -1);
	while (n < 0 && errno == EINTR);
	if (n)
		return;
	fs_tidy(q->vh->fs);
	while (poll(p, 2, -1) < 0 && errno == EINTR)
		;
}

static void *queue_thread(void *arg)
{
	struct queue *q = arg;
	struct pollfd p[2] = {{.fd = q->kick, .events = POLLIN}, {.fd = q->stop, .events = POLLIN}};
	u64 count = 0;

	do {
		if (!drain(q)) {
			log_msg(LOG_WARN, "virtio-fs: bad descriptor chain (the queue is dead until the "
					  "guest starts anew)");
			p[0].fd = -1;
			direct_broken(&q->vh->direct);
		}
		call_left(q, true);
		sleep_for_work(q, p);
		patience_learn(&q->patience, now_ns() - q->idle_since, q->looked, false);
		if (p[0].revents && read(q->kick, &count, sizeof(count)) < 0 && errno != EAGAIN &&
		    errno != EINTR)
			p[0].fd = -1;
	} while (!p[1].revents);
	return NULL;
}

/* ---- starting and stopping ---- */
static bool to_gpa(const struct vhost *vh, u64 user, gpa_t *gpa)
{
	for (unsigned i = 0; i < vh->n_maps; i++) {
		if (user < vh->map[i].user_addr || user - vh->map[i].user_addr >= vh->map[i].size)
			continue;
		*gpa = vh->map[i].gpa + (user - vh->map[i].user_addr);
		return true;
	}
	return false;
}

static int start_queue(struct queue *q)
{
	struct vhost *vh = q->vh;

	if (q->running || !q->enabled || !q->has_addr || q->kick < 0)
		return 0;
	q->ring.enabled = false;
	if (!to_gpa(vh, q->addr.desc, &q->ring.desc) || !to_gpa(vh, q->addr.avail, &q->ring.avail) ||
	    !to_gpa(vh, q->addr.used, &q->ring.used))
		return -EFAULT;
	int ret = virtq_enable(&q->ring, vh->features & BIT64(VIRTIO_RING_F_EVENT_IDX));

	if (ret)
		return ret;
	q->ring.avail_next = q->base;
	q->ring.used_next = __atomic_load_n((const u16 *)q->ring.used_p + 1, __ATOMIC_ACQUIRE);
	if (!q->scratch)
		q->scratch = calloc(1, sizeof(*q->scratch));
	if (!q->scratch)
		return -ENOMEM;
	q->scratch->fs = vh->fs;
	q->scratch->ram = &vh->fill;
	q->stopping = false;
	ret = -pthread_create(&q->thread, NULL, queue_thread, q);
	q->running = !ret;
	return ret;
}

static void stop_queue(struct queue *q)
{
	u64 n = 1;

	if (!q->running)
		return;
	__atomic_store_n(&q->stopping, true, __ATOMIC_RELAXED);
	if (write(q->stop, &n, sizeof(n)) == sizeof(n))
		pthread_join(q->thread, NULL);
	if (read(q->stop, &n, sizeof(n)) < 0)
		n = 0;
	q->running = false;
	q->base = q->ring.avail_next;
}

static int start_all(struct vhost *vh)
{
	int ret = 0;

	for (unsigned i = 0; i < QUEUES && !ret; i++)
		ret = start_queue(&vh->queue[i]);
	return ret;
}

static void stop_all(struct vhost *vh)
{
	for (unsigned i = 0; i < QUEUES; i++)
		stop_queue(&vh->queue[i]);
}

/* ---- memory ---- */
static void unmap_all(struct vhost *vh)
{
	for (unsigned i = 0; i < vh->n_maps; i++)
		munmap(vh->map[i].base, vh->map[i].length);
	fill_drop_regions(&vh->fill);
	vh->n_maps = 0;
	vh->machine.ram.nslots = 0;
}

static int map_region(struct vhost *vh, const struct vu_region *r, int fd)
{
	struct mapping *m = &vh->map[vh->n_maps];

	if (!r->size || add_overflows(r->gpa, r->size) || add_overflows(r->user_addr, r->size) ||
	    add_overflows(r->mmap_offset, r->size) || r->mmap_offset + r->size > INT64_MAX)
		return -EINVAL;
	*m = (struct mapping){
	    .user_addr = r->user_addr, .gpa = r->gpa, .size = r->size, .length = r->mmap_offset + r->size};
	m->base = mmap(NULL, m->length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
	if (m->base == MAP_FAILED)
		return -errno;
	vh->n_maps++;
	vh->machine.ram.slot[vh->machine.ram.nslots].gpa = r->gpa;
	vh->machine.ram.slot[vh->machine.ram.nslots].size = r->size;
	vh->machine.ram.slot[vh->machine.ram.nslots++].host = (u8 *)m->base + r->mmap_offset;
	fill_add_region(&vh->fill, (u8 *)m->base + r->mmap_offset, r->size, fd, r->mmap_offset);
	return 0;
}

static int set_mem_table(struct vhost *vh, struct vu_message *m)
{
	int ret = m->mem.n <= VU_REGIONS_MAX && m->mem.n == m->n_fds &&
			  m->h.size >= 8 + m->mem.n * sizeof(struct vu_region)
		      ? 0
		      : -EINVAL;

	if (ret)
		return ret;
	stop_all(vh);
	unmap_all(vh);
	for (unsigned i = 0; i < m->mem.n && !ret; i++)
		ret = map_region(vh, &m->mem.region[i], m->fds[i]);
	return ret ? ret : start_all(vh);
}

/* ---- queues ---- */
static struct queue *queue_of(struct vhost *vh, u64 index)
{
	return index < QUEUES ? &vh->queue[index] : NULL;
}

static int set_vring_num(struct vhost *vh, struct vu_message *m)
{
	struct queue *q = queue_of(vh, m->state.index);

	if (!q || !m->state.num || m->state.num > VIRTQ_SIZE_MAX)
		return -EINVAL;
	stop_queue(q);
	q->ring.size = (u16)m->state.num;
	return 0;
}

static int set_vring_addr(struct vhost *vh, struct vu_message *m)
{
	struct queue *q = queue_of(vh, m->addr.index);

	if (!q)
		return -EINVAL;
	stop_queue(q);
	q->addr = m->addr;
	q->has_addr = true;
	int ret = start_queue(q);

	q->has_addr = !ret;
	return ret;
}

static int set_vring_base(struct vhost *vh, struct vu_message *m)
{
	struct queue *q = queue_of(vh, m->state.index);

	if (!q)
		return -EINVAL;
	stop_queue(q);
	q->base = (u16)m->state.num;
	return start_queue(q);
}

/* The descriptor of KICK and CALL; -1: the front-end wants none. */
static int take_fd(struct vu_message *m)
{
	int fd = m->n_fds && !(m->u64 & VU_NO_FD) ? m->fds[0] : -1;

	if (fd >= 0)
		m->fds[0] = -1;
	return fd;
}

static int set_vring_kick(struct vhost *vh, struct vu_message *m)
{
	struct queue *q = queue_of(vh, m->u64 & VU_INDEX_MASK);

	if (!q)
		return -EINVAL;
	stop_queue(q);
	if (q->kick >= 0)
		close(q->kick);
	q->kick = take_fd(m);
	if (!(vh->features & BIT64(VHOST_USER_F_PROTOCOL_FEATURES)))
		q->enabled = true; /* who cannot enable rings has them enabled */
	return start_queue(q);
}

static int set_vring_call(struct vhost *vh, struct vu_message *m)
{
	struct queue *q = queue_of(vh, m->u64 & VU_INDEX_MASK);

	if (!q)
		return -EINVAL;
	pthread_mutex_lock(&q->call_lock);
	if (q->call >= 0)
		close(q->call);
	q->call = take_fd(m);
	pthread_mutex_unlock(&q->call_lock);
	return 0;
}

static int set_vring_enable(struct vhost *vh, struct vu_message *m)
{
	struct queue *q = queue_of(vh, m->state.index);

	if (!q)
		return -EINVAL;
	q->enabled = m->state.num == 1;
	if (!q->enabled)
		stop_queue(q);
	return start_queue(q);
}

/* Stops the ring: when the answer goes, nothing here touches its memory any more. */
static int get_vring_base(struct vhost *vh, struct vu_message *m)
{
	struct queue *q = queue_of(vh, m->state.index);

	if (!q)
		return -EINVAL;
	stop_queue(q);
	q->has_addr = false;
	if (q->kick >= 0)
		close(q->kick);
	q->kick = -1;
	m->state.num = q->base;
	return 0;
}

/* ---- the session ---- */
static int get_features(struct vhost *vh, struct vu_message *m)
{
	m->u64 = FEATURES;
	return 0;
}

static int set_features(struct vhost *vh, struct vu_message *m)
{
	if (m->u64 & ~FEATURES)
		return -EINVAL;
	vh->features = m->u64;
	return 0;
}

static int get_protocol_features(struct vhost *vh, struct vu_message *m)
{
	m->u64 = PROTOCOL_FEATURES;
	return 0;
}

static int set_protocol_features(struct vhost *vh, struct vu_message *m)
{
	return m->u64 & ~PROTOCOL_FEATURES ? -EINVAL : 0;
}

static int get_queue_num(struct vhost *vh, struct vu_message *m)
{
	m->u64 = QUEUES;
	return 0;
}

static int set_direct(struct vhost *vh, struct vu_message *m)
{
	int ret = 0;

	stop_all(vh);
	ret = direct_set(&vh->direct, m);
	vh->machine.ram.windows.gpa = m->direct.windows_gpa;
	vh->machine.ram.windows.size = m->direct.windows_size;
	vh->fs->window = vh->direct.window;
	vh->fs->window_sock = vh->direct.window_sock;
	return ret ? ret : start_all(vh);
}

static int reset_owner(struct vhost *vh, struct vu_message *m)
{
	stop_all(vh);
	return 0;
}

static int nothing(struct vhost *vh, struct vu_message *m)
{
	return 0;
}

enum { PAYLOAD_U64 = 8, PAYLOAD_STATE = 8, PAYLOAD_ADDR = sizeof(struct vu_vring_addr) };
static const struct vu_row {
	int (*fn)(struct vhost *vh, struct vu_message *m);
	u8 size;  /* of the payload, at least */
	u8 reply; /* bytes of payload of the answer; 0: none but REPLY_ACK's */
} vu_rows[] = {
    [VU_GET_FEATURES] = {get_features, 0, PAYLOAD_U64},
    [VU_SET_FEATURES] = {set_features, PAYLOAD_U64, 0},
    [VU_SET_OWNER] = {nothing, 0, 0},
    [VU_RESET_OWNER] = {reset_owner, 0, 0},
    [VU_SET_MEM_TABLE] = {set_mem_table, 8, 0},
    [VU_SET_VRING_NUM] = {set_vring_num, PAYLOAD_STATE, 0},
    [VU_SET_VRING_ADDR] = {set_vring_addr, PAYLOAD_ADDR, 0},
    [VU_SET_VRING_BASE] = {set_vring_base, PAYLOAD_STATE, 0},
    [VU_GET_VRING_BASE] = {get_vring_base, PAYLOAD_STATE, PAYLOAD_STATE},
    [VU_SET_VRING_KICK] = {set_vring_kick, PAYLOAD_U64, 0},
    [VU_SET_VRING_CALL] = {set_vring_call, PAYLOAD_U64, 0},
    [VU_SET_VRING_ERR] = {nothing, PAYLOAD_U64, 0},
    [VU_GET_PROTOCOL_FEATURES] = {get_protocol_features, 0, PAYLOAD_U64},
    [VU_SET_PROTOCOL_FEATURES] = {set_protocol_features, PAYLOAD_U64, 0},
    [VU_GET_QUEUE_NUM] = {get_queue_num, 0, PAYLOAD_U64},
    [VU_SET_VRING_ENABLE] = {set_vring_enable, PAYLOAD_STATE, 0},
    [VU_SET_DIRECT] = {set_direct, sizeof(struct vu_direct), 0},
};

/* An error can be told only to who asked to be told; from others it ends the session. */
static int serve_message(struct vhost *vh, struct vu_message *m, struct err *e)
{
	const struct vu_row *row = m->h.request < ARRAY_SIZE(vu_rows) ? &vu_rows[m->h.request] : NULL;
	int ret = row && row->fn ? (m->h.size < row->size ? -EINVAL : row->fn(vh, m)) : -ENOTSUP;
	u32 request = m->h.request, reply = row && !ret ? row->reply : 0;
	bool ack = m->h.flags & VU_NEED_REPLY;

	vu_close_fds(m);
	if (ret && !ack)
		return err_set(e, -ret, "vhost-user: request %u: %s (the front-end is another version?)",
			       request, strerror(-ret));
	if (!reply && !ack)
		return 0;
	if (!reply) {
		m->u64 = ret ? 1 : 0;
		reply = PAYLOAD_U64;
	}
	m->h = (struct vu_header){.request = request, .flags = VU_VERSION | VU_REPLY, .size = reply};
	ret = vu_send(vh->sock, m);
	return ret ? err_set(e, -ret, "vhost-user: %s", strerror(-ret)) : 0;
}

static void vhost_free(struct vhost *vh)
{
	stop_all(vh);
	vh->fs->window = 0;
	for (unsigned i = 0; i < QUEUES; i++) {
		struct queue *q = &vh->queue[i];

		if (q->kick >= 0)
			close(q->kick);
		if (q->call >= 0)
			close(q->call);
		if (q->stop >= 0)
			close(q->stop);
		if (q->scratch) {
			fill_close_pipe(&q->scratch->pipe);
			fs_work_ahead(q->scratch);
		}
		free(q->scratch);
		pthread_mutex_destroy(&q->call_lock);
	}
	unmap_all(vh);
	direct_close(&vh->direct);
	free(vh);
}

int vhost_serve(struct fs *fs, int sock, struct err *e)
{
	struct vhost *vh = calloc(1, sizeof(*vh));
	struct vu_message m;
	int ret = 0;

	if (!vh)
		return err_set(e, ENOMEM, "vhost-user: no memory");
	vh->fs = fs;
	vh->sock = sock;
	vh->patient = patience_pays();
	direct_init(&vh->direct);
	vh->machine.ram.written = direct_written;
	vh->machine.ram.arg = &vh->direct;
	for (unsigned i = 0; i < QUEUES; i++) {
		struct queue *q = &vh->queue[i];

		*q = (struct queue){.vh = vh, .kick = -1, .call = -1, .stop = eventfd(0, EFD_CLOEXEC)};
		q->ring = (struct virtq){
		    .machine = &vh->machine, .size = VIRTQ_SIZE_MAX, .size_max = VIRTQ_SIZE_MAX, .tolerant = true};
		pthread_mutex_init(&q->call_lock, NULL);
		patience_init(&q->patience);
		if (q->stop < 0)
			ret = err_set(e, errno, "vhost-user: %s", strerror(errno));
	}
	while (!ret) {
		ret = vu_receive(sock, &m, -1);
		if (ret == -ECONNRESET) {
			ret = 0;
			break;
		}
		ret = ret ? err_set(e, -ret, "vhost-user: %s", strerror(-ret)) : serve_message(vh, &m, e);
	}
	vhost_free(vh);
	return ret;
}
