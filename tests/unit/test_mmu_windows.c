/* Windows (base/window.h): what is taken and refused, what the guest sees there, and files that become shorter. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>
#include "base/window.h"
#include "engine/lib/loop.h"
#include "mmu_fake.h"

#define AT   0x80000000ull
#define SIZE 0x10000ull

static struct {
	int fd;
	loop_fn *fn;
	void *arg;
} watched = {.fd = -1};

int loop_add(int fd, loop_fn *fn, void *arg)
{
	watched.fd = fd;
	watched.fn = fn;
	watched.arg = arg;
	return 0;
}

void loop_del(int fd)
{
	if (fd == watched.fd)
		watched.fd = -1;
}

static int sock; /* the other process' end */

static int make_window(u64 size)
{
	int pair[2], ret = 0;

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
	ret = window_add(&fake.vm, size, pair[0]);
	if (ret < 0) {
		close(pair[0]);
		close(pair[1]);
	} else {
		sock = pair[1];
	}
	return ret;
}

/* n bytes of a request, as the process sends them; the answer. */
static s32 send_bytes(const void *p, size_t n, int fd)
{
	struct iovec iov = {(void *)p, n};
	char cbuf[CMSG_SPACE(sizeof(int))] __attribute__((aligned(8))) = {0};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
	s32 answer = 0;

	if (fd >= 0) {
		m.msg_control = cbuf;
		m.msg_controllen = sizeof(cbuf);
		*CMSG_FIRSTHDR(&m) = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(int))};
		memcpy(CMSG_DATA(CMSG_FIRSTHDR(&m)), &fd, sizeof(fd));
	}
	assert_int_equal(sendmsg(sock, &m, 0), n);
	watched.fn(watched.arg);
	assert_int_equal(recv(sock, &answer, sizeof(answer), MSG_DONTWAIT), sizeof(answer));
	return answer;
}

static s32 ask(u64 offset, u64 size, int fd, u64 file_offset, bool cached)
{
	const struct window_request r = {.offset = offset, .size = size, .file_offset = file_offset, .cached = cached};

	return send_bytes(&r, sizeof(r), fd);
}

static int file(const char *text, u64 at, u64 size)
{
	int fd = fake_fd(size);

	assert_int_equal(pwrite(fd, text, strlen(text), (off_t)at), strlen(text));
	return fd;
}

static bool shows(gpa_t a, const char *text)
{
	char buf[64] = {0};

	assert_true(phys_read(a, buf, strlen(text)));
	return memcmp(buf, text, strlen(text)) == 0;
}

static bool empty(gpa_t a)
{
	u64 x = 1;

	assert_true(phys_read(a, &x, sizeof(x)));
	return !x;
}

static void done(void)
{
	close(sock);
	close(fake.vm.window[0].sock);
}

static void places(void **s)
{
	fake_start();
	assert_int_equal(make_window(0), -EINVAL);
	assert_int_equal(make_window(0x1800), -EINVAL);
	assert_int_equal(make_window(ENG_GPA_LIMIT + PAGE_SIZE), -EINVAL);
	assert_int_equal(make_window(SIZE), 0);
	assert_int_equal(window_place(&fake.vm, 1, AT), -EINVAL);
	assert_int_equal(window_place(&fake.vm, ~0u, AT), -EINVAL);
	assert_int_equal(window_place(&fake.vm, 0, AT + 1), -EINVAL);
	assert_int_equal(window_place(&fake.vm, 0, ENG_GPA_LIMIT - SIZE + PAGE_SIZE), -EINVAL);
	assert_int_equal(window_place(&fake.vm, 0, FAKE_RAM - PAGE_SIZE), -EEXIST); /* RAM is there */
	assert_int_equal(window_place(&fake.vm, 0, MMU_NOWHERE), 0);
	assert_false(phys_is_ram(AT));
	assert_int_equal(window_place(&fake.vm, 0, AT), 0);
	assert_true(phys_is_ram(AT) && phys_is_ram(AT + SIZE - 1) && !phys_is_ram(AT + SIZE));
	{
		const struct kvm_userspace_memory_region r = {.slot = 3, .guest_phys_addr = AT + PAGE_SIZE, .memory_size = PAGE_SIZE, .userspace_addr = 0x40000000};
		int fd = fake_fd(PAGE_SIZE);

		assert_int_equal(mmu_set_region(&fake.vm, &r, fd, 0), -EEXIST);
		close(fd);
	}
	done();
}

static void read_only_zeros(void **s)
{
	struct vcpu *cpu = fake_start();
	u64 x = 1;
	u8 old = 0;

	make_window(SIZE);
	assert_int_equal(window_place(&fake.vm, 0, AT), 0);
	assert_int_equal(mmu_read64(cpu, AT + 8), 0);
	assert_int_equal(fake.nmmio, 0);
	assert_int_equal(TRY(mmu_write64(cpu, AT + 8, 7)), EV_NONE);
	assert_int_equal(fake.nmmio, 1);
	assert_false(phys_write(AT, &x, sizeof(x)));
	assert_false(phys_exchange8(AT, 1, &old));
	assert_int_equal(mmu_read64(cpu, AT + 8), 0);
	done();
}

