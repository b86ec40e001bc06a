/*
 * A disk whose process is lost. The VMM takes over the rings: what the process had taken and not answered, by its books in the
 * shared page, and all that comes later is answered with an I/O error. The guest's used ring says how far answers got.
 */
#include "devices/virtio_disk_int.h"

#include <string.h>

static void answer(struct virtio_disk *d, unsigned queue, const struct virtq_chain *c)
{
	const u8 status = VIRTIO_BLK_S_IOERR;

	if (chain_write(c, c->in_bytes - 1, &status, 1))
		virtq_push(&d->v.queue[queue], c, (u32)c->in_bytes);
}

/* The chain that would be popped next, and the one that was answered last, may stand in the books wrongly: see book_in() and
 * book_out() of virtio_blk.c. */
static void correct(struct blk_books *k, const struct virtq *q)
{
	u32 id = virtq_last_used(q);

	if (q->used_next == (u16)(k->used_next + 1) && id < BLK_QUEUE_SIZE)
		k->busy[id] = 0;
	id = virtq_next_head(q);
	if (id < BLK_QUEUE_SIZE)
		k->busy[id] = 0;
}

static void take_over_queue(struct virtio_disk *d, unsigned queue)
{
	struct virtq *q = &d->v.queue[queue];
	struct blk_books k = d->shared->queue[queue]; /* nobody changes it any more, whatever it holds */

	if (!q->enabled)
		return;
	virtq_resume(q, k.avail_next);
	correct(&k, q);
	for (unsigned head = 0; head < q->size; head++) {
		if (!k.busy[head])
			continue;
		if (virtq_walk_head(q, (u16)head, &d->chain)) {
			virtio_needs_reset_locked(&d->v, "bad request");
			return;
		}
		answer(d, queue, &d->chain);
	}
	virtio_disk_refuse(d, queue);
}

void virtio_disk_take_over(struct virtio_disk *d)
{
	for (unsigned i = 0; i < d->v.n_queues; i++)
		take_over_queue(d, i);
}

void virtio_disk_refuse(struct virtio_disk *d, unsigned queue)
{
	struct virtq *q = &d->v.queue[queue];
	int budget = VIRTIO_BUDGET, got = 0;

	do {
		virtq_quiet(q);
		while (budget > 0 && (got = virtq_pop(q, &d->chain)) > 0) {
			answer(d, queue, &d->chain);
			budget--;
		}
	} while (!got && virtq_listen(q) && budget > 0);
	if (got < 0)
		virtio_needs_reset_locked(&d->v, "bad request");
	else if (budget <= 0)
		virtio_again(&d->v, queue);
	virtio_signal_queue(&d->v, queue);
}
