/* virtio-vsock against a driver that keeps the rules, and one that breaks them. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "vsock_driver.h"

static int setup(void **state)
{
	*state = calloc(1, sizeof(struct vsock_test));
	vt_new(*state);
	return 0;
}

static int teardown(void **state)
{
	vt_free(*state);
	free(*state);
	return 0;
}

static ssize_t get(struct vsock_test *t, int fd, char *buf, size_t n)
{
	fake_run(t->m);
	ssize_t r = recv(fd, buf, n - 1, MSG_DONTWAIT);
	buf[r > 0 ? r : 0] = 0;
	return r < 0 ? -errno : r;
}

static void say(struct vsock_test *t, int fd, const char *text)
{
	assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
	fake_run(t->m);
}

/* A client of guest port 52, accepted with that much credit; *port: the host's. */
static int connected(struct vsock_test *t, u32 credit, u32 *port)
{
	struct packet p;
	char buf[64], want[64];
	int fd = unix_connect(t->path);
	say(t, fd, "CONNECT 52\n");
	assert_true(vt_take(t, &p));
	assert_int_equal(p.h.op, VIRTIO_VSOCK_OP_REQUEST);
	assert_int_equal(p.h.dst_port, 52);
	assert_int_equal(p.h.src_cid, 2);
	assert_int_equal(p.h.dst_cid, CID);
	*port = p.h.src_port;
	struct virtio_vsock_hdr h = vt_header(VIRTIO_VSOCK_OP_RESPONSE, *port, 52);
	h.buf_alloc = credit;
	vt_send(t, h, NULL, 0);
	snprintf(want, sizeof(want), "OK %u\n", *port);
	assert_true(get(t, fd, buf, sizeof(buf)) > 0);
	assert_string_equal(buf, want);
	return fd;
}

static void expect(struct vsock_test *t, u16 op)
{
	struct packet p;
	assert_true(vt_take(t, &p));
	assert_int_equal(p.h.op, op);
}

static void nothing(struct vsock_test *t)
{
	struct packet p;
	assert_false(vt_take(t, &p));
}

static void both_ways(void **state)
{
	struct vsock_test *t = *state;
	struct packet p;
	char buf[64];
	u32 port;
	vt_start(t);
	vt_post(t, 16);
	assert_int_equal(drv_config(&t->d, 0, 8), CID);
	int fd = connected(t, 65536, &port);
	vt_send(t, vt_header(VIRTIO_VSOCK_OP_RW, port, 52), "hello", 5);
	assert_int_equal(get(t, fd, buf, sizeof(buf)), 5);
	assert_string_equal(buf, "hello");
	say(t, fd, "world");
	assert_true(vt_take(t, &p));
	assert_int_equal(p.h.op, VIRTIO_VSOCK_OP_RW);
	assert_int_equal(p.h.len, 5);
	assert_memory_equal(p.data, "world", 5);
	assert_int_equal(p.h.fwd_cnt, 5);
	assert_true(p.h.buf_alloc > 0);
	nothing(t);
	close(fd);
}

/* A client that is earlier than the driver, whose first act is a reset. */
static void early_client(void **state)
{
	struct vsock_test *t = *state;
	struct packet p;
	int fd = unix_connect(t->path);
	say(t, fd, "CONNECT 52\nmore");
	vt_start(t);
	vt_post(t, 16);
	assert_true(vt_take(t, &p));
	assert_int_equal(p.h.op, VIRTIO_VSOCK_OP_REQUEST);
	vt_send(t, vt_header(VIRTIO_VSOCK_OP_RESPONSE, p.h.src_port, 52), NULL, 0);
	assert_true(vt_take(t, &p));
	assert_int_equal(p.h.op, VIRTIO_VSOCK_OP_RW);
	assert_memory_equal(p.data, "more", 4);
	close(fd);
}

