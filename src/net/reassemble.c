#include "net/reassemble.h"

#include <linux/if_ether.h>
#include <stdlib.h>
#include <string.h>

#include "backends/net_offload.h"

enum { ETH = 14, IP4 = 20, IP4_MAX = 60, ID = 4, FLAGS = 6, PROTO = 9, CHECK = 10, SRC = 12 };
enum { MORE = 0x2000, OFFSET = 0x1fff, PACKET_MAX = 65535, UNITS = 8192, DATAGRAMS = 16, LIFE_MS = 30000 };

struct datagram {
	bool used;
	u8 key[11]; /* identification, protocol, source, destination */
	u64 since;
	u32 header;	/* bytes in front of the payload: Ethernet and IP of the first fragment; 0: not there yet */
	u32 end, units; /* payload bytes, 0: not known yet; units of 8 bytes that are there */
	u8 have[UNITS / 8];
	u8 head[ETH + IP4_MAX];
	u8 payload[PACKET_MAX];
};
struct reassembler {
	u8 frame[ETH + PACKET_MAX];
	struct datagram d[DATAGRAMS];
};

struct reassembler *reassembler_new(void)
{
	return calloc(1, sizeof(struct reassembler)); /* memory comes with use */
}

void reassembler_free(struct reassembler *r)
{
	free(r);
}

static u32 get16(const u8 *p)
{
	return (u32)p[0] << 8 | p[1];
}

static void put16(u8 *p, u32 v)
{
	p[0] = (u8)(v >> 8);
	p[1] = (u8)v;
}

bool reassemble_needed(const u8 *frame)
{
	return get16(frame + 12) == ETH_P_IP && (get16(frame + ETH + FLAGS) & (MORE | OFFSET));
}

static void make_key(const u8 *ip, u8 *key)
{
	memcpy(key, ip + ID, 2);
	key[2] = ip[PROTO];
	memcpy(key + 3, ip + SRC, 8);
}

/* Its datagram, or a new one: in a free place, else in that of the oldest. */
static struct datagram *find(struct reassembler *r, const u8 *ip, u64 now)
{
	struct datagram *oldest = &r->d[0];
	u8 key[sizeof(oldest->key)];

	make_key(ip, key);
	for (unsigned i = 0; i < DATAGRAMS; i++) {
		struct datagram *d = &r->d[i];

		if (d->used && now - d->since > LIFE_MS)
			d->used = false;
		if (d->used && !memcmp(d->key, key, sizeof(key)))
			return d;
		if (oldest->used && (!d->used || d->since < oldest->since))
			oldest = d;
	}
	oldest->used = true;
	oldest->since = now;
	oldest->header = oldest->end = oldest->units = 0;
	memcpy(oldest->key, key, sizeof(key));
	memset(oldest->have, 0, sizeof(oldest->have));
	return oldest;
}

/* False: it does not fit to what is there. */
static bool add(struct datagram *d, const u8 *frame)
{
	const u8 *ip = frame + ETH;
	u32 header = (ip[0] & 15) * 4u, n = get16(ip + 2) - header, flags = get16(ip + FLAGS);
	u32 at = (flags & OFFSET) * 8, first = at / 8, count = (n + 7) / 8;
	bool last = !(flags & MORE);

	if (!n || (!last && n % 8) || at + n > PACKET_MAX - IP4 || (last && d->end) || (d->end && at + n > d->end))
		return false;
	for (u32 i = first; i < first + count; i++) {
		if (d->have[i / 8] & BIT(i % 8))
			return false;
		d->have[i / 8] |= BIT(i % 8);
	}
	for (u32 i = first + count; last && i < UNITS; i++) /* nothing may lie behind the end */
		if (d->have[i / 8] & BIT(i % 8))
			return false;
	memcpy(d->payload + at, ip + header, n);
	d->units += count;
	if (last)
		d->end = at + n;
	if (!at) {
		d->header = ETH + header;
		memcpy(d->head, frame, d->header);
	}
	return true;
}

static const u8 *assemble(struct reassembler *r, const struct datagram *d, u32 *len)
{
	u8 *ip = r->frame + ETH;
	u32 total = d->header - ETH + d->end;
	u16 sum = 0;

	if (total > PACKET_MAX)
		return NULL;
	memcpy(r->frame, d->head, d->header);
	memcpy(r->frame + d->header, d->payload, d->end);
	put16(ip + 2, total);
	put16(ip + FLAGS, 0);
	put16(ip + CHECK, 0);
	sum = (u16)~offload_fold(offload_sum(ip, d->header - ETH, 0));
	memcpy(ip + CHECK, &sum, 2);
	*len = ETH + total;
	return r->frame;
}

const u8 *reassemble(struct reassembler *r, const u8 *frame, u64 now_ms, u32 *len)
{
	struct datagram *d = find(r, frame + ETH, now_ms);
	const u8 *whole = NULL;

	if (!add(d, frame)) {
		d->used = false;
		return NULL;
	}
	if (!d->header || !d->end || d->units != (d->end + 7) / 8)
		return NULL;
	whole = assemble(r, d, len);
	d->used = false;
	return whole;
}
