/*
 * Bounded fuzzing of virtio-vsock: packets that are nearly right, for connections that are there and that are not, while clients come,
 * write, read and go, and the driver resets. Usage: fuzz_vsock [SEED [STEPS]]. Correct is: no crash, no report, an end, and a device
 * that still answers.
 */
#include <signal.h>

#include "vsock_driver.h"

static u64 state = 88172645463325252ull;

static u64 below(u64 n)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state % n;
}

enum { CLIENTS = 12, PORTS = 16 };
static u32 port[PORTS]; /* host ports seen */

static void client_step(struct vsock_test *t, int *fd)
{
	char buf[5000];
	if (*fd < 0) {
		*fd = unix_connect(t->path);
		return;
	}
	switch (below(6)) {
	case 0:
		if (send(*fd, buf, (size_t)snprintf(buf, sizeof(buf), "CONNECT %u\n", (unsigned)below(4)), MSG_NOSIGNAL) < 0)
			*fd = (close(*fd), -1);
		break;
	case 1:
		memset(buf, 'a', sizeof(buf));
		if (send(*fd, buf, below(sizeof(buf)), MSG_NOSIGNAL) < 0)
			*fd = (close(*fd), -1);
		break;
	case 2:
		if (!below(4))
			shutdown(*fd, (int)below(3));
		break;
	case 3:
		*fd = (close(*fd), -1);
		break;
	default:
		if (recv(*fd, buf, below(sizeof(buf)), 0) == 0)
			*fd = (close(*fd), -1);
	}
}

static void packet_step(struct vsock_test *t)
{
	static const u16 likely[] = {VIRTIO_VSOCK_OP_RESPONSE, VIRTIO_VSOCK_OP_RESPONSE, VIRTIO_VSOCK_OP_RW, VIRTIO_VSOCK_OP_RW};
	u8 data[3000];
	u16 op = below(3) ? likely[below(ARRAY_SIZE(likely))] : (u16)below(10);
	struct virtio_vsock_hdr h = vt_header(op, below(4) ? port[below(PORTS)] : (u32)below(80), (u32)below(4));
	h.buf_alloc = below(4) ? 65536 : (u32)state;
	h.fwd_cnt = below(2) ? 0 : (u32)below(10000);
	h.flags = (u32)below(4);
	if (!below(30))
		h.type = (u16)below(4);
	if (!below(30))
		h.dst_cid = below(4);
	memset(data, 'g', sizeof(data));
	if (!below(40)) {
		h.len = (u32)state;
		vt_send_raw(t, &h, 1 + (u32)below(HDR));
	} else {
		vt_send(t, h, data, op == VIRTIO_VSOCK_OP_RW ? (u32)below(sizeof(data)) : 0);
	}
}

static void restart(struct vsock_test *t)
{
	drv_set_status(&t->d, 0);
	fake_run(t->m);
	drv_find(&t->d, t->m, 1);
	vt_start(t);
}

static void round_of(unsigned steps)
{
	struct vsock_test t;
	struct packet p;
	int fd[CLIENTS];
	unsigned posted = 0, out = 0; /* receive buffers: all, with the device */
	for (unsigned i = 0; i < CLIENTS; i++)
		fd[i] = -1;
	vt_new(&t);
	vt_start(&t);
	for (unsigned i = 0; i < steps; i++) {
		client_step(&t, &fd[below(CLIENTS)]);
		packet_step(&t);
		unsigned n = (unsigned)below(4);
		n = MIN(n, 30 - out);
		vt_post(&t, n);
		posted += n;
		out += n;
		while (vt_take(&t, &p)) {
			out--;
			port[below(PORTS)] = p.h.src_port;
		}
		if (!below(300) || posted >= 500 || drv_status(&t.d) & VIRTIO_CONFIG_S_NEEDS_RESET) {
			restart(&t);
			posted = out = 0;
		}
	}
	for (unsigned i = 0; i < CLIENTS; i++)
		if (fd[i] >= 0)
			close(fd[i]);
	restart(&t);
	vt_post(&t, 8);
	while (vt_take(&t, &p))
		;
	fd[0] = unix_connect(t.path);
	if (send(fd[0], "CONNECT 1\n", 10, 0) != 10)
		abort();
	if (!vt_take(&t, &p) || p.h.op != VIRTIO_VSOCK_OP_REQUEST) {
		printf("0 passed, 1 failed (the device does not answer any more)\n");
		exit(1);
	}
	close(fd[0]);
	vt_free(&t);
}

int main(int argc, char **argv)
{
	unsigned rounds = 20, steps = argc > 2 ? (unsigned)atoi(argv[2]) : 1500;
	if (argc > 1)
		state ^= (u64)strtoull(argv[1], NULL, 0) * 0x9e3779b97f4a7c15ull;
	signal(SIGPIPE, SIG_IGN);
	for (unsigned i = 0; i < rounds; i++)
		round_of(steps);
	printf("%u passed, 0 failed\n", rounds);
	return 0;
}
