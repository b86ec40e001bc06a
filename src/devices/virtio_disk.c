/*
 * virtio-blk on PCI, the VMM's half: features, configuration, the driver's steps. The queues are served by the disk's process
 * (src/disk): the KVM's eventfds for kicks go to it, its eventfds for interrupts to the KVM. What comes to the VMM are messages
 * of disk_proto.h, none of them on the way of a request.
 */
#include "devices/virtio_disk_int.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static struct virtio_disk *disk_of(struct virtio *v)
{
	return container_of(v, struct virtio_disk, v);
}

/* ---- the process' end ---- */
static void describe_end(int pid, char *buf, size_t n)
{
	const struct timespec ms = {.tv_nsec = 1000000};
	int status = 0, got = 0;

	for (unsigned i = 0; i < 200 && !(got = waitpid(pid, &status, WNOHANG)); i++)
		nanosleep(&ms, NULL); /* its socket closes a moment before it can be waited for */
	if (got != pid)
		snprintf(buf, n, "its answers make no sense");
	else if (WIFSIGNALED(status))
		snprintf(buf, n, "killed by signal %d (%s)", WTERMSIG(status), strsignal(WTERMSIG(status)));
	else
		snprintf(buf, n, "ended with status %d", WEXITSTATUS(status));
}

static void quiet_locked(struct virtio_disk *d)
{
	d->running = d->leaving = false;
	if (d->v.resetting)
		virtio_reset_done_locked(&d->v);
}

static void die_locked(struct virtio_disk *d)
{
	char why[100];

	if (d->dead)
		return;
	d->dead = true;
	loop_del(machine_loop(d->v.machine), d->sock);
	shutdown(d->sock, SHUT_RDWR); /* nothing that it still says counts, and it stops */
	describe_end(d->pid, why, sizeof(why));
	log_msg(LOG_ERROR, "disk %s: its process is lost: %s (the guest gets I/O errors; restart the VM to get the disk back)", d->name,
		why);
	if (virtio_pci_take_over(d->pci))
		log_msg(LOG_ERROR, "disk %s: its queues cannot be watched: the guest gets no answers", d->name);
	if (d->leaving)
		quiet_locked(d);
	else if (d->running)
		virtio_disk_take_over(d);
}

