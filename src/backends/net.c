/* Which kind of network is opened by whom. */
#include "backends/net.h"

int net_open(struct loop *l, const struct net_options *o, struct net **out, struct err *e)
{
	static int (*const open[])(struct loop *l, const struct net_options *o, struct net **out, struct err *e) = {
		[NET_USER] = net_open_user,   [NET_LAN] = net_open_lan,	    [NET_PASST] = net_open_stream,
		[NET_SOCKET] = net_open_stream, [NET_TAP] = net_open_tap,
	};

	if ((unsigned)o->kind >= ARRAY_SIZE(open) || !open[o->kind])
		return err_set(e, ENOTSUP, "--net: no such network");
	return open[o->kind](l, o, out, e);
}
