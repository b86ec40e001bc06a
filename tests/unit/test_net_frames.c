/* What doppel-net makes of a guest's frames before libslirp sees them: the filter, and IPv4 fragments. */
#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "backends/net_offload.h"
#include "net/closing.h"
#include "net/filter.h"
#include "net/reassemble.h"

static u64 state = 88172645463325252ull;

static u64 below(u64 n)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state % n;
}

static u8 frame[66000];

static void put16(u8 *p, u32 v)
{
	p[0] = (u8)(v >> 8);
	p[1] = (u8)v;
}

static u32 ip4(const char *dst, u32 payload)
{
	memset(frame, 0, 34);
	memcpy(frame + 12, (u8[]){8, 0, 0x45}, 3);
	put16(frame + 16, 20 + payload);
	frame[23] = 17;
	inet_pton(AF_INET, dst, frame + 30);
	return 34 + payload;
}

static u32 ip6(const char *dst, u32 payload)
{
	memset(frame, 0, 54);
	memcpy(frame + 12, (u8[]){0x86, 0xdd, 0x60}, 3);
	put16(frame + 18, payload);
	inet_pton(AF_INET6, dst, frame + 38);
	return 54 + payload;
}

/* ---- the filter ---- */
static void addresses(void **st)
{
	static const char *const good4[] = {"10.0.2.2", "1.1.1.1", "255.255.255.255", "224.0.0.1", "128.0.0.1", "1.0.0.127"};
	static const char *const bad4[] = {"127.0.0.1", "127.255.255.255", "0.0.0.0", "0.1.2.3"};
	static const char *const good6[] = {"fec0::2", "fe80::1", "ff02::1", "2001:db8::", "::1:0:0:0:0:1", "1::"};
	static const char *const bad6[] = {"::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:0:0"};

	for (unsigned i = 0; i < ARRAY_SIZE(good4); i++)
		assert_true(filter_allows(frame, ip4(good4[i], 100)));
	for (unsigned i = 0; i < ARRAY_SIZE(bad4); i++)
		assert_false(filter_allows(frame, ip4(bad4[i], 100)));
	for (unsigned i = 0; i < ARRAY_SIZE(good6); i++)
		assert_true(filter_allows(frame, ip6(good6[i], 100)));
	for (unsigned i = 0; i < ARRAY_SIZE(bad6); i++)
		assert_false(filter_allows(frame, ip6(bad6[i], 100)));
}

static void malformed(void **st)
{
	u32 len = ip4("10.0.2.2", 100);

	for (u32 n = 0; n < len; n++)
		assert_false(filter_allows(frame, n));
	assert_true(filter_allows(frame, len + 10)); /* padding */
	frame[14] = 0x44; /* header of 16 bytes */
	assert_false(filter_allows(frame, len));
	frame[14] = 0x65;
	assert_false(filter_allows(frame, len));
	ip4("10.0.2.2", 100);
	put16(frame + 16, 19);
	assert_false(filter_allows(frame, len));
	len = ip6("fec0::2", 100);
	for (u32 n = 0; n < len; n++)
		assert_false(filter_allows(frame, n));
	frame[14] = 0x40;
	assert_false(filter_allows(frame, len));
	memset(frame, 0, 60);
	memcpy(frame + 12, (u8[]){8, 6}, 2);
	assert_true(filter_allows(frame, 42));
	memcpy(frame + 12, (u8[]){0x81, 0}, 2);
	assert_false(filter_allows(frame, 60));
}

/* ---- fragments ---- */
static u8 byte_at(u32 id, u32 i)
{
	return (u8)((id * 7 + i) * 2654435761u >> 9);
}

static u32 fragment(u32 id, u32 at, u32 n, bool more)
{
	u32 len = ip4("10.0.2.2", n);

	put16(frame + 18, id);
	put16(frame + 20, at / 8 | (more ? 0x2000 : 0));
	for (u32 i = 0; i < n; i++)
		frame[34 + i] = byte_at(id, at + i);
	return len;
}

