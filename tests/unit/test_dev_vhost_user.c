/* The front-end of vhost-user (by virtio-fs), against a server that works and one that does not. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>
#include <linux/fuse.h>
#include <linux/virtio_fs.h>

#include "base/vhost_user.h"
#include "devices/virtio_fs.h"
#include "virtio_driver.h"

#define MODERN                                                                                               \
	(BIT64(VIRTIO_F_VERSION_1) | BIT64(VIRTIO_RING_F_INDIRECT_DESC) | BIT64(VIRTIO_RING_F_EVENT_IDX))
enum { QUEUES = 2, REQUESTS = 1 };

enum mode { GOOD, CLOSES, WRONG_VERSION, WRONG_REQUEST, NO_FEATURES, TOO_LONG, REFUSES, FEW_QUEUES, DIRECT };
struct server {
	int sock;
	enum mode mode;
	pthread_t thread;
	struct vu_mem_table mem;
	void *base[VU_REGIONS_MAX];
	struct vu_vring_addr addr[QUEUES];
	int kick[QUEUES], call[QUEUES];
	u16 num[QUEUES], seen[QUEUES], used[QUEUES];
	unsigned stops;
	bool enabled[QUEUES];
	int channel; /* of DIRECT */
};

struct fixture {
	struct machine *m;
	struct pci_host *host;
	struct drv d;
	struct server s;
};

/* ---- the server ---- */
static void close_all(struct server *s)
{
	for (unsigned i = 0; i < s->mem.n; i++)
		munmap(s->base[i], s->mem.region[i].mmap_offset + s->mem.region[i].size);
	if (s->channel >= 0)
		close(s->channel);
	for (unsigned i = 0; i < QUEUES; i++) {
		if (s->kick[i] >= 0)
			close(s->kick[i]);
		if (s->call[i] >= 0)
			close(s->call[i]);
	}
	s->mem.n = 0;
}

static void map(struct server *s, struct vu_message *m)
{
	s->mem = m->mem;
	for (unsigned i = 0; i < s->mem.n; i++)
		s->base[i] = mmap(NULL, s->mem.region[i].mmap_offset + s->mem.region[i].size,
				  PROT_READ | PROT_WRITE, MAP_SHARED, m->fds[i], 0);
}

static int take(struct vu_message *m, int old)
{
	int fd = m->fds[0];

	m->fds[0] = -1;
	if (old >= 0)
		close(old);
	return fd;
}

/* true: m is the answer */
static bool obey(struct server *s, struct vu_message *m)
{
	u32 q = m->state.index % QUEUES;

	switch (m->h.request) {
	case VU_GET_FEATURES:
		m->u64 = s->mode == NO_FEATURES ? BIT64(VIRTIO_F_VERSION_1)
						: MODERN | BIT64(VHOST_USER_F_PROTOCOL_FEATURES);
		return true;
	case VU_GET_PROTOCOL_FEATURES:
		m->u64 = BIT64(VU_PROTOCOL_MQ) | BIT64(VU_PROTOCOL_REPLY_ACK) |
			 (s->mode == DIRECT ? BIT64(VU_PROTOCOL_DIRECT) : 0);
		return true;
	case VU_GET_QUEUE_NUM:
		m->u64 = s->mode == FEW_QUEUES ? 1 : QUEUES;
		return true;
	case VU_SET_MEM_TABLE:
		map(s, m);
		return false;
	case VU_SET_VRING_NUM:
		s->num[q] = (u16)m->state.num;
		return false;
	case VU_SET_VRING_ADDR:
		s->addr[q] = m->addr;
		s->seen[q] = s->used[q] = 0;
		return false;
	case VU_SET_VRING_KICK:
		s->kick[q] = take(m, s->kick[q]);
		return false;
	case VU_SET_VRING_CALL:
		s->call[q] = take(m, s->call[q]);
		return false;
	case VU_SET_DIRECT:
		assert_int_equal(m->n_fds, 1);
		s->channel = take(m, -1);
		return false;
	case VU_SET_VRING_ENABLE:
		s->enabled[q] = m->state.num;
		return false;
	case VU_GET_VRING_BASE:
		s->stops++;
		s->enabled[q] = false;
		m->state.num = s->seen[q];
		return true;
	default:
		return false;
	}
}