static void files(void **s)
{
	struct vcpu *cpu = fake_start();
	int a = file("first", 0x2000, 0x8000), b = file("second", 0, 0x1000), pipe_fd[2], zero = open("/dev/zero", O_RDONLY);
	const u64 changes = fake.vm.memory_changes;

	make_window(SIZE);
	assert_int_equal(ask(0, 0x2000, a, 0x2000, false), -ENXIO); /* it is nowhere */
	assert_int_equal(window_place(&fake.vm, 0, AT), 0);
	assert_true(fake.vm.memory_changes != changes);
	assert_int_equal(pipe(pipe_fd), 0);
	assert_int_equal(ask(0, 0x2000, pipe_fd[0], 0, false), -EINVAL);
	assert_int_equal(ask(0, 0x2000, zero, 0, false), -EINVAL);
	assert_int_equal(ask(0, 0x2000, sock, 0, false), -EINVAL);
	assert_int_equal(ask(0x800, 0x2000, a, 0, false), -EINVAL);
	assert_int_equal(ask(0, 0x2800, a, 0, false), -EINVAL);
	assert_int_equal(ask(0, 0x2000, a, 0x800, false), -EINVAL);
	assert_int_equal(ask(0, 0, a, 0, false), -EINVAL);
	assert_int_equal(ask(SIZE, 0x1000, a, 0, false), -EINVAL);
	assert_int_equal(ask(0x1000, SIZE, a, 0, false), -EINVAL);
	assert_int_equal(ask(~0xfffull, 0x2000, a, 0, false), -EINVAL);
	assert_int_equal(ask(0, 0x2000, a, ~0xfffull, false), -EINVAL);
	assert_int_equal(send_bytes("short", 5, a), -EINVAL);
	assert_true(empty(AT));
	fake.ninval = 0;
	assert_int_equal(ask(0x1000, 0x2000, a, 0x2000, true), 0);
	assert_true(fake.ninval == 1 && fake.inval_gpa == AT + 0x1000 && fake.inval_size == 0x2000 && !memcmp(&fake.inval_saw, "first", 5));
	assert_true(shows(AT + 0x1000, "first"));
	assert_int_equal(mmu_read32(cpu, AT + 0x1000), *(const u32 *)"firs");
	assert_int_equal(pwrite(a, "FIRST", 5, 0x2000), 5); /* the file itself, not a copy */
	assert_true(shows(AT + 0x1000, "FIRST"));
	assert_int_equal(ask(0x1000, 0x1000, b, 0, false), 0);
	assert_true(shows(AT + 0x1000, "second"));
	assert_int_equal(ask(0x1000, 0x1000, -1, 0, false), 0);
	assert_true(empty(AT + 0x1000));
	assert_int_equal(ask(0x1000, 0x1000, b, 0, false), 0);
	assert_int_equal(window_place(&fake.vm, 0, AT + 0x8000), 0); /* onto itself, in part; and it is empty */
	assert_false(phys_is_ram(AT));
	assert_true(empty(AT + 0x9000));
	close(pipe_fd[0]);
	close(pipe_fd[1]);
	close(zero);
	close(a);
	close(b);
	done();
}

static void on_bus_error(int sig, siginfo_t *si, void *ctx)
{
	if (!window_fault(&fake.vm, (u64)si->si_addr))
		_exit(99);
}

static void shorter_files(void **s)
{
	struct sigaction sa = {.sa_sigaction = on_bus_error, .sa_flags = SA_SIGINFO}, before;
	int a = file("here", 0x1000, 0x2000);

	fake_start();
	make_window(SIZE);
	assert_int_equal(window_place(&fake.vm, 0, AT), 0);
	sigaction(SIGBUS, &sa, &before);
	assert_int_equal(ask(0, 0x4000, a, 0, true), 0); /* behind its end too, where it may grow */
	assert_true(shows(AT + 0x1000, "here"));
	assert_true(empty(AT + 0x3000));
	assert_int_equal(ftruncate(a, 0x800), 0);
	assert_true(empty(AT + 0x1000));
	assert_false(window_fault(&fake.vm, (u64)gpa_to_hva(AT + SIZE)));
	assert_false(window_fault(&fake.vm, 0x1000));
	sigaction(SIGBUS, &before, NULL);
	close(a);
	done();
}

static void process_ends(void **s)
{
	int a = file("stays", 0, 0x1000);

	fake_start();
	make_window(SIZE);
	assert_int_equal(window_place(&fake.vm, 0, AT), 0);
	assert_int_equal(ask(0, 0x1000, a, 0, false), 0);
	close(sock);
	watched.fn(watched.arg);
	assert_int_equal(watched.fd, -1);
	assert_true(shows(AT, "stays"));
	close(a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(places), cmocka_unit_test(read_only_zeros), cmocka_unit_test(files),
		cmocka_unit_test(shorter_files), cmocka_unit_test(process_ends),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