/* ---- messages ---- */
static void tell_locked(struct virtio_disk *d, struct disk_msg *m)
{
	if (!d->dead && send(d->sock, m, disk_msg_size(m->type), MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
		die_locked(d);
}

static void on_written(struct virtio_disk *d, const struct disk_msg *m)
{
	struct disk_msg answer = {.type = DISK_NOTED};

	if (guest_ptr(d->v.machine, m->written.gpa, m->written.size))
		guest_written(d->v.machine, m->written.gpa, m->written.size);
	tell_locked(d, &answer);
}

static void on_broken(struct virtio_disk *d)
{
	if (d->running && !d->leaving)
		virtio_needs_reset_locked(&d->v, "bad request");
}

/* One message, waited for or not. False: there is none (now, or ever again). */
static bool receive_locked(struct virtio_disk *d, int flags)
{
	struct disk_msg m;
	ssize_t n = recv(d->sock, &m, sizeof(m), flags);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return errno == EINTR;
	if (n < (ssize_t)disk_msg_size(DISK_QUIET) || n != disk_msg_size(m.type)) {
		die_locked(d);
		return false;
	}
	switch (m.type) {
	case DISK_QUIET:
		if (d->leaving)
			quiet_locked(d);
		return true;
	case DISK_NO_ROOM:
		machine_request(d->v.machine, MACHINE_STOP, 0);
		return true;
	case DISK_BROKEN:
		on_broken(d);
		return true;
	case DISK_WRITTEN:
		on_written(d, &m);
		return true;
	default:
		die_locked(d);
		return false;
	}
}

static void on_socket(void *arg, u32 events)
{
	struct virtio_disk *d = arg;

	pthread_mutex_lock(&d->v.lock);
	while (!d->dead && receive_locked(d, MSG_DONTWAIT))
		;
	pthread_mutex_unlock(&d->v.lock);
}

/* ---- what the driver does ---- */
static void disk_activate(struct virtio *v)
{
	struct virtio_disk *d = disk_of(v);
	struct disk_msg m = {.type = DISK_START, .start.features = v->driver_features};

	d->running = true;
	memset(d->shared->queue, 0, sizeof(d->shared->queue));
	for (unsigned i = 0; i < v->n_queues; i++) {
		const struct virtq *q = &v->queue[i];

		if (!q->enabled)
			continue;
		m.start.queue[i].desc = q->desc;
		m.start.queue[i].avail = q->avail;
		m.start.queue[i].used = q->used;
		m.start.queue[i].size = q->size;
	}
	tell_locked(d, &m);
}

static bool leave_locked(struct virtio_disk *d, bool drop)
{
	struct disk_msg m = {.type = DISK_RESET, .drop = drop};

	if (d->dead)
		d->running = false;
	if (!d->running)
		return true;
	if (!d->leaving || drop) {
		d->leaving = true;
		tell_locked(d, &m);
	}
	return !d->running;
}

static bool disk_reset_queues(struct virtio *v)
{
	return leave_locked(disk_of(v), false);
}

/* Only when the process is lost. */
static void disk_notify(struct virtio *v, unsigned queue)
{
	struct virtio_disk *d = disk_of(v);

	if (d->dead && d->running)
		virtio_disk_refuse(d, queue);
}

static const struct virtio_ops disk_ops = {.name = "virtio-blk",
					   .id = VIRTIO_ID_BLOCK,
					   .pci_class = BLK_CLASS,
					   .notify = disk_notify,
					   .activate = disk_activate,
					   .reset = disk_reset_queues};

/* ---- lifecycle ---- */
static struct virtio_disk *disk_of_device(struct device *dev)
{
	return disk_of(virtio_of_device(dev));
}

/* The main thread waits: the memory must be quiet before the machine starts anew. */
static void remote_reset(struct device *dev)
{
	struct virtio_disk *d = disk_of_device(dev);

	pthread_mutex_lock(&d->v.lock);
	if (!leave_locked(d, true))
		while (d->running && !d->dead)
			receive_locked(d, 0);
	pthread_mutex_unlock(&d->v.lock);
	virtio_pci_reset(d->pci);
}

static void remote_resume(struct device *dev)
{
	struct virtio_disk *d = disk_of_device(dev);
	struct disk_msg m = {.type = DISK_RESUME};

	pthread_mutex_lock(&d->v.lock);
	tell_locked(d, &m);
	pthread_mutex_unlock(&d->v.lock);
}

/* The process finishes what it has and closes the image; when it has ended, others may have it. */
static void end_process(struct virtio_disk *d)
{
	if (d->sock < 0)
		return;
	if (!d->dead)
		loop_del(machine_loop(d->v.machine), d->sock);
	shutdown(d->sock, SHUT_RDWR); /* others may have a copy by fork */
	close(d->sock);
	while (waitpid(d->pid, NULL, 0) < 0 && errno == EINTR)
		;
}

static void free_device(struct virtio_disk *d)
{
	if (d->shared)
		munmap(d->shared, sizeof(*d->shared));
	if (d->shared_fd >= 0)
		close(d->shared_fd);
	virtio_fini(&d->v);
	free(d);
}

static void remote_destroy(struct device *dev)
{
	struct virtio_disk *d = disk_of_device(dev);

	end_process(d);
	virtio_pci_destroy(d->pci);
	free_device(d);
}

static const struct device_class disk_class = {
	.name = "virtio-blk", .reset = remote_reset, .resume = remote_resume, .destroy = remote_destroy};

static int share_page(struct virtio_disk *d, struct err *e)
{
	d->shared_fd = memfd_create("disk-books", MFD_CLOEXEC);
	if (d->shared_fd >= 0 && ftruncate(d->shared_fd, sizeof(*d->shared)) == 0) {
		void *p = mmap(NULL, sizeof(*d->shared), PROT_READ | PROT_WRITE, MAP_SHARED, d->shared_fd, 0);

		d->shared = p == MAP_FAILED ? NULL : p;
	}
	return d->shared ? 0 : err_set(e, errno, "%s: no shared memory: %s", d->name, strerror(errno));
}

/* Where its calls may go instead of their eventfds. The number of descriptors: one or none. */
static unsigned tell_wake(struct virtio_disk *d, struct disk_open *o, int *fd)
{
	for (unsigned i = 0; i < d->v.n_queues; i++) {
		int kick = -1, call = -1;

		virtio_pci_eventfds(d->pci, i, &kick, &call);
		*fd = machine_wake_page(d->v.machine, call, &o->wake_source[i]);
		if (*fd < 0)
			return 0;
	}
	o->has_wake = true;
	return 1;
}

static int start_process(struct virtio_disk *d, const struct virtio_disk_options *o, struct blk_shape *shape, struct err *e)
{
	const struct guestmem *g = machine_guestmem(d->v.machine);
	struct disk_msg *m = calloc(1, sizeof(*m));
	int fds[DISK_FDS_MAX], ret = 0;
	unsigned n = 0;

	if (!m)
		return err_set(e, ENOMEM, "%s: no memory", d->name);
	m->open.config = *o->config;
	m->open.config.path = NULL;
	memcpy(m->open.path, d->name, sizeof(d->name));
	snprintf(m->open.serial, sizeof(m->open.serial), "%s", o->serial ? o->serial : "");
	m->open.queues = d->v.n_queues;
	m->open.stop_on_enospc = o->stop_on_enospc;
	m->open.attr = o->attr;
	m->open.windows_gpa = g->windows.gpa;
	m->open.windows_size = g->windows.size;
	m->open.nslots = g->nslots;
	fds[n++] = d->shared_fd;
	for (u32 i = 0; i < g->nslots; i++) {
		m->open.slot[i].gpa = g->slot[i].gpa;
		m->open.slot[i].size = g->slot[i].size;
		m->open.slot[i].offset = g->slot[i].offset;
		fds[n++] = g->slot[i].fd;
	}
	if (o->attr.fd >= 0)
		fds[n++] = o->attr.fd;
	n += tell_wake(d, &m->open, &fds[n]);
	m->open.has_file = sscanf(d->name, "/proc/self/fd/%d", &fds[n]) == 1;
	n += m->open.has_file;
	for (unsigned i = 0; i < d->v.n_queues; i++, n += 2)
		virtio_pci_eventfds(d->pci, i, &fds[n], &fds[n + 1]);
	ret = disk_process_start(m, fds, n, shape, &d->sock, &d->pid, e);
	free(m);
	return ret;
}

/* The device stands before its process, which needs its eventfds; what the guest is told of it comes last. */
int virtio_disk_create(struct machine *m, struct pci_host *h, const struct virtio_disk_options *o, struct virtio_disk **out,
		       struct err *e)
{
	struct virtio_disk *d = calloc(1, sizeof(*d));
	unsigned queues = MIN(MAX(o->queues, 1), BLK_QUEUES_MAX);
	struct blk_shape shape;
	int ret = 0;

	if (!d)
		return err_set(e, ENOMEM, "--disk: no memory");
	d->sock = d->shared_fd = -1;
	virtio_init(&d->v, m, &disk_ops, 0, queues, BLK_QUEUE_SIZE);
	d->v.remote = true;
	if (snprintf(d->name, sizeof(d->name), "%s", o->config->path) >= (int)sizeof(d->name))
		ret = err_set(e, ENAMETOOLONG, "%.100s...: the path is too long", o->config->path);
	if (!ret)
		ret = share_page(d, e);
	virtio_set_config(&d->v, &d->space, NULL, sizeof(d->space));
	if (!ret) {
		ret = virtio_pci_create(&d->v, h, -1, &disk_class, &d->pci);
		if (ret)
			err_set(e, -ret, "--disk %s: %s", d->name, strerror(-ret));
	}
	if (ret) {
		free_device(d);
		return ret;
	}
	ret = start_process(d, o, &shape, e); /* from here on the machine's list has the device */
	if (!ret) {
		ret = loop_add(machine_loop(m), d->sock, EPOLLIN, on_socket, d);
		if (ret)
			err_set(e, -ret, "%s: %s", d->name, strerror(-ret));
	}
	if (ret)
		return ret;
	d->v.device_features |= blk_features(&shape, queues);
	blk_config(&d->space, &shape, queues);
	*out = d;
	return 0;
}

struct blk_counters virtio_disk_counters(const struct virtio_disk *d)
{
	return d->shared->counters;
}

const char *virtio_disk_name(const struct virtio_disk *d)
{
	return d->name;
}

int virtio_disk_pid(const struct virtio_disk *d)
{
	return d->dead ? 0 : d->pid;
}