static void *serve(void *arg)
{
	struct server *s = arg;
	struct vu_message m;

	while (s->mode != CLOSES && !vu_receive(s->sock, &m, -1)) {
		bool reply = obey(s, &m), ack = m.h.flags & VU_NEED_REPLY;
		u32 request = m.h.request;

		vu_close_fds(&m);
		m.n_fds = 0;
		if (!reply && !ack)
			continue;
		if (!reply)
			m.u64 = s->mode == REFUSES && request == VU_SET_MEM_TABLE;
		m.h = (struct vu_header){.request = request + (s->mode == WRONG_REQUEST),
					 .size = 8,
					 .flags = (s->mode == WRONG_VERSION ? 2 : VU_VERSION) | VU_REPLY};
		if (s->mode == TOO_LONG) {
			const struct vu_header h = {request, VU_VERSION | VU_REPLY, 0x7fffffff};

			if (write(s->sock, &h, sizeof(h)) < 0)
				break;
			continue;
		}
		if (vu_send(s->sock, &m))
			break;
	}
	shutdown(s->sock, SHUT_RDWR);
	return NULL;
}

static void *at_user(struct server *s, u64 user)
{
	for (unsigned i = 0; i < s->mem.n; i++)
		if (user - s->mem.region[i].user_addr < s->mem.region[i].size)
			return (u8 *)s->base[i] + s->mem.region[i].mmap_offset +
			       (user - s->mem.region[i].user_addr);
	return NULL;
}

static void *at_gpa(struct server *s, u64 gpa)
{
	for (unsigned i = 0; i < s->mem.n; i++)
		if (gpa - s->mem.region[i].gpa < s->mem.region[i].size)
			return (u8 *)s->base[i] + s->mem.region[i].mmap_offset + (gpa - s->mem.region[i].gpa);
	return NULL;
}

/* The next chain: its descriptors; -1: none */
static int server_take(struct server *s, unsigned q, struct vring_desc **table, u32 *n)
{
	u16 *avail = at_user(s, s->addr[q].avail);
	struct vring_desc *desc = at_user(s, s->addr[q].desc);

	if (avail[1] == s->seen[q])
		return -1;
	u16 head = avail[2 + s->seen[q]++ % s->num[q]];

	assert_int_equal(desc[head].flags, VRING_DESC_F_INDIRECT);
	*n = desc[head].len / 16;
	*table = at_gpa(s, desc[head].addr);
	return head;
}

static void server_push(struct server *s, unsigned q, u32 id, u32 len)
{
	u16 *used = at_user(s, s->addr[q].used);
	struct vring_used_elem e = {id, len};
	u64 one = 1;

	memcpy((u8 *)used + 4 + 8 * (s->used[q]++ % s->num[q]), &e, sizeof(e));
	__atomic_store_n(&used[1], s->used[q], __ATOMIC_RELEASE);
	assert_int_equal(write(s->call[q], &one, 8), 8);
}

/* ---- the machine ---- */
static void use_memfd(struct machine *m, u8 *at, u64 size, unsigned slot)
{
	int fd = memfd_create("ram", MFD_CLOEXEC);

	assert_int_equal(ftruncate(fd, (off_t)size), 0);
	assert_ptr_equal(mmap(at, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0), at);
	m->mem.slot[slot].fd = fd;
}

static int start_server(struct server *s, enum mode mode)
{
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	*s = (struct server){.sock = pair[1], .mode = mode, .kick = {-1, -1}, .call = {-1, -1}, .channel = -1};
	assert_int_equal(pthread_create(&s->thread, NULL, serve, s), 0);
	return pair[0];
}

