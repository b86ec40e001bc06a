/*
 * File system device (Virtio 1.2, 5.11): a tag, a queue for requests that must not wait (hiprio) and one for
 * all others. The requests are FUSE messages and another process answers them (vhost_user.h); of FUSE only
 * the error is spoken here, for the time when that process is gone.
 */
#include "devices/virtio_fs.h"

#include <linux/fuse.h>
#include <linux/virtio_fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/base.h"
#include "devices/vhost_user.h"

enum { CLASS_OTHER = 0x018000 /* mass storage, other */, QUEUES = 2, QUEUE_SIZE = VIRTQ_SIZE_MAX };

struct virtio_fs {
	struct virtio v;
	struct virtio_pci *pci;
	struct vhost_user *server;
	struct virtio_fs_config space;
	int window, window_sock; /* -1: none */
	char name[64];
};

static struct virtio_fs *fs_of(struct virtio *v)
{
	return container_of(v, struct virtio_fs, v);
}

static u32 fs_fail(struct virtio *v, unsigned queue, const struct virtq_chain *c)
{
	struct fuse_in_header in;
	struct fuse_out_header out = {.len = sizeof(out), .error = -ENOTCONN};

	if (!chain_read(c, 0, &in, sizeof(in)))
		return 0;
	out.unique = in.unique;
	return chain_write(c, 0, &out, sizeof(out)) ? sizeof(out) : 0;
}

/*
 * overlayfs asks the layer below for trusted.overlay.metacopy of every file that it looks up. A server without
 * trusted.* says no each time; to wake it for that doubles the time of a first look at a tree.
 */
static u32 fs_answer(struct virtio *v, unsigned queue, const struct virtq_chain *c)
{
	static const char trusted[] = "trusted.";
	struct {
		struct fuse_in_header h;
		struct fuse_getxattr_in x;
		char name[sizeof(trusted) - 1];
	} in;
	struct fuse_out_header out = {.len = sizeof(out), .error = -ENODATA};

	if (!queue || !chain_read(c, 0, &in, sizeof(in)) || in.h.opcode != FUSE_GETXATTR ||
	    memcmp(in.name, trusted, sizeof(in.name)) != 0)
		return 0;
	out.unique = in.h.unique;
	return chain_write(c, 0, &out, sizeof(out)) ? sizeof(out) : 0;
}

static void fs_notify(struct virtio *v, unsigned queue)
{
	vhost_user_notify(fs_of(v)->server, queue);
}

/* It is there while the driver uses the device, which moves it at other times only. */
static void fs_place_window(struct virtio *v)
{
	struct virtio_fs *f = fs_of(v);
	gpa_t gpa = virtio_live(v) ? v->shm_gpa : MACHINE_NOWHERE;
	int ret = f->window < 0 ? 0 : machine_window_place(v->machine, f->window, gpa);

	if (ret && gpa != MACHINE_NOWHERE)
		log_msg(LOG_WARN, "%s: its window cannot be at %#llx: %s", f->name, (unsigned long long)gpa, strerror(-ret));
}

static void fs_activate(struct virtio *v)
{
	fs_place_window(v);
	vhost_user_activate(fs_of(v)->server);
}

static bool fs_reset_queues(struct virtio *v)
{
	bool quiet = vhost_user_reset(fs_of(v)->server);

	if (fs_of(v)->window >= 0)
		machine_window_place(v->machine, fs_of(v)->window, MACHINE_NOWHERE);
	return quiet;
}

static const struct virtio_ops fs_ops = {.name = "virtio-fs",
					 .id = VIRTIO_ID_FS,
					 .pci_class = CLASS_OTHER,
					 .notify = fs_notify,
					 .activate = fs_activate,
					 .reset = fs_reset_queues,
					 .shm_moved = fs_place_window};

/* ---- lifecycle ---- */
static void fs_reset(struct device *d)
{
	virtio_pci_reset(virtio_pci_of_device(d));
}

static void fs_free(struct virtio_fs *f)
{
	vhost_user_destroy(f->server);
	if (f->window_sock >= 0)
		close(f->window_sock);
	virtio_fini(&f->v);
	free(f);
}

static void fs_destroy(struct device *d)
{
	struct virtio_fs *f = fs_of(virtio_of_device(d));

	virtio_pci_destroy(f->pci);
	fs_free(f);
}

static const struct device_class fs_class = {.name = "virtio-fs", .reset = fs_reset, .destroy = fs_destroy};

/* Without one files are read through the queue. */
static void make_window(struct virtio_fs *f, u64 size)
{
	if (!size || !vhost_user_is_direct(f->server))
		return;
	f->window = machine_window_add(f->v.machine, size, &f->window_sock);
	if (f->window >= 0)
		f->v.shm_size = size;
}

static int go_direct(struct virtio_fs *f, const struct page_attr *attr)
{
	const struct vhost_user_direct d = {.attr_fd = attr->fd, .attr_pages = attr->bytes, .attr_code = attr->code,
					    .window = f->v.shm_size, .window_sock = f->window_sock};
	int ret = vhost_user_go_direct(f->server, f->pci, &d);

	if (f->window_sock >= 0)
		close(f->window_sock);
	f->window_sock = -1;
	return ret;
}

int virtio_fs_create(struct machine *m, struct pci_host *h, const struct virtio_fs_options *o, struct err *e)
{
	struct virtio_fs *f = calloc(1, sizeof(*f));
	struct vhost_user_options vo = {.sock = o->sock, .n_queues = QUEUES, .queue_size = QUEUE_SIZE, .fail = fs_fail,
					.answer = o->untrusted ? fs_answer : NULL, .may_direct = true};

	if (!f) {
		close(o->sock);
		return err_set(e, ENOMEM, "virtio-fs: no memory");
	}
	snprintf(f->name, sizeof(f->name), "shared folder %s", o->tag);
	vo.name = f->name;
	f->window = f->window_sock = -1;
	memcpy(f->space.tag, o->tag,
	       strnlen(o->tag, sizeof(f->space.tag))); /* not terminated when it is full (5.11.4) */
	f->space.num_request_queues = QUEUES - 1;
	virtio_init(&f->v, m, &fs_ops, 0, QUEUES, QUEUE_SIZE);
	virtio_tolerate(&f->v);
	virtio_set_config(&f->v, &f->space, NULL, sizeof(f->space));
	int ret = vhost_user_create(m, &vo, &f->server, e);

	if (!ret) {
		vhost_user_attach(f->server, &f->v);
		make_window(f, o->window);
		ret = virtio_pci_create(&f->v, h, -1, &fs_class, &f->pci);
	}
	if (ret) {
		fs_free(f);
		return err_set(e, -ret, "virtio-fs: %s", strerror(-ret));
	}
	/* the device is the machine's from here on */
	ret = go_direct(f, &o->attr);
	return ret ? err_set(e, -ret, "virtio-fs: %s", strerror(-ret)) : 0;
}