static void guests_credit(void **state)
{
	struct vsock_test *t = *state;
	struct packet p;
	char text[101];
	u32 port;
	vt_start(t);
	vt_post(t, 16);
	int fd = connected(t, 10, &port);
	memset(text, 'x', 100);
	text[100] = 0;
	say(t, fd, text);
	assert_true(vt_take(t, &p));
	assert_int_equal(p.h.len, 10);
	expect(t, VIRTIO_VSOCK_OP_CREDIT_REQUEST);
	nothing(t);
	struct virtio_vsock_hdr h = vt_header(VIRTIO_VSOCK_OP_CREDIT_UPDATE, port, 52);
	h.buf_alloc = 100;
	h.fwd_cnt = 10;
	vt_send(t, h, NULL, 0);
	assert_true(vt_take(t, &p));
	assert_int_equal(p.h.len, 90);
	/* a guest that says it took more than it was sent gets nothing */
	say(t, fd, text);
	assert_true(vt_take(t, &p) && p.h.len == 10); /* 90 fly */
	h.fwd_cnt = 5000;
	vt_send(t, h, NULL, 0);
	struct packet q;
	while (vt_take(t, &q))
		assert_int_not_equal(q.h.op, VIRTIO_VSOCK_OP_RW);
	close(fd);
}

static void our_credit(void **state)
{
	struct vsock_test *t = *state;
	static u8 block[4096];
	static char buf[1 << 20];
	struct packet p;
	u32 port, sent = 0;
	bool reset = false;
	vt_start(t);
	vt_post(t, 16);
	int fd = connected(t, 65536, &port);
	/* within what was granted: all of it arrives */
	for (unsigned i = 0; i < 16; i++)
		vt_send(t, vt_header(VIRTIO_VSOCK_OP_RW, port, 52), block, sizeof(block));
	assert_int_equal(get(t, fd, buf, sizeof(buf)), 16 * sizeof(block));
	while (vt_take(t, &p))
		assert_int_equal(p.h.op, VIRTIO_VSOCK_OP_CREDIT_UPDATE);
	/* beyond what the socket and the buffer hold: it ends */
	for (unsigned i = 0; i < 1000 && !reset; i++) {
		vt_send(t, vt_header(VIRTIO_VSOCK_OP_RW, port, 52), block, sizeof(block));
		sent += sizeof(block);
		while (vt_take(t, &p)) {
			reset |= p.h.op == VIRTIO_VSOCK_OP_RST;
			vt_post(t, 1);
		}
	}
	assert_true(reset);
	assert_in_range(sent, 128 << 10, 1 << 20);
	while (get(t, fd, buf, sizeof(buf)) > 0)
		;
	assert_int_equal(get(t, fd, buf, sizeof(buf)), 0);
	close(fd);
}

static void slow_client(void **state)
{
	struct vsock_test *t = *state;
	static u8 block[4096];
	static char buf[1 << 20];
	u32 port, sent = 0, got = 0;
	ssize_t n;
	vt_start(t);
	vt_post(t, 16);
	int fd = connected(t, 65536, &port), small = 4096;
	assert_return_code(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small)), 0);
	for (unsigned i = 0; i < 30; i++) {
		memset(block, (int)i, sizeof(block));
		vt_send(t, vt_header(VIRTIO_VSOCK_OP_RW, port, 52), block, sizeof(block));
		sent += sizeof(block);
	}
	while (got < sent && (n = get(t, fd, buf, 1000)) > 0)
		for (ssize_t i = 0; i < n; i++, got++)
			assert_int_equal((u8)buf[i], got / sizeof(block));
	assert_int_equal(got, sent);
	close(fd);
}

