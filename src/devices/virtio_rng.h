/* virtio-rng: entropy. */
#ifndef DEVICES_VIRTIO_RNG_H
#define DEVICES_VIRTIO_RNG_H

#include "devices/pci.h"

struct virtio_rng;
int virtio_rng_create(struct machine *m, struct pci_host *h, struct virtio_rng **out);

#endif
