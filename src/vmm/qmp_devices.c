/* What devices have done, for x-doppel-stats. */
#include "devices/virtio_disk.h"
#include "devices/virtio_net.h"
#include "vmm/machine.h"
#include "vmm/qmp_int.h"

static void add_disk(struct virtio_disk *d, cJSON *disks)
{
	const struct blk_counters c = virtio_disk_counters(d);
	cJSON *j = cJSON_CreateObject();

	cJSON_AddStringToObject(j, "path", virtio_disk_name(d));
	cJSON_AddNumberToObject(j, "pid", virtio_disk_pid(d));
#define X(name) cJSON_AddNumberToObject(j, #name, (double)c.name);
	BLK_COUNTERS(X)
#undef X
	cJSON_AddItemToArray(disks, j);
}

static void add_net(struct machine *m, u32 i, cJSON *nets)
{
	static const char *const kinds[] = {[NET_NONE] = "none",     [NET_USER] = "user",     [NET_LAN] = "lan",
					    [NET_PASST] = "passt",   [NET_SOCKET] = "socket", [NET_TAP] = "tap",
					    [NET_VHOST_USER] = "vhost-user"};
	struct virtio_net_counters c = {0};
	cJSON *j = cJSON_CreateObject();

	cJSON_AddStringToObject(j, "kind", kinds[m->cfg.net[i].kind]);
	if (m->net[i]) { /* else its frames are seen by a server only */
		c = virtio_net_counters(m->net[i]);
#define X(name) cJSON_AddNumberToObject(j, #name, (double)c.name);
		NET_COUNTERS(X)
#undef X
	}
	cJSON_AddItemToArray(nets, j);
}

void qmp_add_device_stats(struct machine *m, cJSON *result)
{
	cJSON *disks = cJSON_AddArrayToObject(result, "disks"), *nets = cJSON_AddArrayToObject(result, "networks");

	for (u32 i = 0; i < m->ndisks; i++)
		add_disk(m->disk[i], disks);
	for (u32 i = 0; i < m->cfg.nnets; i++)
		if (m->cfg.net[i].kind != NET_NONE)
			add_net(m, i, nets);
}
