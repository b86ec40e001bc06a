/* Terminals, pipes, files, sockets and the log as chardevs. */
#include <errno.h>
#include <fcntl.h>
#include <pty.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "backends/chardev_log.h"
#include "backends/chardev_socket.h"
#include "backends/chardev_stdio.h"
#include "fake_machine.h"

/* ---- a device that takes what it has room for ---- */
struct dev {
	struct machine *m;
	u8 in[300000];
	size_t n, room, want;
	unsigned drained, escapes, ends;
	u8 escape_key;
	u16 cols, rows;
	int open;
};

static size_t dev_input(void *arg, const u8 *p, size_t n)
{
	struct dev *d = arg;
	n = MIN(n, d->room - d->n);
	memcpy(d->in + d->n, p, n);
	d->n += n;
	return n;
}

static void dev_drained(void *arg)
{
	((struct dev *)arg)->drained++;
}

static void dev_resized(void *arg, u16 cols, u16 rows)
{
	struct dev *d = arg;
	d->cols = cols;
	d->rows = rows;
}

static void dev_opened(void *arg, bool open)
{
	((struct dev *)arg)->open = open;
}

static const struct chardev_sink sink = {
    .input = dev_input, .drained = dev_drained, .resized = dev_resized, .opened = dev_opened};

static void on_escape(void *arg, u8 key)
{
	struct dev *d = arg;
	d->escapes++;
	d->escape_key = key;
}

static void on_end(void *arg)
{
	((struct dev *)arg)->ends++;
}

static bool has_input(void *arg)
{
	struct dev *d = arg;
	return d->n >= d->want;
}

static void expect_input(struct dev *d, size_t n)
{
	d->want = n;
	assert_true(fake_run_until(d->m, has_input, d));
	assert_int_equal(d->n, n);
}

static int setup(void **state)
{
	struct dev *d = calloc(1, sizeof(*d));
	d->m = fake_machine_new();
	d->room = sizeof(d->in);
	d->open = -1;
	*state = d;
	return 0;
}

static int teardown(void **state)
{
	struct dev *d = *state;
	fake_machine_free(d->m);
	free(d);
	return 0;
}

static struct chardev *stdio(struct dev *d, int in, int out, bool raw)
{
	struct chardev *c;
	struct err e = {0};
	const struct chardev_stdio_config cfg = {.in = in,
						 .out = out,
						 .raw = raw,
						 .escape = 1,
						 .on_escape = on_escape,
						 .on_end = on_end,
						 .arg = d};
	assert_int_equal(chardev_stdio_create(d->m->loop, &cfg, &c, &e), 0);
	chardev_attach(c, &sink, d);
	return c;
}

static void pipes(void **state)
{
	struct dev *d = *state;
	int in[2], out[2];
	char buf[64];
	assert_int_equal(pipe(in), 0);
	assert_int_equal(pipe(out), 0);
	struct chardev *c = stdio(d, in[0], out[1], true);
	assert_int_equal(d->open, 1);
	assert_int_equal(chardev_write(c, "hello", 5), 5);
	assert_int_equal(read(out[0], buf, sizeof(buf)), 5);
	assert_false(fcntl(out[1], F_GETFL) & O_NONBLOCK); /* others share it */
	assert_int_equal(write(in[1], "a\1\1b\1xc", 7), 7);
	expect_input(d, 4);
	assert_memory_equal(d->in, "a\1bc", 4);
	assert_int_equal(d->escapes, 1);
	assert_int_equal(d->escape_key, 'x');
	d->room = 6;
	assert_int_equal(write(in[1], "0123456789", 10), 10);
	expect_input(d, 6);
	fake_run(d->m);
	d->room = 100;
	chardev_resume(c);
	expect_input(d, 14);
	assert_memory_equal(d->in + 4, "0123456789", 10);
	close(in[1]);
	close(in[0]);
	for (int i = 0; i < 50 && !d->ends; i++)
		fake_run(d->m);
	assert_int_equal(d->ends, 1);
	chardev_destroy(c);
	close(out[0]);
	close(out[1]);
}

