/* A network card whose queues another process serves. */
#ifndef DEVICES_VHOST_USER_NET_H
#define DEVICES_VHOST_USER_NET_H

#include "backends/net.h"
#include "devices/pci.h"

/* Connects to the Unix socket o->text. */
int vhost_user_net_create(struct machine *m, struct pci_host *h, const struct net_options *o, const u8 *mac, struct err *e);

#endif
