/* Checksums and segmentation against a plain reading of RFC 791, 793, 1071 and 8200. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "backends/net.h"
#include "backends/net_offload.h"

static u64 state = 88172645463325252ull;

static u64 below(u64 n)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state % n;
}

static u32 be(const u8 *p, unsigned n)
{
	u32 v = 0;

	while (n--)
		v = v << 8 | *p++;
	return v;
}

/* One's complement sum, a byte pair at a time. */
static u32 naive(const u8 *p, u32 n, u32 sum)
{
	for (u32 i = 0; i < n; i++) {
		sum += i & 1 ? p[i] : (u32)p[i] << 8;
		sum = (sum & 0xffff) + (sum >> 16);
	}
	return sum;
}

static void check_tcp(const u8 *frame, u32 len, u32 l3, u32 l4, bool v6)
{
	u32 n = len - l4, sum = 0;

	if (v6) {
		assert_int_equal(be(frame + l3 + 4, 2), len - l3 - 40);
		sum = naive(frame + l3 + 8, 32, sum);
	} else {
		assert_int_equal(be(frame + l3 + 2, 2), len - l3);
		assert_int_equal(naive(frame + l3, l4 - l3, 0), 0xffff);
		sum = naive(frame + l3 + 12, 8, sum);
	}
	sum = naive((u8[]){0, 6, (u8)(n >> 8), (u8)n}, 4, sum);
	assert_int_equal(naive(frame + l4, n, sum), 0xffff);
}

struct tcp {
	u8 frame[NET_FRAME_MAX];
	u32 l3, l4, headers, len;
	bool v6;
};

static void build(struct tcp *t, bool v6, bool vlan, u32 options, u32 payload)
{
	u8 *f = t->frame;

	for (u32 i = 0; i < sizeof(t->frame); i++)
		f[i] = (u8)below(256);
	t->v6 = v6;
	t->l3 = vlan ? 18 : 14;
	t->l4 = t->l3 + (v6 ? 40 : 20 + options);
	t->headers = t->l4 + 20 + options;
	t->len = t->headers + payload;
	memcpy(f + 12, vlan ? (u8[]){0x81, 0x00} : v6 ? (u8[]){0x86, 0xdd} : (u8[]){8, 0}, 2);
	if (vlan)
		memcpy(f + 16, v6 ? (u8[]){0x86, 0xdd} : (u8[]){8, 0}, 2);
	f[t->l3] = v6 ? 0x60 : (u8)(0x40 | (20 + options) / 4);
	f[t->l3 + (v6 ? 6 : 9)] = 6;
	f[t->l4 + 12] = (u8)((20 + options) / 4 << 4);
}

static struct virtio_net_hdr_v1 header(const struct tcp *t, u32 mss)
{
	return (struct virtio_net_hdr_v1){.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM, .csum_start = (u16)t->l4, .csum_offset = 16,
					  .gso_type = t->v6 ? VIRTIO_NET_HDR_GSO_TCPV6 : VIRTIO_NET_HDR_GSO_TCPV4,
					  .gso_size = (u16)mss, .hdr_len = (u16)t->headers};
}

/* ---- segments ---- */
struct sink {
	const struct tcp *t;
	const u8 *original;
	u32 mss, n, at;
};

static void segment(void *arg, const u8 *f, u32 len)
{
	struct sink *s = arg;
	const struct tcp *t = s->t;
	u32 payload = len - t->headers, all = t->len - t->headers;
	bool last = s->at + payload == all;
	u8 flags = s->original[t->l4 + 13];

	assert_true(payload <= s->mss && (last || payload == s->mss));
	check_tcp(f, len, t->l3, t->l4, t->v6);
	assert_memory_equal(f, s->original, t->l3);
	assert_memory_equal(f + t->headers, s->original + t->headers + s->at, payload);
	assert_int_equal(be(f + t->l4 + 4, 4), be(s->original + t->l4 + 4, 4) + s->at);
	if (!t->v6)
		assert_int_equal(be(f + t->l3 + 4, 2), (be(s->original + t->l3 + 4, 2) + s->n) & 0xffff);
	if (!last)
		flags &= ~9;
	if (s->n)
		flags &= ~0x80;
	assert_int_equal(f[t->l4 + 13], flags);
	s->at += payload;
	s->n++;
}

static void segments(void **state)
{
	struct tcp *t = calloc(1, sizeof(*t));
	u8 *original = malloc(NET_FRAME_MAX);

	for (u32 i = 0; i < 2000; i++) {
		u32 options = 4 * (u32)below(11), payload = (u32)below(i % 10 ? 5000 : 65000), mss = 1 + (u32)below(3000);
		struct virtio_net_hdr_v1 h;
		struct sink s;

		build(t, below(2), below(2), options, payload);
		memcpy(original, t->frame, t->len);
		h = header(t, mss);
		s = (struct sink){.t = t, .original = original, .mss = mss};
		assert_int_equal(offload_segment(&h, t->frame, t->len, segment, &s), 0);
		assert_int_equal(s.at, payload);
		assert_int_equal(s.n, payload ? (payload + mss - 1) / mss : 1);
	}
	free(original);
	free(t);
}