static void endings(void **state)
{
	struct vsock_test *t = *state;
	struct packet p;
	char buf[64];
	u32 port;
	vt_start(t);
	vt_post(t, 30);
	/* the client ends its side, then all */
	int fd = connected(t, 65536, &port);
	say(t, fd, "last");
	shutdown(fd, SHUT_WR);
	assert_true(vt_take(t, &p) && p.h.op == VIRTIO_VSOCK_OP_RW);
	assert_true(vt_take(t, &p) && p.h.op == VIRTIO_VSOCK_OP_SHUTDOWN);
	assert_int_equal(p.h.flags, VIRTIO_VSOCK_SHUTDOWN_SEND);
	vt_send(t, vt_header(VIRTIO_VSOCK_OP_RW, port, 52), "answer", 6);
	assert_int_equal(get(t, fd, buf, sizeof(buf)), 6);
	close(fd);
	assert_true(vt_take(t, &p) && p.h.op == VIRTIO_VSOCK_OP_SHUTDOWN);
	assert_int_equal(p.h.flags, VIRTIO_VSOCK_SHUTDOWN_SEND | VIRTIO_VSOCK_SHUTDOWN_RCV);
	vt_send(t, vt_header(VIRTIO_VSOCK_OP_RST, port, 52), NULL, 0);
	nothing(t);
	/* what was written before a close arrives */
	fd = connected(t, 65536, &port);
	assert_int_equal(send(fd, "words", 5, 0), 5);
	close(fd);
	assert_true(vt_take(t, &p) && p.h.op == VIRTIO_VSOCK_OP_RW && p.h.len == 5);
	assert_true(vt_take(t, &p) && p.h.op == VIRTIO_VSOCK_OP_SHUTDOWN);
	/* the guest ends its side, then all */
	fd = connected(t, 65536, &port);
	struct virtio_vsock_hdr h = vt_header(VIRTIO_VSOCK_OP_SHUTDOWN, port, 52);
	h.flags = VIRTIO_VSOCK_SHUTDOWN_SEND;
	vt_send(t, h, NULL, 0);
	assert_int_equal(get(t, fd, buf, sizeof(buf)), 0);
	say(t, fd, "still");
	expect(t, VIRTIO_VSOCK_OP_RW);
	h.flags = VIRTIO_VSOCK_SHUTDOWN_RCV;
	vt_send(t, h, NULL, 0);
	expect(t, VIRTIO_VSOCK_OP_RST);
	assert_int_equal(send(fd, "x", 1, MSG_NOSIGNAL), -1);
	close(fd);
	/* the guest refuses */
	fd = unix_connect(t->path);
	say(t, fd, "CONNECT 53\n");
	assert_true(vt_take(t, &p) && p.h.op == VIRTIO_VSOCK_OP_REQUEST);
	vt_send(t, vt_header(VIRTIO_VSOCK_OP_RST, p.h.src_port, 53), NULL, 0);
	assert_int_equal(get(t, fd, buf, sizeof(buf)), 0);
	close(fd);
	nothing(t);
}

static bool arrived(void *arg)
{
	struct vsock_test *t = arg;
	u16 idx;
	memcpy(&idx, (u8 *)drv_ptr(&t->d, t->d.q[0].used) + 2, 2);
	return idx != t->d.q[0].used_seen;
}

static void from_guest(void **state)
{
	struct vsock_test *t = *state;
	char path[128], buf[16];
	snprintf(path, sizeof(path), "%s_77", t->path);
	int listener = unix_listen(path);
	vt_start(t);
	vt_post(t, 16);
	vt_send(t, vt_header(VIRTIO_VSOCK_OP_REQUEST, 77, 1000), NULL, 0);
	assert_true(fake_run_until(t->m, arrived, t));
	expect(t, VIRTIO_VSOCK_OP_RESPONSE);
	int fd = accept(listener, NULL, NULL);
	assert_true(fd >= 0);
	vt_send(t, vt_header(VIRTIO_VSOCK_OP_RW, 77, 1000), "guest", 5);
	assert_int_equal(get(t, fd, buf, sizeof(buf)), 5);
	/* the same once more is nonsense */
	vt_send(t, vt_header(VIRTIO_VSOCK_OP_REQUEST, 77, 1000), NULL, 0);
	expect(t, VIRTIO_VSOCK_OP_RST);
	assert_int_equal(get(t, fd, buf, sizeof(buf)), 0);
	close(fd);
	/* nobody listens */
	vt_send(t, vt_header(VIRTIO_VSOCK_OP_REQUEST, 78, 1000), NULL, 0);
	assert_true(fake_run_until(t->m, arrived, t));
	expect(t, VIRTIO_VSOCK_OP_RST);
	/* it gives up while it is being connected */
	vt_send(t, vt_header(VIRTIO_VSOCK_OP_REQUEST, 77, 1001), NULL, 0);
	vt_send(t, vt_header(VIRTIO_VSOCK_OP_RST, 77, 1001), NULL, 0);
	usleep(50000);
	vt_send(t, vt_header(VIRTIO_VSOCK_OP_RW, 77, 1001), "x", 1);
	struct packet p;
	while (vt_take(t, &p))
		assert_in_set(p.h.op, ((LargestIntegralType[]){VIRTIO_VSOCK_OP_RST, VIRTIO_VSOCK_OP_RESPONSE}), 2);
	close(listener);
}

