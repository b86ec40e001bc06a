/*
 * Serving: kicks of the guest and messages of the VM, on the main loop.
 *
 * The engine must have forgotten what it decoded of a page before the guest can see that the page was written. So before an
 * answer is published, the attributes of the pages written are looked at, and where there is code the VM is told and waited
 * for. That is seldom: a page of code that is used for something else.
 */
#include "disk/disk.h"

#include <linux/virtio_ring.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>


struct guestmem *machine_guestmem(struct machine *m)
{
	return &m->ram;
}

/* ---- to the VM ---- */
int machine_send(struct machine *m, struct disk_msg *msg)
{
	if (m->gone)
		return -EPIPE;
	while (send(m->sock, msg, disk_msg_size(msg->type), MSG_NOSIGNAL) < 0)
		if (errno != EINTR) {
			m->gone = true;
			return -EPIPE;
		}
	return 0;
}

static void say(struct machine *m, enum disk_msg_type t)
{
	struct disk_msg msg = {.type = t};

	machine_send(m, &msg);
}

void machine_request(struct machine *m, enum machine_event e, int code)
{
	say(m, DISK_NO_ROOM); /* all that virtio_blk.c asks for */
}

/* ---- what was written ---- */
static void await_noted(struct machine *m)
{
	while (!m->gone) {
		struct disk_msg *msg = &m->later[m->n_later];
		ssize_t n = recv(m->sock, msg, sizeof(*msg), 0);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < (ssize_t)disk_msg_size(DISK_NOTED) || n != disk_msg_size(msg->type))
			m->gone = true;
		else if (msg->type == DISK_NOTED)
			return;
		else if (++m->n_later == ARRAY_SIZE(m->later))
			m->gone = true; /* the VM does not say so much unasked */
	}
}

static void on_written(void *arg, gpa_t gpa, u64 n)
{
	struct machine *m = arg;
	struct disk_msg msg = {.type = DISK_WRITTEN, .written = {gpa, n}};

	if (guest_holds_code(m->attr, m->attr_pages, m->attr_code, gpa, n) && !machine_send(m, &msg))
		await_noted(m);
}

/* ---- the transport ---- */
static void write_call(struct queue *q)
{
	const u64 one = 1;

	if (write(q->call, &one, sizeof(one)) != sizeof(one))
		return; /* full: nobody has looked yet */
}

/* What is in flight is answered from the loop, which sleeps. */
static bool looks(const struct machine *m)
{
	return m->patient && patience_looks(&m->patience) && virtio_blk_idle(m->blk);
}

static void signal_queue(struct virtio *v, unsigned queue)
{
	struct machine *m = v->machine;
	struct queue *q = &m->queue[queue];

	if (wake_call(m->wake, q->wake_source, looks(m), &q->left_at))
		write_call(q);
}

/* The interrupts that a vCPU did not find in time; all, if the process is about to look no more. */
static void call_left(struct machine *m, bool now)
{
	pthread_mutex_lock(&m->v->lock);
	for (unsigned i = 0; m->wake && i < m->queues; i++)
		if (wake_overdue(m->wake, m->queue[i].wake_source, &m->queue[i].left_at, now))
			write_call(&m->queue[i]);
	pthread_mutex_unlock(&m->v->lock);
}

static void signal_config(struct virtio *v)
{
	say(v->machine, DISK_BROKEN);
}

static void kick(struct virtio *v, unsigned queue)
{
	struct machine *m = v->machine;
	const u64 one = 1;

	if (write(m->queue[queue].kick, &one, sizeof(one)) != sizeof(one))
		return;
}

static void reset_done(struct virtio *v)
{
	say(v->machine, DISK_QUIET);
}

static const struct virtio_transport_ops transport = {
	.signal_queue = signal_queue, .signal_config = signal_config, .kick = kick, .reset_done = reset_done};

/* ---- from the guest ---- */
static void look_at(struct machine *m, unsigned queue)
{
	struct virtio *v = m->v;

	pthread_mutex_lock(&v->lock);
	if (virtio_live(v) && v->queue[queue].enabled)
		v->ops->notify(v, queue);
	pthread_mutex_unlock(&v->lock);
}

static struct queue *with_chains(struct machine *m)
{
	for (unsigned i = 0; i < m->queues; i++)
		if (virtq_published(&m->v->queue[i]) != m->v->queue[i].avail_next)
			return &m->queue[i];
	return NULL;
}

/* The queue that the next chain is in; NULL: none came soon. */
static struct queue *look(struct machine *m)
{
	u64 until = 0;
	struct queue *q = NULL;

	m->idle_since = now_ns();
	m->looked = looks(m);
	for (until = m->idle_since + PATIENCE_LOOK_NS; m->looked && !q && now_ns() < until; call_left(m, false))
		for (int i = 0; i < 16 && !(q = with_chains(m)); i++)
			__builtin_ia32_pause();
	if (q)
		patience_learn(&m->patience, 0, true, true);
	return q;
}