static const u8 *give(struct reassembler *r, u32 id, u32 at, u32 n, bool more, u64 now, u32 *len)
{
	fragment(id, at, n, more);
	assert_true(reassemble_needed(frame));
	return reassemble(r, frame, now, len);
}

static void check_whole(const u8 *f, u32 len, u32 id, u32 payload)
{
	assert_non_null(f);
	assert_int_equal(len, 34 + payload);
	assert_int_equal(f[16] << 8 | f[17], 20 + payload);
	assert_int_equal(f[20] << 8 | f[21], 0);
	assert_int_equal(offload_fold(offload_sum(f + 14, 20, 0)), 0xffff);
	for (u32 i = 0; i < payload; i++)
		assert_int_equal(f[34 + i], byte_at(id, i));
}

/* Any order, several datagrams at once. */
static void reassembles(void **st)
{
	struct reassembler *r = reassembler_new();

	for (u32 round = 0; round < 300; round++) {
		struct {
			u32 at, n, id;
			bool more;
		} f[400];
		u32 total[3], count = 0, whole = 0;

		for (u32 id = 0; id < 3; id++) {
			u32 step = 8 * (1 + (u32)below(300));

			total[id] = step + 1 + (u32)below(MIN(65515 - step - 1, step * 100));
			for (u32 at = 0; at < total[id]; at += step, count++) {
				f[count].at = at;
				f[count].id = id;
				f[count].n = MIN(step, total[id] - at);
				f[count].more = at + step < total[id];
			}
		}
		for (u32 i = count - 1; i; i--) { /* shuffle */
			u32 k = (u32)below(i + 1);
			__typeof__(f[0]) t = f[i];

			f[i] = f[k];
			f[k] = t;
		}
		for (u32 i = 0; i < count; i++) {
			u32 len = 0;
			const u8 *g = give(r, round * 3 + f[i].id, f[i].at, f[i].n, f[i].more, 0, &len);

			if (g) {
				check_whole(g, len, round * 3 + f[i].id, total[f[i].id]);
				whole++;
			}
		}
		assert_int_equal(whole, 3);
	}
	reassembler_free(r);
}

/* What does not fit loses its datagram; the pieces that follow begin another, which is never whole. */
static void refuses(void **st)
{
	static const struct {
		u32 at, n;
		bool more;
	} cases[][3] = {
		{{0, 80, true}, {72, 80, true}, {152, 8, false}},     /* overlap */
		{{0, 80, true}, {0, 80, true}, {80, 8, false}},	      /* twice */
		{{0, 80, true}, {160, 8, false}, {240, 8, false}},    /* two ends */
		{{0, 80, true}, {160, 8, true}, {80, 8, false}},      /* behind the end */
		{{0, 81, true}, {88, 8, false}, {80, 8, true}},	      /* not of whole units */
		{{0, 8, true}, {65512, 100, false}, {8, 1000, true}}, /* larger than a packet */
		{{0, 8, true}, {65512, 0, false}, {8, 65504, true}},
		{{80, 8, false}, {8, 72, true}, {88, 8, true}},	      /* no beginning */
	};
	struct reassembler *r = reassembler_new();
	u32 len = 0;

	for (u32 i = 0; i < ARRAY_SIZE(cases); i++)
		for (u32 k = 0; k < 3; k++)
			assert_null(give(r, i, cases[i][k].at, cases[i][k].n, cases[i][k].more, 0, &len));
	assert_null(give(r, 99, 0, 1000, true, 0, &len));
	const u8 *f = give(r, 99, 1000, 5, false, 1000, &len);
	check_whole(f, len, 99, 1005);
	reassembler_free(r);
}