static void finishes_large(void **state)
{
	struct tcp *t = calloc(1, sizeof(*t));

	for (u32 i = 0; i < 200; i++) {
		struct virtio_net_hdr_v1 h;

		build(t, below(2), below(2), 4 * (u32)below(11), (u32)below(65000));
		h = header(t, 1460);
		assert_int_equal(offload_finish(&h, t->frame, t->len), 0);
		check_tcp(t->frame, t->len, t->l3, t->l4, t->v6);
	}
	free(t);
}

static void finishes_plain(void **state)
{
	u8 frame[2000];

	for (u32 i = 0; i < 5000; i++) {
		u32 len = 60 + (u32)below(1900), start = (u32)below(len - 2), offset = (u32)below(len - start - 1);
		struct virtio_net_hdr_v1 h = {.flags = 1, .csum_start = (u16)start, .csum_offset = (u16)offset};
		u32 before;

		for (u32 b = 0; b < len; b++)
			frame[b] = (u8)below(256);
		before = ~naive(frame + start, len - start, 0) & 0xffff;
		assert_int_equal(offload_finish(&h, frame, len), 0);
		if (!(offset & 1)) /* an odd one means nothing, and does no harm */
			assert_int_equal(be(frame + start + offset, 2), before ? before : 0xffff);
	}
}

/* A UDP checksum that comes out as 0 is sent as 0xffff. */
static void zero_is_ones(void **state)
{
	u8 frame[64] = {0};
	struct virtio_net_hdr_v1 h = {.flags = 1, .csum_start = 34, .csum_offset = 6};

	memset(frame + 50, 0xff, 2);
	assert_int_equal(offload_finish(&h, frame, 60), 0);
	assert_int_equal(be(frame + 40, 2), 0xffff);
}

static void nothing(void *arg, const u8 *f, u32 len)
{
	u8 sum = 0;

	for (u32 i = 0; i < len; i++)
		sum ^= f[i]; /* all of it can be read */
	*(u8 *)arg ^= sum;
}

/* Any header with any frame: an answer, and no access outside (under the sanitizers; the frame ends at a malloc's end). */
static void nonsense(void **state)
{
	u8 sum = 0;

	for (u32 i = 0; i < 100000; i++) {
		u32 len = NET_FRAME_MIN + (u32)below(300);
		struct tcp *t = NULL;
		u8 *frame = malloc(len);
		struct virtio_net_hdr_v1 h = {.flags = (u8)below(4), .gso_type = (u8)(below(2) ? below(6) : below(256)),
					      .csum_start = (u16)(below(4) ? below(80) : below(65536)),
					      .csum_offset = (u16)(below(4) ? 16 : below(65536)),
					      .gso_size = (u16)(below(4) ? below(200) : below(65536))};

		if (below(2)) { /* nearly right */
			t = calloc(1, sizeof(*t));
			build(t, below(2), below(2), 4 * (u32)below(11), 100);
			h = below(4) ? header(t, 1 + (u32)below(100)) : h;
			memcpy(frame, t->frame, len);
			frame[below(len)] = (u8)below(256);
			free(t);
		} else {
			for (u32 b = 0; b < len; b++)
				frame[b] = (u8)below(256);
		}
		if (below(2) ? offload_finish(&h, frame, len) : offload_segment(&h, frame, len, nothing, &sum))
			sum ^= 1;
		free(frame);
		i += i % 2 ? 0 : 40; /* build() is slow */
	}
}

static void refuses(void **state)
{
	struct tcp *t = calloc(1, sizeof(*t));
	struct virtio_net_hdr_v1 h;
	u8 sum = 0;

	build(t, false, false, 0, 1000);
#define REFUSED(change)                                                                                                \
	do {                                                                                                           \
		h = header(t, 500);                                                                                    \
		change;                                                                                                \
		assert_int_equal(offload_segment(&h, t->frame, t->len, nothing, &sum), -EINVAL);                       \
		assert_int_equal(offload_finish(&h, t->frame, t->len), -EINVAL);                                       \
	} while (0)
	REFUSED(h.gso_size = 0);
	REFUSED(h.flags = 0);
	REFUSED(h.csum_offset = 6);
	REFUSED(h.csum_start = 33);
	REFUSED(h.csum_start = 1040);
	REFUSED(h.csum_start = 0xffff);
	REFUSED(h.gso_type = VIRTIO_NET_HDR_GSO_TCPV6);
	REFUSED(h.gso_type = VIRTIO_NET_HDR_GSO_UDP);
	t->frame[46] = 0x40; /* a TCP header of 16 bytes */
	REFUSED(;);
	t->frame[46] = 0xf0;
	t->len = 34 + 59; /* of 60, cut */
	REFUSED(;);
	free(t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(segments),	   cmocka_unit_test(finishes_large),
					   cmocka_unit_test(finishes_plain), cmocka_unit_test(zero_is_ones),
					   cmocka_unit_test(nonsense),	   cmocka_unit_test(refuses)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
