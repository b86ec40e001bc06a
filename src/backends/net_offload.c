#include "backends/net_offload.h"

#include <errno.h>
#include <linux/if_ether.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <string.h>

#include "base/base.h"

enum { ETH = 14, VLAN = 4, IP4_MIN = 20, IP6 = 40, TCP_MIN = 20, TCP_CHECK = 16, TCP_FLAGS = 13, IP_PACKET_MAX = 65535 };
enum { TCP_FIN = 1, TCP_PSH = 8, TCP_CWR = 0x80 };

u64 offload_sum(const u8 *p, u32 n, u64 sum)
{
	/* 32-bit words into 64 bits: no carry is lost in 2^32 words */
	for (; n >= 16; n -= 16, p += 16) {
		u32 w[4];

		memcpy(w, p, sizeof(w));
		sum += (u64)w[0] + w[1] + ((u64)w[2] + w[3]);
	}
	for (; n >= 2; n -= 2, p += 2) {
		u16 w;

		memcpy(&w, p, sizeof(w));
		sum += w;
	}
	return n ? sum + *p : sum; /* little-endian: the odd byte is the low one of its word */
}

u16 offload_fold(u64 sum)
{
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (u16)sum;
}

static u16 get16(const u8 *p)
{
	return (u16)(p[0] << 8 | p[1]);
}

static void put16(u8 *p, u32 v)
{
	p[0] = (u8)(v >> 8);
	p[1] = (u8)v;
}

static u32 get32(const u8 *p)
{
	return (u32)get16(p) << 16 | get16(p + 2);
}

static void put32(u8 *p, u32 v)
{
	put16(p, v >> 16);
	put16(p + 2, v);
}

static void put_sum(u8 *p, u64 sum)
{
	u16 v = (u16)~offload_fold(sum);

	memcpy(p, &v, sizeof(v));
}

/* ---- a frame without segmentation: the driver has put the pseudo header's sum into the field ---- */
static int plain_checksum(const struct virtio_net_hdr_v1 *h, u8 *frame, u32 len)
{
	u8 *field = frame + h->csum_start + h->csum_offset;
	u64 sum = 0;

	if (!range_within((u32)h->csum_start + h->csum_offset, 2, len))
		return -EINVAL;
	sum = offload_sum(frame + h->csum_start, len - h->csum_start, 0);
	put_sum(field, sum);
	if (!field[0] && !field[1])
		memset(field, 0xff, 2); /* 0 says "none" in UDP (RFC 768); TCP takes either */
	return 0;
}

/* ---- TCP ---- */
struct tcp_frame {
	u8 *ip, *tcp;
	u32 headers, len; /* up to the payload; all */
	bool v6;
};

static bool locate(const struct virtio_net_hdr_v1 *h, u8 *frame, u32 len, struct tcp_frame *t)
{
	u8 kind = h->gso_type & ~VIRTIO_NET_HDR_GSO_ECN;
	u32 l3 = ETH, l4 = h->csum_start, tcp_len = 0;
	u16 type;

	*t = (struct tcp_frame){.v6 = kind == VIRTIO_NET_HDR_GSO_TCPV6, .len = len};
	if ((kind != VIRTIO_NET_HDR_GSO_TCPV4 && kind != VIRTIO_NET_HDR_GSO_TCPV6) || len < ETH + VLAN ||
	    !(h->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) || h->csum_offset != TCP_CHECK || !h->gso_size)
		return false;
	type = get16(frame + 12);
	if (type == ETH_P_8021Q) {
		type = get16(frame + 16);
		l3 += VLAN;
	}
	if (type != (t->v6 ? ETH_P_IPV6 : ETH_P_IP) || l4 < l3 + (t->v6 ? IP6 : IP4_MIN) || !range_within(l4, TCP_MIN, len) ||
	    len - l3 > IP_PACKET_MAX)
		return false;
	t->ip = frame + l3;
	t->tcp = frame + l4;
	/* IPv6 extension headers may lie between; their chain is the guest's business */
	if (t->v6 ? t->ip[0] >> 4 != 6 : t->ip[0] >> 4 != 4 || (u32)(t->ip[0] & 15) * 4 != l4 - l3 || t->ip[9] != IPPROTO_TCP)
		return false;
	tcp_len = (t->tcp[12] >> 4) * 4u;
	t->headers = l4 + tcp_len;
	return tcp_len >= TCP_MIN && range_within(l4, tcp_len, len);
}

/* Lengths and checksums of the packet that begins at ip and has n bytes from tcp on. */
static void set_lengths(const struct tcp_frame *t, u8 *ip, u8 *tcp, u32 n)
{
	u32 ip_header = (u32)(tcp - ip);
	u64 pseudo = htons(IPPROTO_TCP) + (u64)htons((u16)n);

	if (t->v6) {
		put16(ip + 4, ip_header - IP6 + n);
		pseudo = offload_sum(ip + 8, 32, pseudo);
	} else {
		put16(ip + 2, ip_header + n);
		put16(ip + 10, 0);
		put_sum(ip + 10, offload_sum(ip, ip_header, 0));
		pseudo = offload_sum(ip + 12, 8, pseudo);
	}
	put16(tcp + TCP_CHECK, 0);
	put_sum(tcp + TCP_CHECK, offload_sum(tcp, n, pseudo));
}

int offload_finish(const struct virtio_net_hdr_v1 *h, u8 *frame, u32 len)
{
	struct tcp_frame t;

	if (h->gso_type == VIRTIO_NET_HDR_GSO_NONE)
		return h->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM ? plain_checksum(h, frame, len) : 0;
	if (!locate(h, frame, len, &t))
		return -EINVAL;
	set_lengths(&t, t.ip, t.tcp, len - (u32)(t.tcp - frame));
	return 0;
}

/*
 * Each segment is built in place: its headers are copied in front of its payload, over bytes of the segment before, which is gone
 * by then. PSH and FIN belong to the last segment, CWR to the first (RFC 3168 6.1.2).
 */
int offload_segment(const struct virtio_net_hdr_v1 *h, u8 *frame, u32 len, void (*out)(void *arg, const u8 *frame, u32 len),
		    void *arg)
{
	u8 headers[ETH + VLAN + 256], flags;
	struct tcp_frame t;
	u32 payload, seq, at_ip, at_tcp;
	u16 id;

	if (h->gso_type == VIRTIO_NET_HDR_GSO_NONE) {
		int ret = offload_finish(h, frame, len);

		if (!ret)
			out(arg, frame, len);
		return ret;
	}
	if (!locate(h, frame, len, &t) || t.headers > sizeof(headers))
		return -EINVAL;
	memcpy(headers, frame, t.headers);
	at_ip = (u32)(t.ip - frame);
	at_tcp = (u32)(t.tcp - frame);
	payload = len - t.headers;
	seq = get32(t.tcp + 4);
	id = get16(t.ip + 4);
	flags = t.tcp[TCP_FLAGS];
	for (u32 off = 0, i = 0; off < payload || !i; off += h->gso_size, i++) {
		u32 n = MIN(payload - off, (u32)h->gso_size);
		u8 *f = frame + off, *tcp = f + at_tcp;

		memcpy(f, headers, t.headers);
		put32(tcp + 4, seq + off);
		if (!t.v6)
			put16(f + at_ip + 4, id + i);
		tcp[TCP_FLAGS] = flags & ~((off + n < payload ? TCP_FIN | TCP_PSH : 0) | (i ? TCP_CWR : 0));
		set_lengths(&t, f + at_ip, tcp, t.headers - at_tcp + n);
		out(arg, f, t.headers + n);
	}
	return 0;
}