static void join_server(struct server *s)
{
	pthread_join(s->thread, NULL);
	close(s->sock);
	close_all(s);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	log_set_level(LOG_ERROR);
	f->m = fake_machine_new();
	use_memfd(f->m, f->m->ram, FAKE_RAM, 0);
	use_memfd(f->m, f->m->high, FAKE_HIGH_RAM, 1);
	assert_int_equal(pci_host_create(f->m, &fake_pci_config, &f->host), 0);
	*state = f;
	return 0;
}

static int create(struct fixture *f, enum mode mode, bool untrusted, struct err *e)
{
	struct virtio_fs_options o = {.tag = "tag", .sock = start_server(&f->s, mode), .untrusted = untrusted, .attr.fd = -1};

	return virtio_fs_create(f->m, f->host, &o, e);
}

static int setup_good(void **state)
{
	struct err e = {0};

	setup(state);
	struct fixture *f = *state;

	assert_int_equal(create(f, GOOD, true, &e), 0);
	drv_find(&f->d, f->m, 1);
	drv_start(&f->d, MODERN, QUEUES, 64, true);
	return 0;
}

static int setup_direct(void **state)
{
	struct err e = {0};

	setup(state);
	struct fixture *f = *state;

	assert_int_equal(create(f, DIRECT, true, &e), 0);
	drv_find(&f->d, f->m, 1);
	drv_start(&f->d, MODERN, QUEUES, 64, true);
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	int fd[2] = {f->m->mem.slot[0].fd, f->m->mem.slot[1].fd};

	fake_machine_free(f->m);
	if (f->s.thread)
		join_server(&f->s);
	close(fd[0]);
	close(fd[1]);
	free(f);
	return 0;
}

/* One request: a FUSE header, and room for an answer */
static u16 ask(struct fixture *f, u64 unique, gpa_t *in)
{
	struct fuse_in_header h = {.len = sizeof(h), .opcode = FUSE_GETATTR, .unique = unique};
	gpa_t out = drv_alloc(&f->d, sizeof(h));

	*in = drv_alloc(&f->d, 256);
	memcpy(drv_ptr(&f->d, out), &h, sizeof(h));
	const struct seg s[] = {{out, 8, false}, {out + 8, sizeof(h) - 8, false}, {*in, 256, true}};
	u16 head = drv_add(&f->d, REQUESTS, s, ARRAY_SIZE(s));

	drv_kick(&f->d, REQUESTS);
	fake_run(f->m);
	return head;
}

static void assert_failed(struct fixture *f, u64 unique, gpa_t in, u16 head)
{
	struct fuse_out_header h;
	struct vring_used_elem e;

	assert_true(drv_used(&f->d, REQUESTS, &e));
	assert_int_equal(e.id, head);
	assert_int_equal(e.len, sizeof(h));
	memcpy(&h, drv_ptr(&f->d, in), sizeof(h));
	assert_int_equal(h.error, -ENOTCONN);
	assert_int_equal(h.unique, unique);
}

/* ---- tests ---- */
static void config(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(drv_config(&f->d, 0, 1), 't');
	assert_int_equal(drv_config(&f->d, 3, 1), 0);
	assert_int_equal(drv_config(&f->d, 36, 4), 1);
}