/* Notifications are wanted again. The queue of a chain that has come meanwhile. */
static struct queue *unwatch(struct machine *m)
{
	struct queue *more = NULL;

	pthread_mutex_lock(&m->v->lock);
	for (unsigned i = 0; i < m->queues; i++) {
		struct virtq *q = &m->v->queue[i];

		if (q->watched) {
			q->watched = false;
			more = virtq_listen(q) ? &m->queue[i] : more;
		}
	}
	pthread_mutex_unlock(&m->v->lock);
	return more;
}

enum { TURNS = 256 }; /* then the VM is listened to */

/* Serves, and looks for more. False: enough for now. */
static bool serve(struct machine *m, struct queue *q)
{
	for (int turns = 0; q && turns < TURNS; turns++, q = look(m)) {
		struct virtq *vq = &m->v->queue[q->index];
		u16 before = vq->avail_next;

		vq->watched = looks(m);
		look_at(m, q->index);
		if (turns && vq->avail_next == before)
			return true; /* no memory: what is in flight brings us back */
	}
	return !q;
}

/* Edge-triggered: each kick is an edge, and the count in the eventfd is nobody's. */
static void on_kick(void *arg, u32 events)
{
	struct queue *q = arg;
	struct machine *m = q->m;

	if (m->idle_since)
		patience_learn(&m->patience, now_ns() - m->idle_since, m->looked, false);
	if (!serve(m, q))
		kick(m->v, q->index);
	q = unwatch(m);
	if (q)
		kick(m->v, q->index);
	call_left(m, true);
}

/* ---- from the VM ---- */
static void start(struct machine *m, const struct disk_start *s)
{
	struct virtio *v = m->v;
	bool bad = false;

	pthread_mutex_lock(&v->lock);
	v->driver_features = s->features;
	for (unsigned i = 0; i < v->n_queues; i++) {
		struct virtq *q = &v->queue[i];

		virtq_reset(q);
		if (!s->queue[i].size)
			continue;
		q->desc = s->queue[i].desc;
		q->avail = s->queue[i].avail;
		q->used = s->queue[i].used;
		q->size = (u16)MIN(s->queue[i].size, UINT16_MAX);
		bad |= virtq_enable(q, virtio_has(v, VIRTIO_RING_F_EVENT_IDX));
	}
	v->status = VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_DRIVER_OK;
	pthread_mutex_unlock(&v->lock);
	if (bad)
		say(m, DISK_BROKEN);
	for (unsigned i = 0; i < v->n_queues; i++)
		look_at(m, i);
}

static void reset(struct machine *m, bool drop)
{
	if (drop)
		virtio_blk_drain(m->blk);
	pthread_mutex_lock(&m->v->lock);
	if (m->v->status || !drop) /* else it was reset before, and has said so */
		virtio_reset_locked(m->v);
	pthread_mutex_unlock(&m->v->lock);
}

static void handle(struct machine *m, const struct disk_msg *msg)
{
	switch (msg->type) {
	case DISK_START:
		start(m, &msg->start);
		break;
	case DISK_RESET:
		reset(m, msg->drop);
		break;
	case DISK_RESUME:
		virtio_blk_resume(m->blk);
		break;
	default:
		m->gone = true;
	}
}

static void on_socket(void *arg, u32 events)
{
	struct machine *m = arg;
	struct disk_msg msg;

	while (!m->gone) {
		ssize_t n = 0;

		if (m->n_later) {
			msg = m->later[0];
			memmove(m->later, m->later + 1, --m->n_later * sizeof(m->later[0]));
			handle(m, &msg);
			continue;
		}
		n = recv(m->sock, &msg, sizeof(msg), MSG_DONTWAIT);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (n < (ssize_t)disk_msg_size(DISK_RESUME) || n != disk_msg_size(msg.type))
			m->gone = true;
		else
			handle(m, &msg);
	}
	loop_stop(m->loop, 0);
}

int machine_serve(struct machine *m)
{
	struct disk_msg ready = {.type = DISK_READY};
	int ret = loop_add(m->loop, m->sock, EPOLLIN, on_socket, m);

	m->v->transport = &transport;
	m->ram.written = m->attr ? on_written : NULL;
	m->ram.arg = m;
	for (unsigned i = 0; i < m->queues && !ret; i++)
		ret = loop_add(m->loop, m->queue[i].kick, EPOLLIN | EPOLLET, on_kick, &m->queue[i]);
	if (!ret) {
		virtio_blk_shape(m->blk, &ready.ready);
		ret = machine_send(m, &ready);
	}
	if (!ret)
		ret = loop_run(m->loop);
	virtio_blk_close(m->blk);
	virtio_blk_free(m->blk);
	loop_free(m->loop);
	return ret ? 1 : 0;
}
