/*
 * A server of ours that has the guest's own rings (base/vhost_user.h, VU_SET_DIRECT). The VMM is on the way of no request; it hears where
 * the server has overwritten code, and takes the rings over when the server is lost.
 */
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "devices/vhost_user_int.h"

enum { END_MS = 1000 };

/* ---- code that it has overwritten; any thread ---- */
/* False: there is nothing, or never again. */
static bool serve_channel(struct vhost_user *u, bool locked)
{
	struct vu_written w;

	if (recv(u->channel, &w, sizeof(w), MSG_DONTWAIT) != sizeof(w))
		return false;
	if (w.size && guest_ptr(u->machine, w.gpa, w.size))
		guest_written(u->machine, w.gpa, w.size);
	if (send(u->channel, &w, sizeof(w), MSG_DONTWAIT | MSG_NOSIGNAL) != sizeof(w)) /* whoever has the lock may wait for what waits for this */
		return false;
	if (w.size)
		return true;
	if (!locked)
		pthread_mutex_lock(&u->v->lock);
	if (u->running && !locked) /* else it is being reset */
		virtio_needs_reset_locked(u->v, "bad descriptor chain");
	if (!locked)
		pthread_mutex_unlock(&u->v->lock);
	return true;
}

static void on_channel(void *arg, u32 events)
{
	struct vhost_user *u = arg;

	while (serve_channel(u, false))
		;
	if (!(events & (EPOLLHUP | EPOLLRDHUP | EPOLLERR)))
		return;
	loop_del(machine_loop(u->machine), u->channel); /* its socket says the rest */
	u->listening = false;
}

/* For events of the server's socket. It may first have to finish a request, and for that to be heard: the main thread may be the one that
 * waits here. v->lock held. */
static int await(struct vhost_user *u, short events, int timeout_ms)
{
	struct pollfd p[2] = {{.fd = u->o.sock, .events = events}, {.fd = u->channel, .events = POLLIN}};
	u64 until = now_ms() + (u64)timeout_ms;

	for (;;) {
		u64 now = now_ms();
		int n = now < until ? poll(p, 2, (int)(until - now)) : 0;

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -ETIMEDOUT;
		if (p[0].revents)
			return 0;
		if (!serve_channel(u, true))
			p[1].fd = p[1].revents & (POLLHUP | POLLERR) ? -1 : u->channel;
	}
}

int direct_await(struct vhost_user *u, int timeout_ms)
{
	return await(u, POLLIN, timeout_ms);
}

/* ---- beginning ---- */
static int send_direct(struct vhost_user *u, int channel, const struct vhost_user_direct *d)
{
	struct vu_message m = {.h = {.request = VU_SET_DIRECT, .flags = VU_VERSION, .size = sizeof(m.direct)}};
	int wake = -1;

	m.fds[m.n_fds++] = channel;
	if (d->attr_fd >= 0) {
		m.direct.attr_pages = d->attr_pages;
		m.direct.attr_code = d->attr_code;
		m.fds[m.n_fds++] = d->attr_fd;
	}
	m.direct.windows_gpa = machine_guestmem(u->machine)->windows.gpa;
	m.direct.windows_size = machine_guestmem(u->machine)->windows.size;
	if (d->window) {
		m.direct.window = d->window;
		m.fds[m.n_fds++] = d->window_sock;
	}
	for (unsigned i = 0; i < u->o.n_queues; i++) {
		int kick = -1, call = -1;

		virtio_pci_eventfds(u->pci, i, &kick, &call);
		wake = machine_wake_page(u->machine, call, &m.direct.wake_source[i]);
		if (wake < 0)
			break;
	}
	if (wake >= 0)
		m.fds[m.n_fds++] = wake;
	else
		memset(m.direct.wake_source, 0, sizeof(m.direct.wake_source));
	m.direct.has_wake = wake >= 0;
	return vhost_user_tell(u, &m);
}

int vhost_user_go_direct(struct vhost_user *u, struct virtio_pci *pci, const struct vhost_user_direct *d)
{
	int pair[2], ret = 0;

	if (!u->direct)
		return 0;
	u->pci = pci;
	if (u->o.n_queues > VU_DIRECT_QUEUES)
		return -EINVAL;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return -errno;
	u->channel = pair[0];
	ret = send_direct(u, pair[1], d);
	close(pair[1]);
	if (!ret)
		ret = loop_add(machine_loop(u->machine), u->channel, EPOLLIN | EPOLLRDHUP, on_channel, u);
	u->listening = !ret;
	return ret;
}

int direct_start_ring(struct vhost_user *u, unsigned i)
{
	const struct virtq *q = &u->v->queue[i];
	struct vu_message m = {.h = {.request = VU_SET_VRING_ADDR, .flags = VU_VERSION, .size = sizeof(m.addr)},
			       .addr = {.index = i, .desc = (u64)q->desc_p, .avail = (u64)q->avail_p, .used = (u64)q->used_p}};
	int kick = -1, call = -1, ret = 0;

	if (!q->enabled)
		return 0;
	virtio_pci_eventfds(u->pci, i, &kick, &call);
	ret = vhost_user_set_state(u, VU_SET_VRING_NUM, i, q->size);
	if (!ret)
		ret = vhost_user_set_state(u, VU_SET_VRING_BASE, i, 0);
	if (!ret)
		ret = vhost_user_tell(u, &m);
	if (!ret)
		ret = vhost_user_send_fd(u, VU_SET_VRING_CALL, i, call);
	return ret ? ret : vhost_user_send_fd(u, VU_SET_VRING_KICK, i, kick);
}

/* ---- its end ---- */
/* It ends at the end of what we say. Its threads are gone when its end of the socket is. */
static void end_process(struct vhost_user *u)
{
	shutdown(u->o.sock, SHUT_WR);
	if (await(u, POLLRDHUP, END_MS))
		log_msg(LOG_WARN, "%s: the server does not end", u->o.name);
	shutdown(u->o.sock, SHUT_RDWR);
}

/* It serves a queue in order, one at a time: what is answered is what it took, but for the one it was at. */
void direct_take_over(struct vhost_user *u)
{
	end_process(u);
	if (virtio_pci_take_over(u->pci))
		log_msg(LOG_ERROR, "%s: its queues cannot be watched: the guest gets no answers", u->o.name);
	for (unsigned i = 0; i < u->o.n_queues && u->running; i++) {
		struct virtq *q = &u->v->queue[i];

		if (!q->enabled)
			continue;
		virtq_resume(q, 0);
		q->avail_next = q->used_next;
		vhost_user_notify(u, i);
		virtio_signal_queue(u->v, i);
	}
}

void direct_destroy(struct vhost_user *u)
{
	if (u->listening)
		loop_del(machine_loop(u->machine), u->channel);
	if (u->channel >= 0)
		close(u->channel);
}