/* What overlayfs asks of each file is answered without the server; other attributes are its business. */
static void trusted_attributes(void **state)
{
	struct fixture *f = *state;
	struct {
		struct fuse_in_header h;
		struct fuse_getxattr_in x;
		char name[32];
	} q = {.h = {.len = sizeof(q), .opcode = FUSE_GETXATTR, .unique = 77}, .name = "trusted.overlay.metacopy"};
	struct fuse_out_header h;
	struct vring_used_elem e;
	struct vring_desc *t = NULL;
	u32 n = 0;
	gpa_t out = drv_alloc(&f->d, sizeof(q)), in = drv_alloc(&f->d, 64);
	const struct seg s[] = {{out, sizeof(q), false}, {in, 64, true}};

	memcpy(drv_ptr(&f->d, out), &q, sizeof(q));
	drv_add(&f->d, REQUESTS, s, ARRAY_SIZE(s));
	drv_kick(&f->d, REQUESTS);
	fake_run(f->m);
	assert_true(drv_used(&f->d, REQUESTS, &e));
	memcpy(&h, drv_ptr(&f->d, in), sizeof(h));
	assert_int_equal(h.error, -ENODATA);
	assert_int_equal(h.unique, 77);
	assert_int_equal(e.len, sizeof(h));
	strcpy(q.name, "security.capability");
	memcpy(drv_ptr(&f->d, out), &q, sizeof(q));
	drv_add(&f->d, REQUESTS, s, ARRAY_SIZE(s));
	drv_kick(&f->d, REQUESTS);
	fake_run(f->m);
	assert_false(drv_used(&f->d, REQUESTS, &e));
	int got = server_take(&f->s, REQUESTS, &t, &n);

	assert_true(got >= 0);
	server_push(&f->s, REQUESTS, (u32)got, 0);
	fake_run(f->m);
	assert_true(drv_used(&f->d, REQUESTS, &e));
}

static void there_and_back(void **state)
{
	struct fixture *f = *state;
	struct vring_desc *t = NULL;
	struct vring_used_elem e;
	gpa_t in = 0;
	u64 kicks = 0;
	u32 n = 0;

	assert_true(f->s.enabled[0] && f->s.enabled[1]);
	for (unsigned i = 0; i < 200; i++) { /* more than the ring has places */
		u16 head = ask(f, i, &in);
		int got = server_take(&f->s, REQUESTS, &t, &n);

		assert_int_equal(got, head);
		assert_int_equal(n, 3);
		assert_int_equal(read(f->s.kick[REQUESTS], &kicks, 8), 8);
		assert_int_equal(t[1].flags, VRING_DESC_F_NEXT);
		assert_int_equal(t[2].flags, VRING_DESC_F_WRITE);
		assert_int_equal(t[2].addr, in);
		assert_int_equal(t[2].len, 256);
		assert_int_equal(((struct fuse_in_header *)at_gpa(&f->s, t[0].addr))->unique, i);
		strcpy(at_gpa(&f->s, t[2].addr), "answer");
		f->m->written = 0;
		server_push(&f->s, REQUESTS, (u32)got, 7);
		fake_run(f->m);
		assert_true(drv_used(&f->d, REQUESTS, &e));
		assert_int_equal(e.id, head);
		assert_int_equal(e.len, 7);
		assert_string_equal(drv_ptr(&f->d, in), "answer");
		assert_true(f->m->written >= 256); /* the engine knows */
		f->d.next_page = in;
	}
	assert_int_equal(server_take(&f->s, REQUESTS, &t, &n), -1);
}

static void out_of_order(void **state)
{
	struct fixture *f = *state;
	struct vring_desc *t = NULL;
	struct vring_used_elem e;
	gpa_t in[3];
	u16 head[3];
	u32 n = 0;

	for (unsigned i = 0; i < 3; i++)
		head[i] = ask(f, i, &in[i]);
	for (unsigned i = 0; i < 3; i++)
		server_take(&f->s, REQUESTS, &t, &n);
	for (unsigned i = 3; i-- > 0;)
		server_push(&f->s, REQUESTS, head[i], 16 + i);
	fake_run(f->m);
	for (unsigned i = 3; i-- > 0;) {
		assert_true(drv_used(&f->d, REQUESTS, &e));
		assert_int_equal(e.id, head[i]);
		assert_int_equal(e.len, 16 + i);
	}
}

enum wrong { WRONG_ID, IDLE_ID, TWICE, LONG, JUMP, GONE, CHATTER };

