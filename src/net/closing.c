#include "net/closing.h"

#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <stdlib.h>
#include <string.h>

#include "backends/net_offload.h"

enum { ETH = 14, IP4 = 20, IP6 = 40, TCP = 20, FIN = 1, SYN = 2, RST = 4, ACK = 16, TABLE = 4096, KEY = 36 };

struct conn {
	bool used, guest_fin, guest_acked, net_acked;
	bool v6;
	u8 key[KEY];	 /* addresses, ports: the guest's first */
	u32 net_end;	 /* sequence number behind the network's FIN */
	u32 guest_end;	 /* and behind the guest's */
};
struct closing {
	struct conn *due;
	u8 eth[ETH]; /* of the guest's last frame */
	struct conn conn[TABLE];
};

struct closing *closing_new(void)
{
	return calloc(1, sizeof(struct closing)); /* memory comes with use */
}

void closing_free(struct closing *c)
{
	free(c);
}

static u32 get16(const u8 *p)
{
	return (u32)p[0] << 8 | p[1];
}

static u32 get32(const u8 *p)
{
	return get16(p) << 16 | get16(p + 2);
}

static void put32(u8 *p, u32 v)
{
	v = htonl(v);
	memcpy(p, &v, 4);
}

/* ---- a TCP segment ---- */
struct segment {
	bool v6;
	u8 key[KEY];
	u8 flags;
	u32 seq, ack, end; /* end: behind its data and FIN */
};

static bool parse(const u8 *f, u32 len, bool from_guest, struct segment *s)
{
	u32 type = len >= ETH + IP4 + TCP ? get16(f + 12) : 0, size = 4, l4 = 0, bytes = 0, src = 0, doff = 0;
	const u8 *tcp = NULL;

	*s = (struct segment){.v6 = type == ETH_P_IPV6};
	if (type == ETH_P_IP && f[ETH + 9] == 6 && !(get16(f + ETH + 6) & 0x3fff)) {
		l4 = ETH + (f[ETH] & 15) * 4u;
		bytes = ETH + get16(f + ETH + 2);
		src = ETH + 12;
	} else if (s->v6 && len >= ETH + IP6 + TCP && f[ETH + 6] == 6) {
		l4 = ETH + IP6;
		bytes = l4 + get16(f + ETH + 4);
		src = ETH + 8;
		size = 16;
	} else {
		return false;
	}
	if (bytes > len || l4 < ETH + IP4 || l4 + TCP > bytes)
		return false;
	tcp = f + l4;
	doff = (tcp[12] >> 4) * 4u;
	if (doff < TCP || l4 + doff > bytes)
		return false;
	memcpy(s->key, f + (from_guest ? src : src + size), size);
	memcpy(s->key + 16, f + (from_guest ? src + size : src), size);
	memcpy(s->key + 32, tcp + (from_guest ? 0 : 2), 2);
	memcpy(s->key + 34, tcp + (from_guest ? 2 : 0), 2);
	s->flags = tcp[13];
	s->seq = get32(tcp + 4);
	s->ack = get32(tcp + 8);
	s->end = s->seq + (bytes - l4 - doff) + (s->flags & FIN ? 1 : 0);
	return true;
}

static struct conn *place(struct closing *c, const u8 *key)
{
	u64 h = 0xcbf29ce484222325ull; /* FNV-1a */

	for (unsigned i = 0; i < KEY; i++)
		h = (h ^ key[i]) * 0x100000001b3ull;
	return &c->conn[(h ^ h >> 32) % TABLE];
}

static struct conn *find(struct closing *c, const struct segment *s)
{
	struct conn *n = place(c, s->key);

	return n->used && n->v6 == s->v6 && !memcmp(n->key, s->key, KEY) ? n : NULL;
}

static bool over(const struct conn *n)
{
	return n->used && n->guest_fin && n->guest_acked && n->net_acked;
}

static void check(struct closing *c, struct conn *n)
{
	if (over(n))
		c->due = n;
}

/* ---- what passes by ---- */
void closing_from_net(struct closing *c, const u8 *frame, u32 len)
{
	struct conn *n = NULL;
	struct segment s;

	if (!parse(frame, len, false, &s))
		return;
	n = find(c, &s);
	if (n && (s.flags & (RST | SYN))) {
		n->used = false;
		return;
	}
	if (!n && (s.flags & FIN)) { /* one whose FIN came second needs nothing: its connection just ends */
		n = place(c, s.key);
		*n = (struct conn){.used = true, .v6 = s.v6, .net_end = s.end};
		memcpy(n->key, s.key, KEY);
	}
	if (n && n->guest_fin && (s.flags & ACK) && s.ack == n->guest_end) {
		n->net_acked = true;
		check(c, n);
	}
}

void closing_from_guest(struct closing *c, const u8 *frame, u32 len)
{
	struct conn *n = NULL;
	struct segment s;

	memcpy(c->eth, frame, ETH);
	if (!parse(frame, len, true, &s))
		return;
	n = find(c, &s);
	if (!n)
		return;
	if (s.flags & (RST | SYN)) {
		n->used = false; /* over, or the same addresses again */
		return;
	}
	if ((s.flags & FIN) && !n->guest_fin) {
		n->guest_fin = true;
		n->guest_end = s.end;
	}
	n->guest_acked |= (s.flags & ACK) && s.ack == n->net_end;
	check(c, n);
}

/* ---- the end ---- */
static u32 build(const struct closing *c, const struct conn *n, u8 *f)
{
	u32 header = n->v6 ? IP6 : IP4, size = n->v6 ? 16 : 4, src = n->v6 ? 8 : 12;
	u8 *ip = f + ETH, *tcp = ip + header;
	u64 pseudo = htons(6) + (u64)htons(TCP);
	u16 sum;

	memset(f, 0, CLOSING_FRAME);
	memcpy(f, c->eth, 12);
	memcpy(f + 12, n->v6 ? (u8[]){0x86, 0xdd, 0x60} : (u8[]){8, 0, 0x45}, 3);
	ip[n->v6 ? 5 : 3] = (u8)(n->v6 ? TCP : IP4 + TCP);
	ip[n->v6 ? 6 : 9] = 6;
	ip[n->v6 ? 7 : 8] = 64;
	memcpy(ip + src, n->key, size);
	memcpy(ip + src + size, n->key + 16, size);
	memcpy(tcp, n->key + 32, 4);
	put32(tcp + 4, n->guest_end);
	put32(tcp + 8, n->net_end);
	tcp[12] = TCP / 4 << 4;
	tcp[13] = RST | ACK;
	sum = (u16)~offload_fold(offload_sum(tcp, TCP, offload_sum(ip + src, 2 * size, pseudo)));
	memcpy(tcp + 16, &sum, 2);
	if (!n->v6) {
		sum = (u16)~offload_fold(offload_sum(ip, IP4, 0));
		memcpy(ip + 10, &sum, 2);
	}
	return ETH + header + TCP;
}

u32 closing_rst(struct closing *c, u8 frame[CLOSING_FRAME])
{
	struct conn *n = c->due;

	c->due = NULL;
	if (!n || !over(n)) /* its place may have been taken since */
		return 0;
	n->used = false;
	return build(c, n, frame);
}
