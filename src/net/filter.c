#include "net/filter.h"

#include <linux/if_ether.h>
#include <netinet/in.h>
#include <string.h>

enum { ETH = 14, IP4_LEN = 2, IP4_DST = 16, IP4 = 20, IP6_LEN = 4, IP6_DST = 24, IP6 = 40 };

static u32 get16(const u8 *p)
{
	return (u32)p[0] << 8 | p[1];
}

static bool ip4_allowed(const u8 *ip, u32 len)
{
	u32 header = 0, total = 0;

	if (len < IP4)
		return false;
	header = (ip[0] & 15) * 4u;
	total = get16(ip + IP4_LEN);
	if (ip[0] >> 4 != 4 || header < IP4 || total < header || total > len)
		return false;
	/* 127/8, and 0/8: 0.0.0.0 connects to this machine too */
	return ip[IP4_DST] != 127 && ip[IP4_DST] != 0;
}

/* ::/96 (unspecified, loopback, IPv4-compatible) and ::ffff:0:0/96 (IPv4-mapped) */
static bool ip6_allowed(const u8 *ip, u32 len)
{
	static const u8 zeros[10];
	const u8 *dst = ip + IP6_DST;

	if (len < IP6 || ip[0] >> 4 != 6 || get16(ip + IP6_LEN) > len - IP6)
		return false;
	return memcmp(dst, zeros, 10) != 0 || !((dst[10] == 0 && dst[11] == 0) || (dst[10] == 0xff && dst[11] == 0xff));
}

bool filter_allows(const u8 *frame, u32 len)
{
	if (len < ETH)
		return false;
	switch (get16(frame + 12)) {
	case ETH_P_IP:
		return ip4_allowed(frame + ETH, len - ETH);
	case ETH_P_IPV6:
		return ip6_allowed(frame + ETH, len - ETH);
	default:
		return get16(frame + 12) == ETH_P_ARP;
	}
}
