#include "net/filter.h"

#include <linux/if_ether.h>
#include <netinet/in.h>
#include <string.h>

enum { ETH = 14, IP4_DST = 16, IP4 = 20, IP6_DST = 24, IP6 = 40 };

static bool ip4_allowed(const u8 *dst)
{
	/* 127/8, and 0/8: 0.0.0.0 connects to this machine too */
	return dst[0] != 127 && dst[0] != 0;
}

/* ::/96 (unspecified, loopback, IPv4-compatible) and ::ffff:0:0/96 (IPv4-mapped) */
static bool ip6_allowed(const u8 *dst)
{
	static const u8 zeros[10];

	return memcmp(dst, zeros, 10) != 0 || !((dst[10] == 0 && dst[11] == 0) || (dst[10] == 0xff && dst[11] == 0xff));
}

bool filter_allows(const u8 *frame, u32 len)
{
	u16 type;

	if (len < ETH)
		return false;
	type = (u16)(frame[12] << 8 | frame[13]);
	if (type == ETH_P_IP)
		return len >= ETH + IP4 && ip4_allowed(frame + ETH + IP4_DST);
	if (type == ETH_P_IPV6)
		return len >= ETH + IP6 && ip6_allowed(frame + ETH + IP6_DST);
	return type == ETH_P_ARP;
}
