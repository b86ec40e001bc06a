/* The file server as a vhost-user back-end: a front-end that does as it should, and ones that do not. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>
#include <linux/virtio_ring.h>

#include "base/vhost_user.h"
#include "fs/vhost.h"
#include "fs_client.h"

enum { RAM = 1 << 20, DESC = 0x1000, AVAIL = 0x2000, USED = 0x3000, BUF = 0x10000, SIZE = 64 };
#define USER 0x7f0000000000ull
#define GPA  0x40000000ull

struct fixture {
	struct fs_client c;
	int sock, ram_fd, kick, call;
	u8 *ram;
	pthread_t thread;
	int server_sock, result;
	struct err e;
	u16 avail, used;
};

static void *serve(void *arg)
{
	struct fixture *f = arg;

	f->result = vhost_serve(&f->c.fs, f->server_sock, &f->e);
	shutdown(f->server_sock, SHUT_RDWR);
	return NULL;
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	const struct fs_options o = {.xattr = true};
	int pair[2];

	log_set_level(LOG_ERROR);
	client_open(&f->c, &o);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	f->sock = pair[0];
	f->server_sock = pair[1];
	f->ram_fd = memfd_create("ram", MFD_CLOEXEC);
	assert_int_equal(ftruncate(f->ram_fd, RAM), 0);
	f->ram = mmap(NULL, RAM, PROT_READ | PROT_WRITE, MAP_SHARED, f->ram_fd, 0);
	f->kick = eventfd(0, EFD_CLOEXEC);
	f->call = eventfd(0, EFD_CLOEXEC);
	assert_int_equal(pthread_create(&f->thread, NULL, serve, f), 0);
	*state = f;
	return 0;
}

static void finish(struct fixture *f)
{
	if (!f->thread)
		return;
	shutdown(f->sock, SHUT_RDWR);
	pthread_join(f->thread, NULL);
	f->thread = 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	finish(f);
	close(f->sock);
	close(f->server_sock);
	munmap(f->ram, RAM);
	close(f->ram_fd);
	close(f->kick);
	close(f->call);
	client_close(&f->c);
	free(f);
	return 0;
}

/* The answer's number, with need_reply or to a question; -1: the session has ended */
static long long tell(struct fixture *f, u32 request, const void *p, u32 n, int fd, bool ack)
{
	struct vu_message m = {.h = {request, VU_VERSION | (ack ? VU_NEED_REPLY : 0), n}};

	memcpy(m.payload, p, n);
	if (fd >= 0) {
		m.fds[0] = fd;
		m.n_fds = 1;
	}
	if (vu_send(f->sock, &m) || vu_receive(f->sock, &m, 5000))
		return -1;
	assert_int_equal(m.h.request, request);
	return (long long)m.u64;
}

static long long set(struct fixture *f, u32 request, u32 a, u32 b)
{
	const struct vu_vring_state s = {a, b};

	return tell(f, request, &s, sizeof(s), -1, true);
}

static long long set_fd(struct fixture *f, u32 request, u64 x, int fd)
{
	return tell(f, request, &x, sizeof(x), fd, true);
}

static long long set_mem(struct fixture *f, u64 gpa, u64 size, u64 user, u64 offset)
{
	const struct vu_mem_table m = {.n = 1, .region[0] = {gpa, size, user, offset}};

	return tell(f, VU_SET_MEM_TABLE, &m, 8 + sizeof(struct vu_region), f->ram_fd, true);
}

static void start(struct fixture *f, unsigned q)
{
	const u64 features = BIT64(VIRTIO_F_VERSION_1) | BIT64(VHOST_USER_F_PROTOCOL_FEATURES);
	const struct vu_vring_addr a = {
	    .index = q, .desc = USER + DESC, .avail = USER + AVAIL, .used = USER + USED};

	assert_int_equal(tell(f, VU_SET_FEATURES, &features, 8, -1, true), 0);
	assert_int_equal(set_mem(f, GPA, RAM, USER, 0), 0);
	assert_int_equal(set(f, VU_SET_VRING_NUM, q, SIZE), 0);
	assert_int_equal(set(f, VU_SET_VRING_BASE, q, 0), 0);
	assert_int_equal(tell(f, VU_SET_VRING_ADDR, &a, sizeof(a), -1, true), 0);
	assert_int_equal(set_fd(f, VU_SET_VRING_CALL, q, f->call), 0);
	assert_int_equal(set_fd(f, VU_SET_VRING_KICK, q, f->kick), 0);
	assert_int_equal(set(f, VU_SET_VRING_ENABLE, q, 1), 0);
}