static void server_misbehaves(void **state)
{
	struct fixture *f = *state;

	for (enum wrong w = WRONG_ID; w <= CHATTER; w++) {
		struct vring_used_elem e;
		gpa_t in[2];
		u16 head[2];

		log_set_level(LOG_ERROR);
		head[0] = ask(f, 100, &in[0]);
		head[1] = ask(f, 101, &in[1]);
		switch (w) {
		case WRONG_ID:
			server_push(&f->s, REQUESTS, 100000, 1);
			break;
		case IDLE_ID:
			server_push(&f->s, REQUESTS, (head[1] + 7u) % 64, 1);
			break;
		case TWICE:
			server_push(&f->s, REQUESTS, head[0], 16);
			fake_run(f->m);
			assert_true(drv_used(&f->d, REQUESTS, &e));
			server_push(&f->s, REQUESTS, head[0], 16);
			break;
		case LONG:
			server_push(&f->s, REQUESTS, head[0], 257);
			break;
		case JUMP:
			f->s.used[REQUESTS] += 1000;
			server_push(&f->s, REQUESTS, head[0], 1);
			break;
		case GONE:
			shutdown(f->s.sock, SHUT_RDWR);
			break;
		case CHATTER:
			assert_int_equal(write(f->s.sock, "x", 1), 1);
			break;
		}
		fake_run(f->m);
		fake_run(f->m);
		if (w != TWICE)
			assert_failed(f, 100, in[0], head[0]);
		assert_failed(f, 101, in[1], head[1]);
		head[0] = ask(f, 102, &in[0]); /* and whoever asks later */
		assert_failed(f, 102, in[0], head[0]);
		assert_int_equal(drv_status(&f->d) & VIRTIO_CONFIG_S_NEEDS_RESET, 0);
		drv_start(&f->d, MODERN, QUEUES, 64, true); /* the guest may try again: nothing there */
		head[0] = ask(f, 103, &in[0]);
		assert_failed(f, 103, in[0], head[0]);
		if (w == CHATTER)
			break;
		teardown(state);
		setup_good(state);
		f = *state;
	}
}

static void no_server_at_all(void **state)
{
	struct fixture *f = *state;

	for (enum mode m = CLOSES; m < DIRECT; m++) {
		struct err e = {0};

		assert_int_not_equal(create(f, m, false, &e), 0);
		assert_non_null(strstr(e.text, "shared folder tag: the server cannot be used"));
		join_server(&f->s);
	}
	f->s.thread = 0;
}

static void reset_in_flight(void **state)
{
	struct fixture *f = *state;
	struct vring_desc *t = NULL;
	struct vring_used_elem e;
	gpa_t in = 0;
	u32 n = 0;

	u16 head = ask(f, 1, &in);

	server_take(&f->s, REQUESTS, &t, &n);
	unsigned stops = f->s.stops;
	server_push(&f->s, REQUESTS, head, 16); /* done, but not yet collected */
	drv_start(&f->d, MODERN, QUEUES, 32, true);
	assert_int_equal(f->s.stops, stops + QUEUES);
	fake_run(f->m);
	assert_false(drv_used(&f->d, REQUESTS, &e));
	head = ask(f, 2, &in);
	assert_int_equal(server_take(&f->s, REQUESTS, &t, &n), head);
	server_push(&f->s, REQUESTS, head, 16);
	fake_run(f->m);
	assert_true(drv_used(&f->d, REQUESTS, &e));
	fake_reset(f->m);
	assert_int_equal(f->s.stops, stops + 2 * QUEUES);
}

static void driver_gives_a_buffer_twice(void **state)
{
	struct fixture *f = *state;
	gpa_t in = 0;
	u16 head = ask(f, 1, &in);

	log_set_level(LOG_ERROR);
	drv_publish(&f->d, REQUESTS, head);
	drv_kick(&f->d, REQUESTS);
	fake_run(f->m);
	assert_int_not_equal(drv_status(&f->d) & VIRTIO_CONFIG_S_NEEDS_RESET, 0);
}