static void bad_lines(void **state)
{
	static const char *const lines[] = {"CONNECT\n", "CONNECT \n", "CONNECT x\n", "CONNECT 4294967295\n", "CONNECT 99999999999999\n",
					    "HELLO 5\n", "\n", "CONNECT 000000000000000000000000000000000000005\n", "CONNECT 5 6\n"};
	struct vsock_test *t = *state;
	char buf[16];
	vt_start(t);
	vt_post(t, 16);
	for (unsigned i = 0; i < ARRAY_SIZE(lines); i++) {
		int fd = unix_connect(t->path);
		say(t, fd, lines[i]);
		ssize_t r = get(t, fd, buf, sizeof(buf));
		assert_true(r == 0 || r == -ECONNRESET);
		close(fd);
	}
	/* in two parts it is as good as in one */
	int fd = unix_connect(t->path);
	say(t, fd, "CONN");
	say(t, fd, "ECT 5\n");
	expect(t, VIRTIO_VSOCK_OP_REQUEST);
	close(fd);
	nothing(t);
}

static void hostile_packets(void **state)
{
	struct vsock_test *t = *state;
	struct packet p;
	char buf[16];
	u32 port;
	vt_start(t);
	vt_post(t, 30);
	int fd = connected(t, 65536, &port);
	/* dropped: too short, longer than its chain, from another */
	struct virtio_vsock_hdr h = vt_header(VIRTIO_VSOCK_OP_RW, port, 52);
	vt_send_raw(t, &h, HDR - 1);
	h.len = 1000000;
	vt_send_raw(t, &h, HDR);
	h = vt_header(VIRTIO_VSOCK_OP_RW, port, 52);
	h.src_cid = 99;
	vt_send(t, h, "x", 1);
	nothing(t);
	/* refused: no such host, type, connection, operation */
	h = vt_header(VIRTIO_VSOCK_OP_RW, port, 52);
	h.dst_cid = 7;
	vt_send(t, h, "x", 1);
	assert_true(vt_take(t, &p) && p.h.op == VIRTIO_VSOCK_OP_RST && p.h.src_cid == 7);
	h = vt_header(VIRTIO_VSOCK_OP_REQUEST, port, 52);
	h.type = VIRTIO_VSOCK_TYPE_SEQPACKET;
	vt_send(t, h, NULL, 0);
	assert_true(vt_take(t, &p) && p.h.op == VIRTIO_VSOCK_OP_RST && p.h.type == VIRTIO_VSOCK_TYPE_SEQPACKET);
	vt_send(t, vt_header(VIRTIO_VSOCK_OP_RW, port + 1, 52), "x", 1);
	expect(t, VIRTIO_VSOCK_OP_RST);
	vt_send(t, vt_header(VIRTIO_VSOCK_OP_RST, port + 1, 52), NULL, 0);
	nothing(t);
	assert_int_equal(get(t, fd, buf, sizeof(buf)), -EAGAIN); /* none of it touched the connection */
	vt_send(t, vt_header(77, port, 52), NULL, 0);
	expect(t, VIRTIO_VSOCK_OP_RST);
	assert_int_equal(get(t, fd, buf, sizeof(buf)), 0);
	close(fd);
	/* answered twice */
	fd = connected(t, 65536, &port);
	vt_send(t, vt_header(VIRTIO_VSOCK_OP_RESPONSE, port, 52), NULL, 0);
	expect(t, VIRTIO_VSOCK_OP_RST);
	close(fd);
	/* data before the answer, and after its end */
	fd = unix_connect(t->path);
	say(t, fd, "CONNECT 52\n");
	assert_true(vt_take(t, &p));
	vt_send(t, vt_header(VIRTIO_VSOCK_OP_RW, p.h.src_port, 52), "x", 1);
	expect(t, VIRTIO_VSOCK_OP_RST);
	close(fd);
	fd = connected(t, 65536, &port);
	h = vt_header(VIRTIO_VSOCK_OP_SHUTDOWN, port, 52);
	h.flags = VIRTIO_VSOCK_SHUTDOWN_SEND;
	vt_send(t, h, NULL, 0);
	vt_send(t, vt_header(VIRTIO_VSOCK_OP_RW, port, 52), "x", 1);
	expect(t, VIRTIO_VSOCK_OP_RST);
	close(fd);
	assert_false(drv_status(&t->d) & VIRTIO_CONFIG_S_NEEDS_RESET);
}

