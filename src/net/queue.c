#include "net/queue.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>

enum { DIRECT = 32768 }; /* from here on a copy costs more than a system call */

int queue_init(struct queue *q)
{
	void *p = mmap(NULL, QUEUE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	*q = (struct queue){.buf = p};
	return p == MAP_FAILED ? -errno : 0;
}

void queue_free(struct queue *q)
{
	munmap(q->buf, QUEUE_BYTES);
}

static u32 record_len(const struct queue *q, u32 at)
{
	u32 len;

	memcpy(&len, q->buf + at, sizeof(len));
	return len;
}

static u32 record_size(u32 len)
{
	return ALIGN_UP((u32)sizeof(len) + len, 8u);
}

static void pop(struct queue *q)
{
	u32 size = record_size(record_len(q, q->head));

	q->head += size;
	q->bytes -= size;
	if (!q->bytes)
		q->head = q->tail = 0;
}

void queue_flush(struct queue *q, int fd)
{
	while (q->bytes) {
		struct mmsghdr m[NET_BATCH];
		struct iovec iov[NET_BATCH];
		unsigned n = 0;
		int sent = 0;

		for (u32 at = q->head; at < q->tail && n < NET_BATCH; n++) {
			u32 len = record_len(q, at);

			iov[n] = (struct iovec){.iov_base = q->buf + at + sizeof(len), .iov_len = len};
			m[n] = (struct mmsghdr){.msg_hdr = {.msg_iov = &iov[n], .msg_iovlen = 1}};
			at += record_size(len);
		}
		sent = sendmmsg(fd, m, n, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (sent < 0 && errno == EINTR)
			continue;
		if (sent < 0 && (errno == EAGAIN || errno == ENOBUFS))
			return;
		if (sent <= 0) { /* this one can never be sent */
			q->dropped++;
			pop(q);
			continue;
		}
		q->sent += (u64)sent;
		while (sent--)
			pop(q);
	}
}

static bool send_now(struct queue *q, int fd, const struct iovec *iov)
{
	const struct msghdr m = {.msg_iov = (struct iovec *)iov, .msg_iovlen = 2};

	if (sendmsg(fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
		return errno != EAGAIN && errno != ENOBUFS && errno != EINTR;
	q->sent++;
	return true;
}

/* Room for one more record at the tail, if need be by moving the rest to the front. */
static bool make_room(struct queue *q, u32 size)
{
	if (QUEUE_BYTES - q->tail >= size)
		return true;
	if (QUEUE_BYTES - q->bytes < size)
		return false;
	memmove(q->buf, q->buf + q->head, q->bytes);
	q->head = 0;
	q->tail = q->bytes;
	return true;
}

void queue_add(struct queue *q, int fd, const struct virtio_net_hdr_v1 *h, const u8 *frame, u32 len)
{
	const struct iovec iov[2] = {{.iov_base = (void *)h, .iov_len = NET_HDR}, {.iov_base = (void *)frame, .iov_len = len}};
	u32 n = NET_HDR + len;

	if (len >= DIRECT) {
		queue_flush(q, fd); /* frames keep their order */
		if (!q->bytes && send_now(q, fd, iov))
			return;
	}
	if (!make_room(q, record_size(n))) {
		q->dropped++;
		return;
	}
	memcpy(q->buf + q->tail, &n, sizeof(n));
	memcpy(q->buf + q->tail + sizeof(n), h, NET_HDR);
	memcpy(q->buf + q->tail + sizeof(n) + NET_HDR, frame, len);
	q->tail += record_size(n);
	q->bytes += record_size(n);
}
