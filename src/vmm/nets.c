/* Network cards, as --net has them. */
#include <string.h>
#include <unistd.h>

#include "devices/vhost_user_net.h"
#include "devices/virtio_net.h"
#include "vmm/machine.h"

/* Locally administered, and the same each time a VM of this name starts. */
static void default_mac(const struct machine *m, u32 index, u8 *mac)
{
	u64 hash = 0xcbf29ce484222325ull; /* FNV-1a */

	for (const char *p = m->cfg.name ? m->cfg.name : ""; *p; p++)
		hash = (hash ^ (u8)*p) * 0x100000001b3ull;
	hash = (hash ^ index ^ (u64)geteuid() << 8) * 0x100000001b3ull;
	hash ^= hash >> 32;
	memcpy(mac, (u8[]){0x52, 0x54, 0x00}, 3);
	memcpy(mac + 3, &hash, 3);
}

static int add_virtio_net(struct machine *m, struct pci_host *pci, u32 index, const u8 *mac, struct err *e)
{
	const struct net_options *net = &m->cfg.net[index];
	struct virtio_net_options o = {0};
	int ret = net_open(m->loop, net, &o.net, e);

	if (ret)
		return ret;
	memcpy(o.mac, mac, sizeof(o.mac));
	ret = virtio_net_create(m, pci, &o, &m->net[index]);
	if (ret)
		net_destroy(o.net);
	return ret ? err_set(e, -ret, "--net: %s", strerror(-ret)) : 0;
}

int machine_add_nets(struct machine *m, struct pci_host *pci, struct err *e)
{
	int ret = 0;

	for (u32 i = 0; i < m->cfg.nnets && !ret; i++) {
		const struct net_options *net = &m->cfg.net[i];
		u8 mac[NET_MAC];

		default_mac(m, i, mac);
		if (net->mac_given)
			memcpy(mac, net->mac, sizeof(mac));
		if (net->kind == NET_VHOST_USER)
			ret = vhost_user_net_create(m, pci, net, mac, e);
		else
			ret = add_virtio_net(m, pci, i, mac, e);
	}
	return ret;
}
