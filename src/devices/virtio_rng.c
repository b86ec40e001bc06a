/* Entropy device (Virtio 1.2, 5.4): one queue; every writable byte is filled from the host's getrandom(2). */
#include "devices/virtio_rng.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>

#include "devices/virtio.h"

enum { CLASS_OTHER = 0x00ff00, QUEUE_SIZE = 64, BYTES_MAX = 65536 };

struct virtio_rng {
	struct virtio v;
	struct virtio_pci *pci;
	struct virtq_chain chain;
};

/* A request may be answered in part (5.4.6.1): BYTES_MAX bounds the time one costs. */
static u32 fill(const struct virtq_chain *c)
{
	u64 done = 0;
	for (unsigned i = c->n_out; i < c->n_out + c->n_in && done < BYTES_MAX; i++) {
		u64 want = MIN(c->iov[i].iov_len, BYTES_MAX - done);
		ssize_t n = getrandom(c->iov[i].iov_base, want, 0);
		if (n < 0)
			break;
		done += (u64)n;
		if ((u64)n < want)
			break;
	}
	return (u32)done;
}

static void rng_notify(struct virtio *v, unsigned queue)
{
	struct virtio_rng *r = container_of(v, struct virtio_rng, v);
	struct virtq *q = &v->queue[0];
	int budget = VIRTIO_BUDGET, got = 0;
	do {
		virtq_quiet(q);
		while (budget > 0 && (got = virtq_pop(q, &r->chain)) > 0) {
			virtq_push(q, &r->chain, fill(&r->chain));
			budget--;
		}
		if (got < 0) {
			virtio_needs_reset_locked(v, "bad descriptor chain");
			return;
		}
	} while (virtq_listen(q) && budget > 0);
	if (budget <= 0)
		virtio_again(v, 0);
	virtio_signal_queue(v, 0);
}

static const struct virtio_ops rng_ops = {
    .name = "virtio-rng", .id = VIRTIO_ID_RNG, .pci_class = CLASS_OTHER, .notify = rng_notify};

static void rng_reset(struct device *d)
{
	virtio_pci_reset(virtio_pci_of_device(d));
}

static void rng_destroy(struct device *d)
{
	struct virtio_rng *r = container_of(virtio_of_device(d), struct virtio_rng, v);
	virtio_pci_destroy(r->pci);
	virtio_fini(&r->v);
	free(r);
}

static const struct device_class rng_class = {
    .name = "virtio-rng", .reset = rng_reset, .destroy = rng_destroy};

int virtio_rng_create(struct machine *m, struct pci_host *h, struct virtio_rng **out)
{
	struct virtio_rng *r = calloc(1, sizeof(*r));
	if (!r)
		return -ENOMEM;
	virtio_init(&r->v, m, &rng_ops, 0, 1, QUEUE_SIZE);
	int e = virtio_pci_create(&r->v, h, -1, &rng_class, &r->pci);
	if (e) {
		virtio_fini(&r->v);
		free(r);
		return e;
	}
	*out = r;
	return 0;
}