/* Replies that find no buffer stop the transmit ring, and only that. */
static void no_buffers(void **state)
{
	struct vsock_test *t = *state;
	struct vring_used_elem e;
	struct packet p;
	unsigned used = 0, resets = 0;
	struct virtio_vsock_hdr h = vt_header(VIRTIO_VSOCK_OP_RW, 5, 6);
	vt_start(t);
	memcpy(drv_ptr(&t->d, t->tx), &h, HDR);
	for (unsigned round = 0; round < 3; round++) {
		for (unsigned i = 0; i < 60; i++) {
			const struct seg s = {t->tx, HDR, false};
			drv_add(&t->d, 1, &s, 1);
		}
		drv_kick(&t->d, 1);
		fake_run(t->m);
		while (drv_used(&t->d, 1, &e))
			used++;
		if (used < 60 * (round + 1))
			break;
	}
	assert_in_range(used, 32, 64); /* as many as replies are kept */
	for (unsigned i = 0; i < 200 && resets < 120; i++) {
		vt_post(t, 1);
		while (vt_take(t, &p))
			resets += p.h.op == VIRTIO_VSOCK_OP_RST;
	}
	while (drv_used(&t->d, 1, &e))
		used++;
	assert_int_equal(used, resets);
	assert_int_equal(used, 120);
}

static void small_buffer(void **state)
{
	struct vsock_test *t = *state;
	vt_start(t);
	const struct seg s = {drv_alloc(&t->d, 64), 20, true};
	drv_add(&t->d, 0, &s, 1);
	int fd = unix_connect(t->path);
	say(t, fd, "CONNECT 52\n");
	fake_run(t->m);
	assert_true(drv_status(&t->d) & VIRTIO_CONFIG_S_NEEDS_RESET);
	close(fd);
	/* a reset brings it back */
	drv_set_status(&t->d, 0);
	fake_run(t->m);
	drv_find(&t->d, t->m, 1);
	vt_start(t);
	vt_post(t, 8);
	u32 port;
	close(connected(t, 65536, &port));
}

static void device_reset(void **state)
{
	struct vsock_test *t = *state;
	char buf[16];
	u32 port;
	vt_start(t);
	vt_post(t, 8);
	int fd = connected(t, 65536, &port), line = unix_connect(t->path);
	drv_set_status(&t->d, 0);
	fake_run(t->m);
	assert_int_equal(drv_status(&t->d), 0);
	assert_int_equal(get(t, fd, buf, sizeof(buf)), 0);
	assert_int_equal(get(t, line, buf, sizeof(buf)), -EAGAIN);
	close(fd);
	close(line);
}

static void many_clients(void **state)
{
	struct vsock_test *t = *state;
	static int fd[300];
	struct packet p;
	char buf[4];
	unsigned open = 0;
	vt_start(t);
	vt_post(t, 8);
	for (unsigned i = 0; i < ARRAY_SIZE(fd); i++) {
		fd[i] = unix_connect(t->path);
		assert_true(fd[i] >= 0);
		fake_run(t->m);
	}
	for (unsigned i = 0; i < ARRAY_SIZE(fd); i++)
		open += get(t, fd[i], buf, sizeof(buf)) == -EAGAIN;
	assert_int_equal(open, 256);
	for (unsigned i = 0; i < ARRAY_SIZE(fd); i++)
		close(fd[i]);
	fake_run(t->m);
	while (vt_take(t, &p))
		;
	u32 port;
	close(connected(t, 65536, &port));
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(both_ways),	  TEST(early_client), TEST(guests_credit),   TEST(our_credit), TEST(slow_client),
	    TEST(endings),	  TEST(from_guest),   TEST(bad_lines),	     TEST(hostile_packets), TEST(no_buffers),
	    TEST(small_buffer), TEST(device_reset), TEST(many_clients),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
