/* Acquiring: everything that the process will ever have. */
#include "disk/disk.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>


struct fds {
	int fd[DISK_FDS_MAX];
	unsigned n, taken;
};

static int take(struct fds *f)
{
	return f->taken < f->n ? f->fd[f->taken++] : -1;
}

static int receive(struct machine *m, struct disk_msg *msg, struct fds *f)
{
	union {
		struct cmsghdr h;
		char room[CMSG_SPACE(DISK_FDS_MAX * sizeof(int))];
	} c;
	struct iovec iov = {msg, sizeof(*msg)};
	struct msghdr h = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &c, .msg_controllen = sizeof(c)};
	ssize_t n = recvmsg(m->sock, &h, MSG_CMSG_CLOEXEC);
	struct cmsghdr *k = n > 0 ? CMSG_FIRSTHDR(&h) : NULL;

	if (n != disk_msg_size(DISK_OPEN) || msg->type != DISK_OPEN || !k || k->cmsg_type != SCM_RIGHTS)
		return -EPROTO;
	f->n = (unsigned)((k->cmsg_len - CMSG_LEN(0)) / sizeof(int));
	memcpy(f->fd, CMSG_DATA(k), f->n * sizeof(int));
	return 0;
}

/* Maps and closes fd. */
static void *map(int fd, u64 size, u64 offset, int prot)
{
	void *p = fd < 0 ? MAP_FAILED : mmap(NULL, size, prot, MAP_SHARED | MAP_NORESERVE, fd, (off_t)offset);

	if (fd >= 0)
		close(fd);
	return p == MAP_FAILED ? NULL : p;
}

static int map_memory(struct machine *m, const struct disk_open *o, struct fds *f)
{
	m->shared = map(take(f), sizeof(*m->shared), 0, PROT_READ | PROT_WRITE);
	if (!m->shared || o->nslots > GUESTMEM_SLOTS)
		return -EPROTO;
	m->ram.windows.gpa = o->windows_gpa;
	m->ram.windows.size = o->windows_size;
	for (u32 i = 0; i < o->nslots; i++) {
		m->ram.slot[i].gpa = o->slot[i].gpa;
		m->ram.slot[i].size = o->slot[i].size;
		m->ram.slot[i].fd = -1;
		m->ram.slot[i].host = map(take(f), o->slot[i].size, o->slot[i].offset, PROT_READ | PROT_WRITE);
		if (!m->ram.slot[i].host)
			return -ENOMEM;
		m->ram.nslots++;
	}
	if (o->attr.fd >= 0) {
		m->attr_pages = o->attr.bytes;
		m->attr_code = o->attr.code;
		m->attr = map(take(f), o->attr.bytes, 0, PROT_READ);
		if (!m->attr)
			return -ENOMEM;
	}
	if (o->has_wake) {
		m->wake = map(take(f), sizeof(*m->wake), 0, PROT_READ | PROT_WRITE);
		if (!m->wake)
			return -ENOMEM;
	}
	return 0;
}

static int open_image(struct machine *m, struct disk_open *o, struct err *e)
{
	struct virtio_blk_options b = {.serial = o->serial, .queues = o->queues, .stop_on_enospc = o->stop_on_enospc,
				       .shared = m->shared};
	char file[40];
	int ret = 0;

	o->path[sizeof(o->path) - 1] = o->serial[sizeof(o->serial) - 1] = 0;
	snprintf(file, sizeof(file), "/proc/self/fd/%d", m->file);
	o->config.path = m->file >= 0 ? file : o->path;
	ret = disk_open(m->loop, &o->config, &b.disk, e);
	if (m->file >= 0)
		close(m->file); /* it is open once more */
	if (ret)
		return ret;
	ret = virtio_blk_create(m, &b, &m->blk);
	if (ret) {
		disk_destroy(b.disk);
		return err_set(e, -ret, "%s: no memory", o->path);
	}
	m->v = virtio_blk_virtio(m->blk);
	return 0;
}

int machine_open(struct machine *m, struct err *e)
{
	static struct disk_msg msg; /* its strings are used as long as the disk is */
	struct fds f = {.n = 0};
	int ret = receive(m, &msg, &f);

	if (!ret)
		ret = map_memory(m, &msg.open, &f);
	m->loop = loop_new();
	if (!ret && !m->loop)
		ret = -ENOMEM;
	m->file = msg.open.has_file ? take(&f) : -1;
	m->patient = patience_pays();
	patience_init(&m->patience);
	m->queues = MIN(msg.open.queues, (u32)BLK_QUEUES_MAX);
	for (unsigned i = 0; i < m->queues && !ret; i++) {
		m->queue[i] = (struct queue){.m = m, .index = i, .kick = take(&f),
					     .wake_source = MIN(msg.open.wake_source[i], (u32)WAKE_SOURCES - 1)};
		m->queue[i].call = take(&f);
		ret = m->queue[i].call < 0 ? -EPROTO : 0;
	}
	if (ret)
		return err_set(e, -ret, "%s: its process cannot start: %s", msg.open.path, strerror(-ret));
	return open_image(m, &msg.open, e);
}