/* Puts a chain of one readable and one writable buffer, kicks */
static void submit(struct fixture *f, const void *out, u32 n_out, u32 n_in)
{
	const struct vring_desc d[2] = {{GPA + BUF, n_out, VRING_DESC_F_NEXT, 1},
					{GPA + BUF + 0x8000, n_in, VRING_DESC_F_WRITE, 0}};
	const u64 one = 1;
	u16 *avail = (u16 *)(f->ram + AVAIL);

	memcpy(f->ram + BUF, out, n_out);
	memcpy(f->ram + DESC, d, sizeof(d));
	avail[2 + f->avail++ % SIZE] = 0;
	__atomic_store_n(&avail[1], f->avail, __ATOMIC_RELEASE);
	assert_int_equal(write(f->kick, &one, 8), 8);
}

static bool called(struct fixture *f, int ms)
{
	struct pollfd p = {.fd = f->call, .events = POLLIN};
	u64 n = 0;

	return poll(&p, 1, ms) == 1 && read(f->call, &n, 8) == 8;
}

static void submit_init(struct fixture *f)
{
	struct {
		struct fuse_in_header h;
		struct fuse_init_in in;
	} r = {{.len = sizeof(r), .opcode = FUSE_INIT, .unique = 5}, {.major = 7, .minor = 36}};

	submit(f, &r, sizeof(r), 200);
}

/* ---- tests ---- */
static void a_request(void **state)
{
	struct fixture *f = *state;
	struct fuse_out_header h;

	start(f, 1);
	submit_init(f);
	assert_true(called(f, 5000));
	memcpy(&h, f->ram + BUF + 0x8000, sizeof(h));
	assert_int_equal(h.unique, 5);
	assert_int_equal(h.error, 0);
	assert_int_equal(((u16 *)(f->ram + USED))[1], 1);
	assert_int_equal(((struct vring_used_elem *)(f->ram + USED + 4))->len, h.len);
	assert_int_equal(set(f, VU_GET_VRING_BASE, 1, 0) >> 32, 1); /* one chain taken */
	submit_init(f);
	assert_false(called(f, 50)); /* it has stopped */
	finish(f);
	assert_int_equal(f->result, 0);
}

/* The guest breaks the ring: that queue is dead, the server is not. */
static void a_bad_chain(void **state)
{
	struct fixture *f = *state;
	const struct vring_desc bad[] = {{GPA + RAM - 4, 8, 0, 0},
					 {0, 64, 0, 0},
					 {UINT64_MAX, 64, 0, 0},
					 {GPA + BUF, 0, 0, 0},
					 {GPA + BUF, 16, VRING_DESC_F_NEXT, 0},
					 {GPA + BUF, 15, VRING_DESC_F_INDIRECT, 0}};
	const u64 one = 1;

	start(f, 1);
	for (u32 i = 0; i < ARRAY_SIZE(bad); i++) {
		u16 *avail = (u16 *)(f->ram + AVAIL);

		memcpy(f->ram + DESC, &bad[i], sizeof(bad[i]));
		avail[2 + f->avail++ % SIZE] = 0;
		__atomic_store_n(&avail[1], f->avail, __ATOMIC_RELEASE);
		assert_int_equal(write(f->kick, &one, 8), 8);
		assert_false(called(f, 20));
		assert_true(set(f, VU_GET_VRING_BASE, 1, 0) >= 0);
		memset(f->ram, 0, BUF);
		f->avail = 0;
		start(f, 1);
	}
	submit_init(f);
	assert_true(called(f, 5000));
}

/* Refused, said so, and the session goes on. */
static void refused(void **state)
{
	struct fixture *f = *state;
	const u64 big = UINT64_MAX;
	const struct vu_mem_table none = {.n = 2};
	struct vu_vring_addr a = {.index = 1, .desc = 0x1234, .avail = USER, .used = USER};

	assert_int_equal(tell(f, VU_SET_FEATURES, &big, 8, -1, true), 1);
	assert_int_equal(tell(f, VU_SET_PROTOCOL_FEATURES, &big, 8, -1, true), 1);
	assert_int_equal(set(f, VU_SET_VRING_NUM, 1, 0), 1);
	assert_int_equal(set(f, VU_SET_VRING_NUM, 1, 100000), 1);
	assert_int_equal(set(f, VU_SET_VRING_NUM, 100, 64), 1);
	assert_int_equal(set(f, VU_SET_VRING_BASE, UINT32_MAX, 64), 1);
	assert_int_equal(set(f, VU_SET_VRING_ENABLE, 9, 1), 1);
	assert_int_equal(set_fd(f, VU_SET_VRING_KICK, 200, f->kick), 1);
	assert_int_equal(set_fd(f, VU_SET_VRING_CALL, 200, f->kick), 1);
	assert_int_equal(set(f, VU_SET_VRING_ADDR, 1, 0), 1); /* too short */
	assert_int_equal(tell(f, VU_SET_MEM_TABLE, &none, 8, -1, true), 1);
	assert_int_equal(set_mem(f, GPA, 0, USER, 0), 1);
	assert_int_equal(set_mem(f, UINT64_MAX, RAM, USER, 0), 1);
	assert_int_equal(set_mem(f, GPA, RAM, UINT64_MAX - 5, 0), 1);
	assert_int_equal(set_mem(f, GPA, RAM, USER, UINT64_MAX - 5), 1);
	assert_int_equal(set_mem(f, GPA, 1ull << 62, USER, 0), 1);
	assert_int_equal(set(f, 99, 0, 0), 1);
	assert_int_equal(set(f, 0, 0, 0), 1);
	start(f, 1);
	assert_int_equal(tell(f, VU_SET_VRING_ADDR, &a, sizeof(a), -1, true), 1); /* nowhere in memory */
	a.desc = USER + RAM - 16;
	assert_int_equal(tell(f, VU_SET_VRING_ADDR, &a, sizeof(a), -1, true), 1); /* only begins there */
	start(f, 1);
	submit_init(f);
	assert_true(called(f, 5000));
}