static void full_output(void **state)
{
	struct dev *d = *state;
	int out[2];
	static u8 data[4 << 20], back[4 << 20];
	assert_int_equal(pipe(out), 0);
	struct chardev *c = stdio(d, -1, out[1], false);
	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (u8)(i * 7 + i / 251);
	size_t sent = chardev_write(c, data, sizeof(data));
	assert_true(sent >= 65536 &&
		    sent < sizeof(data)); /* the pipe and the buffer are full, and nobody waited */
	assert_int_equal(chardev_write(c, data, 1), 0);
	size_t got = 0;
	fcntl(out[0], F_SETFL, O_NONBLOCK);
	for (int i = 0; i < 2000 && sent < 1000000; i++) {
		ssize_t n = read(out[0], back + got, 5000);
		if (n > 0)
			got += (size_t)n;
		fake_run(d->m);
		if (d->drained) {
			d->drained = 0;
			sent += chardev_write(c, data + sent, 100000);
		}
	}
	assert_true(sent >= 1000000);
	for (int i = 0; i < 1000 && got < sent; i++) {
		ssize_t n = read(out[0], back + got, sizeof(back) - got);
		if (n > 0)
			got += (size_t)n;
		fake_run(d->m);
	}
	assert_int_equal(got, sent);
	assert_memory_equal(data, back, got);
	close(out[0]);
	assert_int_equal(chardev_write(c, data, 1000), 1000); /* nobody reads: it vanishes */
	chardev_destroy(c);
	close(out[1]);
}

static void files(void **state)
{
	struct dev *d = *state;
	char path[] = "/tmp/doppel-test-XXXXXX";
	int fd = mkstemp(path);
	static u8 data[200000];
	memset(data, 'z', sizeof(data));
	assert_int_equal(write(fd, data, sizeof(data)), sizeof(data));
	lseek(fd, 0, SEEK_SET);
	int out = open(path, O_WRONLY | O_APPEND);
	struct chardev *c = stdio(d, fd, out, true);
	d->room = 1000;
	expect_input(d, 1000);
	d->room = sizeof(data);
	chardev_resume(c);
	expect_input(d, sizeof(data));
	fake_run(d->m);
	assert_int_equal(chardev_write(c, "end", 3), 3);
	chardev_destroy(c);
	struct stat st;
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_size, sizeof(data) + 3);
	close(fd);
	close(out);
	unlink(path);
}

static void null_device(void **state)
{
	struct dev *d = *state;
	int fd = open("/dev/null", O_RDWR);
	struct chardev *c = stdio(d, fd, fd, true);
	for (int i = 0; i < 20; i++)
		fake_run(d->m);
	assert_int_equal(d->ends, 1);
	assert_int_equal(chardev_write(c, "x", 1), 1);
	chardev_destroy(c);
	close(fd);
	assert_int_equal(chardev_write(NULL, "x", 1), 1);
	chardev_attach(NULL, &sink, d);
	chardev_resume(NULL);
	chardev_destroy(NULL);
}

static void terminal(void **state)
{
	struct dev *d = *state;
	int master, slave;
	char buf[16];
	struct termios before, during, after;
	struct winsize w = {.ws_row = 25, .ws_col = 80};
	assert_int_equal(openpty(&master, &slave, NULL, NULL, &w), 0);
	assert_int_equal(tcgetattr(slave, &before), 0);
	struct chardev *c = stdio(d, slave, slave, true);
	assert_int_equal(d->cols, 80);
	assert_int_equal(d->rows, 25);
	assert_int_equal(tcgetattr(slave, &during), 0);
	assert_int_equal(during.c_lflag & (ICANON | ECHO | ISIG), 0);
	assert_int_equal(write(master, "k\3", 2), 2);
	expect_input(d, 2);
	assert_int_equal(d->in[1], 3);
	assert_int_equal(chardev_write(c, "out", 3), 3);
	assert_int_equal(read(master, buf, sizeof(buf)), 3);
	w.ws_col = 132;
	assert_int_equal(ioctl(master, TIOCSWINSZ, &w), 0);
	kill(getpid(), SIGWINCH);
	fake_run(d->m);
	assert_int_equal(d->cols, 132);
	chardev_destroy(c);
	assert_int_equal(tcgetattr(slave, &after), 0);
	assert_int_equal(after.c_lflag, before.c_lflag);
	close(master);
	close(slave);
}

static int dial(const char *path)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	strcpy(a.sun_path, path);
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	return fd;
}