static void forgets(void **st)
{
	struct reassembler *r = reassembler_new();
	u32 len = 0;

	assert_null(give(r, 1, 0, 800, true, 0, &len));
	assert_null(give(r, 1, 800, 8, false, 40000, &len)); /* too late */
	for (u32 id = 100; id < 1100; id++)		     /* a flood of beginnings */
		assert_null(give(r, id, 0, 800, true, 50000 + id, &len));
	const u8 *f = give(r, 1099, 800, 8, false, 52000, &len);
	check_whole(f, len, 1099, 808);
	assert_null(give(r, 100, 800, 8, false, 52000, &len)); /* pushed out */
	reassembler_free(r);
}

static void nonsense(void **st)
{
	struct reassembler *r = reassembler_new();
	u32 wholes = 0;

	for (u32 i = 0; i < 300000; i++) {
		u32 n = (u32)below(400), len = fragment((u32)below(4), 8 * (u32)below(below(10) ? 20 : 8192), n, below(2)), out = 0;
		u8 *copy;

		if (!below(5))
			frame[14 + below(20)] = (u8)below(256);
		if (!filter_allows(frame, len) || !reassemble_needed(frame))
			continue;
		copy = malloc(len); /* so that a sanitizer sees reads behind it */
		memcpy(copy, frame, len);
		wholes += reassemble(r, copy, i, &out) != NULL;
		assert_true(out <= 14 + 65535);
		free(copy);
	}
	assert_true(wholes > 0);
	reassembler_free(r);
}

/* ---- connections that have ended ---- */
enum { FIN = 1, SYN = 2, RST = 4, ACK = 16, DATA = 32 /* 100 bytes of it */ };

/* A segment between the guest's port 1000 and the network's 80, of either version. */
static u32 segment(bool v6, bool from_guest, u32 seq, u32 ack, u8 flags)
{
	u32 data = flags & DATA ? 100 : 0, len = v6 ? ip6("fec0::2", 20 + data) : ip4("10.0.2.2", 20 + data), l4 = v6 ? 54 : 34;
	u32 size = v6 ? 16 : 4, src = l4 - 2 * size;
	u8 guest[16] = {10, 0, 2, 15, 9, 9};

	memset(frame, from_guest ? 0xaa : 0xbb, 12);
	frame[v6 ? 20 : 23] = 6;
	memcpy(frame + src, guest, size);
	if (!from_guest) {
		memcpy(frame + src, frame + src + size, size);
		memcpy(frame + src + size, guest, size);
	}
	memset(frame + l4, 0, 20);
	put16(frame + l4, from_guest ? 1000 : 80);
	put16(frame + l4 + 2, from_guest ? 80 : 1000);
	put16(frame + l4 + 4, seq >> 16);
	put16(frame + l4 + 6, seq);
	put16(frame + l4 + 8, ack >> 16);
	put16(frame + l4 + 10, ack);
	frame[l4 + 12] = 0x50;
	frame[l4 + 13] = flags & 31;
	return len;
}

struct step {
	char from; /* 'g'uest, 'n'et; 0: end */
	u32 seq, ack;
	u8 flags;
};

/* After which step a RST is due, counted from 1; 0: never. */
static unsigned due_after(bool v6, const struct step *s, u8 *rst, u32 *len)
{
	struct closing *c = closing_new();
	unsigned due = 0;

	for (unsigned i = 0; s[i].from; i++) {
		u32 n = segment(v6, s[i].from == 'g', s[i].seq, s[i].ack, s[i].flags);

		if (s[i].from == 'g')
			closing_from_guest(c, frame, n);
		else
			closing_from_net(c, frame, n);
		n = closing_rst(c, rst);
		if (n && !due) {
			due = i + 1;
			*len = n;
		} else {
			assert_int_equal(n, 0);
		}
	}
	closing_free(c);
	return due;
}