/* The server has the guest's rings; the VMM is not on the way. */
static void direct_there_and_back(void **state)
{
	struct fixture *f = *state;
	struct server *s = &f->s;
	struct vring_used_elem e;
	gpa_t in = 0;
	u64 kicks = 0;

	assert_true(s->enabled[0] && s->enabled[1]);
	for (unsigned i = 0; i < 100; i++) {
		u16 head = ask(f, i, &in);
		const u16 *avail = at_user(s, s->addr[REQUESTS].avail);
		const struct vring_desc *desc = at_user(s, s->addr[REQUESTS].desc);

		assert_int_equal(read(s->kick[REQUESTS], &kicks, 8), 8);
		assert_int_equal(avail[1], i + 1);
		assert_int_equal(avail[2 + i % s->num[REQUESTS]], head);
		assert_ptr_equal(at_gpa(s, desc[head].addr) != NULL, true);
		assert_false(drv_used(&f->d, REQUESTS, &e));
		server_push(s, REQUESTS, head, 7);
		assert_true(drv_used(&f->d, REQUESTS, &e)); /* without the main loop */
		assert_int_equal(e.id, head);
		f->d.next_page = in;
	}
	unsigned stops = s->stops;

	drv_start(&f->d, MODERN, QUEUES, 32, true);
	assert_int_equal(s->stops, stops + QUEUES);
	assert_int_equal(s->num[REQUESTS], 32);
}

static void direct_tells_of_code(void **state)
{
	struct fixture *f = *state;
	struct vu_written w = {drv_alloc(&f->d, 100), 100}, back;

	f->m->written = 0;
	assert_int_equal(write(f->s.channel, &w, sizeof(w)), sizeof(w));
	fake_run(f->m);
	assert_int_equal(f->m->written, 100);
	assert_int_equal(read(f->s.channel, &back, sizeof(back)), sizeof(back));
	w.gpa = UINT64_MAX - 50; /* nowhere */
	assert_int_equal(write(f->s.channel, &w, sizeof(w)), sizeof(w));
	fake_run(f->m);
	assert_int_equal(f->m->written, 100);
	assert_int_equal(read(f->s.channel, &back, sizeof(back)), sizeof(back));
	assert_int_equal(drv_status(&f->d) & VIRTIO_CONFIG_S_NEEDS_RESET, 0);
	log_set_level(LOG_ERROR);
	w.size = 0; /* the driver broke the ring */
	assert_int_equal(write(f->s.channel, &w, sizeof(w)), sizeof(w));
	fake_run(f->m);
	assert_int_not_equal(drv_status(&f->d) & VIRTIO_CONFIG_S_NEEDS_RESET, 0);
}

static void direct_server_dies(void **state)
{
	struct fixture *f = *state;
	struct vring_used_elem e;
	gpa_t in[3];
	u16 head[3];

	log_set_level(LOG_ERROR);
	for (unsigned i = 0; i < 3; i++)
		head[i] = ask(f, 100 + i, &in[i]);
	server_push(&f->s, REQUESTS, head[0], 16);
	shutdown(f->s.sock, SHUT_RDWR);
	close(f->s.channel);
	f->s.channel = -1;
	fake_run(f->m);
	assert_true(drv_used(&f->d, REQUESTS, &e));
	assert_int_equal(e.id, head[0]);
	assert_failed(f, 101, in[1], head[1]);
	assert_failed(f, 102, in[2], head[2]);
	head[0] = ask(f, 103, &in[0]);
	assert_failed(f, 103, in[0], head[0]);
	drv_start(&f->d, MODERN, QUEUES, 64, true);
	head[0] = ask(f, 104, &in[0]);
	assert_failed(f, 104, in[0], head[0]);
}

#define GOOD_TEST(f)   cmocka_unit_test_setup_teardown(f, setup_good, teardown)
#define DIRECT_TEST(f) cmocka_unit_test_setup_teardown(f, setup_direct, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    GOOD_TEST(config),
	    DIRECT_TEST(direct_there_and_back),
	    DIRECT_TEST(direct_tells_of_code),
	    DIRECT_TEST(direct_server_dies),
	    GOOD_TEST(there_and_back),
	    GOOD_TEST(trusted_attributes),
	    GOOD_TEST(out_of_order),
	    GOOD_TEST(server_misbehaves),
	    GOOD_TEST(reset_in_flight),
	    GOOD_TEST(driver_gives_a_buffer_twice),
	    cmocka_unit_test_setup_teardown(no_server_at_all, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