static void sockets(void **state)
{
	struct dev *d = *state;
	struct chardev *c, *c2;
	struct err e = {0};
	char path[] = "/tmp/doppel-sock-XXXXXX", buf[64];
	struct stat st;
	close(mkstemp(path));
	const struct chardev_socket_config cfg = {.path = path};
	assert_int_equal(chardev_socket_create(d->m->loop, &cfg, &c, &e),
			 -EADDRINUSE); /* a plain file is not ours to replace */
	unlink(path);
	e.text[0] = 0;
	assert_int_equal(chardev_socket_create(d->m->loop, &cfg, &c, &e), 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	chardev_attach(c, &sink, d);
	assert_int_equal(chardev_write(c, "nobody", 6), 6);
	int a = dial(path);
	fake_run(d->m);
	assert_int_equal(d->open, 1);
	assert_int_equal(chardev_write(c, "hi", 2), 2);
	assert_int_equal(read(a, buf, sizeof(buf)), 2);
	int b = dial(path); /* waits for its turn */
	assert_int_equal(write(b, "second", 6), 6);
	assert_int_equal(write(a, "first", 5), 5);
	expect_input(d, 5);
	assert_int_equal(chardev_socket_create(d->m->loop, &cfg, &c2, &e),
			 -EADDRINUSE); /* alive: not stale */
	close(a);
	expect_input(d, 11);
	assert_memory_equal(d->in, "firstsecond", 11);
	assert_int_equal(d->open, 1);
	close(b);
	for (int i = 0; i < 10; i++)
		fake_run(d->m);
	assert_int_equal(d->open, 0);
	chardev_destroy(c);
	assert_int_not_equal(access(path, F_OK), 0);
	int s = socket(AF_UNIX, SOCK_STREAM, 0); /* a dead owner's socket file is replaced */
	struct sockaddr_un u = {.sun_family = AF_UNIX};
	strcpy(u.sun_path, path);
	assert_int_equal(bind(s, (struct sockaddr *)&u, sizeof(u)), 0);
	close(s);
	assert_int_equal(chardev_socket_create(d->m->loop, &cfg, &c, &e), 0);
	chardev_destroy(c);
	int pair[2];
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	const struct chardev_socket_config given = {.fd = pair[0]};
	assert_int_equal(chardev_socket_create(d->m->loop, &given, &c, &e), 0);
	chardev_attach(c, &sink, d);
	assert_int_equal(chardev_write(c, "x", 1), 1);
	assert_int_equal(read(pair[1], buf, 1), 1);
	close(pair[1]);
	assert_int_equal(chardev_write(c, "x", 1), 1); /* no SIGPIPE */
	chardev_destroy(c);
}

static void log_ring(void **state)
{
	struct dev *d = *state;
	struct chardev *inner, *log;
	struct err e = {0};
	int pair[2];
	char buf[64];
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	const struct chardev_socket_config given = {.fd = pair[0]};
	assert_int_equal(chardev_socket_create(d->m->loop, &given, &inner, &e), 0);
	assert_int_equal(chardev_log_create(inner, 10, &log), 0);
	chardev_attach(log, &sink, d);
	assert_int_equal(chardev_write(log, "0123456", 7), 7);
	u64 pos = 0;
	assert_int_equal(chardev_log_read(log, &pos, buf, 4), 4);
	assert_memory_equal(buf, "0123", 4);
	assert_int_equal(chardev_write(log, "789abcdefgh", 11), 11);
	assert_int_equal(chardev_log_read(log, &pos, buf, sizeof(buf)), 10); /* what is still there */
	assert_memory_equal(buf, "89abcdefgh", 10);
	assert_int_equal(pos, 18);
	assert_int_equal(chardev_log_read(log, &pos, buf, sizeof(buf)), 0);
	assert_int_equal(read(pair[1], buf, sizeof(buf)), 18);
	assert_int_equal(write(pair[1], "in", 2), 2);
	expect_input(d, 2);
	chardev_detach(log);
	assert_int_equal(write(pair[1], "in", 2), 2);
	fake_run(d->m);
	assert_int_equal(d->n, 2);
	chardev_destroy(log);
	close(pair[1]);
}

int main(void)
{
	signal(SIGPIPE, SIG_IGN);
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(pipes, setup, teardown),
	    cmocka_unit_test_setup_teardown(full_output, setup, teardown),
	    cmocka_unit_test_setup_teardown(files, setup, teardown),
	    cmocka_unit_test_setup_teardown(null_device, setup, teardown),
	    cmocka_unit_test_setup_teardown(terminal, setup, teardown),
	    cmocka_unit_test_setup_teardown(sockets, setup, teardown),
	    cmocka_unit_test_setup_teardown(log_ring, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
