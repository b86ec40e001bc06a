#include "blk_local.h"

#include <stdlib.h>

struct local {
	struct virtio_blk *b;
	struct virtio_pci *pci;
	struct virtio_blk_config space;
};
static struct local disks[16]; /* of tests: by PCI device */

static struct local *local_of(struct device *d)
{
	for (u32 i = 0; i < ARRAY_SIZE(disks); i++)
		if (disks[i].pci == virtio_pci_of_device(d))
			return &disks[i];
	abort();
}

static void reset(struct device *d)
{
	virtio_blk_drain(local_of(d)->b);
	virtio_pci_reset(local_of(d)->pci);
}

static void resume(struct device *d)
{
	virtio_blk_resume(local_of(d)->b);
}

static void destroy(struct device *d)
{
	struct local *l = local_of(d);
	virtio_blk_close(l->b);
	virtio_pci_destroy(l->pci);
	virtio_blk_free(l->b);
	l->b = NULL;
	l->pci = NULL;
}

static const struct device_class class = {.name = "virtio-blk", .reset = reset, .resume = resume, .destroy = destroy};

int blk_local_create(struct machine *m, struct pci_host *h, const struct virtio_blk_options *o)
{
	struct local *l = disks;
	struct blk_shape s;
	while (l->b)
		l++;
	if (virtio_blk_create(m, o, &l->b))
		return -1;
	struct virtio *v = virtio_blk_virtio(l->b);
	virtio_blk_shape(l->b, &s);
	blk_config(&l->space, &s, v->n_queues);
	virtio_set_config(v, &l->space, NULL, sizeof(l->space));
	return virtio_pci_create(v, h, -1, &class, &l->pci);
}
