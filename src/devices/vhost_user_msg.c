/* Messages of the front-end: a question and its answer, one at a time. */
#include "devices/vhost_user_int.h"

enum { REPLY_MS = 10000 };

static void put_u64(struct vu_message *m, u32 request, u64 x)
{
	*m = (struct vu_message){.h = {.request = request, .flags = VU_VERSION, .size = 8}, .u64 = x};
}

static void put_state(struct vu_message *m, u32 request, u32 index, u32 num)
{
	*m = (struct vu_message){.h = {.request = request, .flags = VU_VERSION, .size = 8},
				 .state = {index, num}};
}

static int receive_reply(struct vhost_user *u, struct vu_message *m, u32 request, u32 size)
{
	int ret = u->direct ? direct_await(u, REPLY_MS) : 0;

	if (!ret)
		ret = vu_receive(u->o.sock, m, REPLY_MS);
	else
		m->n_fds = 0;
	vu_close_fds(m);
	if (!ret && (m->h.request != request || !(m->h.flags & VU_REPLY) || m->h.size < size))
		ret = -EPROTO;
	return ret;
}

/* A request that has an answer. */
int vhost_user_ask(struct vhost_user *u, struct vu_message *m, u32 size)
{
	u32 request = m->h.request;
	int ret = vu_send(u->o.sock, m);

	return ret ? ret : receive_reply(u, m, request, size);
}

/* One that has none; with REPLY_ACK the server says whether it did it. */
int vhost_user_tell(struct vhost_user *u, struct vu_message *m)
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

int vhost_user_get_u64(struct vhost_user *u, u32 request, u64 *x)
{
	struct vu_message m = {.h = {.request = request, .flags = VU_VERSION}};
	int ret = vhost_user_ask(u, &m, 8);

	*x = m.u64;
	return ret;
}

int vhost_user_set_u64(struct vhost_user *u, u32 request, u64 x)
{
	struct vu_message m;

	put_u64(&m, request, x);
	return vhost_user_tell(u, &m);
}

int vhost_user_set_state(struct vhost_user *u, u32 request, u32 index, u32 num)
{
	struct vu_message m;

	put_state(&m, request, index, num);
	return vhost_user_tell(u, &m);
}

int vhost_user_send_fd(struct vhost_user *u, u32 request, u32 index, int fd)
{
	struct vu_message m;

	put_u64(&m, request, index);
	m.n_fds = 1;
	m.fds[0] = fd;
	return vhost_user_tell(u, &m);
}