static void connections_end(void **st)
{
	static const struct {
		struct step s[8];
		unsigned due;
	} cases[] = {
		{{{'n', 500, 100, FIN | ACK}, {'g', 100, 501, FIN | ACK}, {'n', 501, 101, ACK}}, 3},
		{{{'n', 500, 100, FIN | ACK | DATA}, {'g', 100, 601, ACK}, {'g', 100, 601, FIN | ACK | DATA}, {'n', 601, 201, ACK}}, 4},
		/* both at once */
		{{{'n', 500, 100, FIN | ACK}, {'g', 100, 500, FIN | ACK}, {'n', 501, 101, ACK}, {'g', 101, 501, ACK}}, 4},
		/* sequence numbers wrap */
		{{{'n', 0xffffffff, 0xffffffff, FIN | ACK}, {'g', 0xffffffff, 0, FIN | ACK}, {'n', 0, 0, ACK}}, 3},
		/* the guest was first: LAST_ACK ends by itself */
		{{{'g', 100, 500, FIN | ACK}, {'n', 500, 101, ACK}, {'n', 500, 101, FIN | ACK}, {'g', 101, 501, ACK}}, 0},
		/* the guest goes on sending; the network has not all of it */
		{{{'n', 500, 100, FIN | ACK}, {'g', 100, 501, ACK | DATA}, {'n', 501, 200, ACK}, {'g', 300, 501, FIN | ACK}, {'n', 501, 200, ACK}}, 0},
		/* the FIN itself is not acknowledged */
		{{{'n', 500, 100, FIN | ACK}, {'g', 100, 500, FIN | ACK}, {'n', 501, 101, ACK}}, 0},
		/* a RST, or the same addresses again */
		{{{'n', 500, 100, FIN | ACK}, {'g', 100, 501, RST}, {'g', 100, 501, FIN | ACK}, {'n', 501, 101, ACK}}, 0},
		{{{'n', 500, 100, FIN | ACK}, {'g', 900, 0, SYN}, {'n', 70, 901, SYN | ACK}, {'g', 901, 71, FIN | ACK}, {'n', 71, 902, ACK}}, 0},
	};

	for (unsigned i = 0; i < ARRAY_SIZE(cases) * 2; i++) {
		bool v6 = i & 1;
		u32 len = 0, l4 = v6 ? 54 : 34;
		u8 rst[CLOSING_FRAME];

		assert_int_equal(due_after(v6, cases[i / 2].s, rst, &len), cases[i / 2].due);
		if (!cases[i / 2].due)
			continue;
		assert_int_equal(len, l4 + 20);
		assert_true(filter_allows(rst, len));
		assert_int_equal(rst[l4 + 13], RST | ACK);
		assert_int_equal(rst[0], 0xaa);
		assert_int_equal(rst[l4] << 8 | rst[l4 + 1], 1000);
		assert_int_equal(offload_fold(offload_sum(rst + l4, 20, offload_sum(rst + (v6 ? 22 : 26), v6 ? 32 : 8,
										   htons(6) + (u64)htons(20)))), 0xffff);
		if (!v6)
			assert_int_equal(offload_fold(offload_sum(rst + 14, 20, 0)), 0xffff);
	}
}

static void closing_nonsense(void **st)
{
	struct closing *c = closing_new();
	u8 rst[CLOSING_FRAME];

	for (u32 i = 0; i < 200000; i++) {
		u32 len = segment(below(2), below(2), (u32)below(3), (u32)below(3), (u8)below(64)), cut = 14 + (u32)below(len - 13);
		u8 *copy = NULL;

		frame[14 + below(60)] = (u8)below(256);
		copy = malloc(cut); /* so that a sanitizer sees reads behind it */
		memcpy(copy, frame, cut);
		if (below(2))
			closing_from_guest(c, copy, cut);
		else
			closing_from_net(c, copy, cut);
		free(copy);
		assert_true(closing_rst(c, rst) <= CLOSING_FRAME);
	}
	closing_free(c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(addresses), cmocka_unit_test(malformed), cmocka_unit_test(reassembles),
					   cmocka_unit_test(refuses),	cmocka_unit_test(forgets),   cmocka_unit_test(nonsense),
					   cmocka_unit_test(connections_end), cmocka_unit_test(closing_nonsense)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
