/*
 * A virtio device's life as the driver drives it (Virtio 1.2, 2.1 and 3.1): status, features, queues, reset.
 * Independent of the transport and of the device.
 */
#include "devices/virtio.h"

#include <assert.h>
#include <errno.h>
#include <linux/virtio_ring.h>

#include "base/base.h"

void virtio_init(struct virtio *v, struct machine *m, const struct virtio_ops *ops, u64 features,
		 unsigned n_queues, u16 queue_size)
{
	assert(n_queues <= VIRTIO_QUEUES_MAX && queue_size <= VIRTQ_SIZE_MAX);
	v->ops = ops;
	v->machine = m;
	v->device_features = features | BIT64(VIRTIO_F_VERSION_1) | BIT64(VIRTIO_RING_F_INDIRECT_DESC) |
			     BIT64(VIRTIO_RING_F_EVENT_IDX);
	v->n_queues = n_queues;
	v->shm_gpa = MACHINE_NOWHERE;
	for (unsigned i = 0; i < n_queues; i++)
		v->queue[i] = (struct virtq){.machine = m, .size = queue_size, .size_max = queue_size};
	pthread_mutex_init(&v->lock, NULL);
}

void virtio_tolerate(struct virtio *v)
{
	for (unsigned i = 0; i < v->n_queues; i++)
		v->queue[i].tolerant = true;
}

void virtio_set_config(struct virtio *v, void *config, const u8 *writable, unsigned size)
{
	v->config = config;
	v->config_writable = writable;
	v->config_size = size;
}

void virtio_fini(struct virtio *v)
{
	pthread_mutex_destroy(&v->lock);
}

void virtio_signal_queue(struct virtio *v, unsigned queue)
{
	if (virtq_wants_interrupt(&v->queue[queue]))
		v->transport->signal_queue(v, queue);
}

void virtio_again(struct virtio *v, unsigned queue)
{
	v->transport->kick(v, queue);
}

void virtio_config_changed_locked(struct virtio *v)
{
	v->generation++;
	if (v->status & VIRTIO_CONFIG_S_DRIVER_OK)
		v->transport->signal_config(v);
}

void virtio_needs_reset_locked(struct virtio *v, const char *why)
{
	if (v->status & VIRTIO_CONFIG_S_NEEDS_RESET)
		return; /* said once */
	log_msg(LOG_WARN, "%s: the guest's driver broke the rules: %s (the device waits for a reset)",
		v->ops->name, why);
	v->status |= VIRTIO_CONFIG_S_NEEDS_RESET;
	if (v->status & VIRTIO_CONFIG_S_DRIVER_OK)
		v->transport->signal_config(v);
}

void virtio_reset_done_locked(struct virtio *v)
{
	v->resetting = false;
	v->status = 0;
	if (v->transport->reset_done)
		v->transport->reset_done(v);
}

void virtio_reset_locked(struct virtio *v)
{
	if (v->resetting)
		return;
	if (v->ops->leave && virtio_live(v))
		v->ops->leave(v);
	for (unsigned i = 0; i < v->n_queues; i++)
		virtq_reset(&v->queue[i]);
	v->driver_features = 0;
	v->resetting = true;
	if (!v->ops->reset || v->ops->reset(v))
		virtio_reset_done_locked(v);
}

u8 virtio_read_status_locked(struct virtio *v)
{
	return v->status;
}

/* 3.1.1 step 5: the driver's features must be a subset of ours that a modern driver can have. */
static bool features_acceptable(const struct virtio *v)
{
	return !(v->driver_features & ~v->device_features) && virtio_has(v, VIRTIO_F_VERSION_1);
}

void virtio_write_status_locked(struct virtio *v, u8 status)
{
	if (!status) {
		virtio_reset_locked(v);
		return;
	}
	if (v->resetting)
		return;
	u8 set = status & ~v->status; /* the driver only ever adds bits (2.1.1) */
	if ((set & VIRTIO_CONFIG_S_FEATURES_OK) && !features_acceptable(v))
		set &= ~(VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_DRIVER_OK);
	if ((set & VIRTIO_CONFIG_S_DRIVER_OK) && !((v->status | set) & VIRTIO_CONFIG_S_FEATURES_OK))
		set &= ~VIRTIO_CONFIG_S_DRIVER_OK;
	set &= ~VIRTIO_CONFIG_S_NEEDS_RESET; /* ours to set */
	v->status |= set;
	if ((set & VIRTIO_CONFIG_S_DRIVER_OK) && v->ops->activate)
		v->ops->activate(v);
}

void virtio_enable_queue_locked(struct virtio *v, unsigned queue)
{
	struct virtq *q = &v->queue[queue];
	if (q->enabled || v->resetting || !(v->status & VIRTIO_CONFIG_S_FEATURES_OK))
		return;
	if (virtq_enable(q, virtio_has(v, VIRTIO_RING_F_EVENT_IDX)))
		virtio_needs_reset_locked(v, "a queue lies outside memory");
}