static void ends_the_session(void **state)
{
	struct fixture *f = *state;
	const struct vu_header too_long = {VU_SET_FEATURES, VU_VERSION, 100000};

	assert_int_equal(write(f->sock, &too_long, sizeof(too_long)), sizeof(too_long));
	pthread_join(f->thread, NULL);
	f->thread = 0;
	assert_int_equal(f->result, -EPROTO);
	assert_non_null(strstr(f->e.text, "vhost-user"));
}

static void error_without_reply(void **state)
{
	struct fixture *f = *state;
	const struct vu_vring_state s = {100, 1};

	assert_int_equal(tell(f, VU_SET_VRING_NUM, &s, sizeof(s), -1, false), -1);
	pthread_join(f->thread, NULL);
	f->thread = 0;
	assert_int_equal(f->result, -EINVAL);
}

/* Random bytes with good headers: nothing but an end or a refusal may come of it. */
static void noise(void **state)
{
	struct fixture *f = *state;

	srandom(7);
	for (unsigned i = 0; i < 3000; i++) {
		u8 bytes[VU_PAYLOAD_MAX];

		for (unsigned k = 0; k < sizeof(bytes); k++)
			bytes[k] = (u8)(random() % 4 ? random() % 3 : random());
		/* a kick that is a memory file would keep the queue's thread awake: eventfds only */
		if (tell(f, (u32)random() % 30, bytes, (u32)random() % 64, random() & 1 ? f->call : -1,
			 true) < 0)
			fail();
	}
}

/* Pages that hold code: the VMM hears of it, and has done what it must, before the guest sees the answer. */
static void direct(void **state)
{
	struct fixture *f = *state;
	struct vu_direct x = {.attr_pages = (GPA + RAM) >> 12, .attr_code = 4};
	struct vu_message m = {.h = {VU_SET_DIRECT, VU_VERSION | VU_NEED_REPLY, sizeof(x)}};
	struct vu_written w;
	int pair[2], attr = memfd_create("attr", MFD_CLOEXEC);
	const u8 code = 5;

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	assert_int_equal(ftruncate(attr, (off_t)x.attr_pages), 0);
	assert_int_equal(tell(f, VU_SET_DIRECT, &x, sizeof(x), pair[1], true), 1); /* a descriptor is missing */
	x.has_wake = 1;
	x.wake_source[3] = 100000;
	assert_int_equal(tell(f, VU_SET_DIRECT, &x, sizeof(x), pair[1], true), 1);
	x.has_wake = 0;
	memcpy(&m.direct, &x, sizeof(x));
	m.fds[m.n_fds++] = pair[1];
	m.fds[m.n_fds++] = attr;
	assert_int_equal(vu_send(f->sock, &m), 0);
	assert_int_equal(vu_receive(f->sock, &m, 5000), 0);
	assert_int_equal(m.u64, 0);
	start(f, 1);
	submit_init(f);
	assert_true(called(f, 5000)); /* nothing there is code */
	assert_int_equal(pwrite(attr, &code, 1, (GPA + BUF + 0x8000) >> 12), 1);
	submit_init(f);
	assert_int_equal(read(pair[0], &w, sizeof(w)), sizeof(w));
	assert_int_equal(w.gpa, GPA + BUF + 0x8000);
	assert_true(w.size > 0 && w.size <= 200);
	assert_false(called(f, 50));
	assert_int_equal(((u16 *)(f->ram + USED))[1], 1);
	assert_int_equal(write(pair[0], &w, sizeof(w)), sizeof(w));
	assert_true(called(f, 5000));
	assert_int_equal(((u16 *)(f->ram + USED))[1], 2);
	submit(f, "x", 0, 64); /* an empty descriptor: the driver broke the ring */
	assert_int_equal(read(pair[0], &w, sizeof(w)), sizeof(w));
	assert_int_equal(w.size, 0);
	assert_int_equal(write(pair[0], &w, sizeof(w)), sizeof(w));
	close(pair[0]);
	close(pair[1]);
	close(attr);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {TEST(a_request),        TEST(a_bad_chain),         TEST(refused),
					   TEST(ends_the_session), TEST(error_without_reply), TEST(noise),
					   TEST(direct)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
