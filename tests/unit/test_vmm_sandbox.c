/* The sandbox of a VM's process: what it forbids kills, says so, and holds in threads that were there before. */
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>
#include "kvm/chan.h"
#include "vmm/sandbox.h"

static void *in_thread(void *pipe_fd)
{
	char c = 0;

	if (read(*(int *)pipe_fd, &c, 1) == 1)
		open("/dev/null", O_RDONLY);
	return NULL;
}

static void by_thread(void)
{
	static int fds[2];
	pthread_t t;
	struct err e = {0};

	if (pipe(fds) < 0 || pthread_create(&t, NULL, in_thread, &fds[0]) || sandbox_enter(false, 0, &e))
		return;
	if (write(fds[1], "x", 1) == 1)
		pthread_join(t, NULL);
}

static void do_open(void) { open("/dev/null", O_RDONLY); }
static void do_socket(void) { socket(AF_UNIX, SOCK_STREAM, 0); }
static void do_fork(void) { fork(); }
static void do_exec(void) { execl("/bin/true", "true", NULL); }
static void do_exec_memory(void) { mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); }
static void do_type(void) { ioctl(0, TIOCSTI, "x"); }
/* The engine's process is told of attention by one signal: here a number that no process has. */
#define NOBODY 0x7ffffffe
static void do_other_signal(void) { syscall(SYS_tgkill, NOBODY, NOBODY, SIGKILL); }
static void do_kill(void) { kill(getppid(), 0); }

static void do_allowed(void)
{
	void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	munmap(p, 4096);
	isatty(0);
	if (syscall(SYS_tgkill, NOBODY, NOBODY, CHAN_KICK_SIGNAL) == 0)
		_exit(43);
	_exit(42);
}

/* The wait status of a child that does it in the sandbox; what it said goes to text. */
static int child(void (*fn)(void), char *text, size_t n)
{
	int fds[2], status = 0;
	ssize_t got = 0;
	pid_t pid;

	assert_int_equal(pipe(fds), 0);
	pid = fork();
	if (!pid) {
		struct err e = {0};

		dup2(fds[1], STDERR_FILENO);
		if (fn != by_thread && sandbox_enter(false, NOBODY, &e))
			_exit(1);
		fn();
		_exit(0);
	}
	close(fds[1]);
	got = read(fds[0], text, n - 1);
	text[got > 0 ? got : 0] = 0;
	close(fds[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

static void forbidden_kills(void **state)
{
	static void (*const fns[])(void) = {do_open, do_socket, do_fork, do_exec, do_exec_memory, do_type, do_kill, do_other_signal, by_thread};
	char text[200];

	for (u32 i = 0; i < ARRAY_SIZE(fns); i++) {
		int status = child(fns[i], text, sizeof(text));

		assert_true(WIFSIGNALED(status));
		assert_int_equal(WTERMSIG(status), SIGSYS);
		assert_ptr_equal(strstr(text, "doppel: sandbox: forbidden system call "), text);
	}
}

static void allowed_goes_on(void **state)
{
	char text[200];
	int status = child(do_allowed, text, sizeof(text));

	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 42);
	assert_string_equal(text, "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(forbidden_kills), cmocka_unit_test(allowed_goes_on)};

#if defined(__SANITIZE_ADDRESS__)
	printf("0 passed, 0 failed, 1 skipped\n"); /* no sandbox with sanitizers */
	return 0;
#endif
	return cmocka_run_group_tests(tests, NULL, NULL);
}
