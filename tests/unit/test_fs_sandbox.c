/* What the file server can still do after it has given things up: each case in a process of its own. */
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/landlock.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "fs/sandbox.h"

enum { NOBODY = 65534, SKIP = 77 };
static char share[] = "/tmp/doppel-sandbox.XXXXXX";

static int group_setup(void **state)
{
	char path[64];

	if (!mkdtemp(share))
		return -1;
	chmod(share, 0755);
	snprintf(path, sizeof(path), "%s/inside", share);
	close(open(path, O_CREAT | O_WRONLY, 0644));
	return 0;
}

static int group_teardown(void **state)
{
	char path[64];

	snprintf(path, sizeof(path), "%s/inside", share);
	unlink(path);
	return rmdir(share);
}

/* The wait status of a child that runs fn. */
static int in_child(int (*fn)(void))
{
	int status = 0;
	pid_t pid = fork();

	if (!pid)
		_exit(fn());
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (WIFEXITED(status) && WEXITSTATUS(status) == SKIP)
		skip();
	return status;
}

static int enter(enum fs_sandbox kind, bool readonly)
{
	const struct fs_confine c = {.dir = share, .readonly = readonly, .kind = kind};
	struct err e = {0};
	int fd = sandbox_files(&c, &e);

	if (fd < 0)
		fprintf(stderr, "%s\n", e.text);
	return fd;
}

/* 0 when only the share can be reached: what a server that was taken over would try */
static int reaches_only_share(int root)
{
	if (openat(root, "inside", O_RDONLY) < 0)
		return 1;
	if (open("/etc/passwd", O_RDONLY) >= 0 || openat(root, "../../etc/passwd", O_RDONLY) >= 0)
		return 2;
	if (open("/proc/self/root/etc/passwd", O_RDONLY) >= 0 || open("../root/etc/passwd", O_RDONLY) >= 0)
		return 3;
	return 0;
}

static int root_in_namespace(void)
{
	if (geteuid())
		return SKIP;
	int fd = enter(FS_SANDBOX_NAMESPACE, true);

	if (fd < 0)
		return SKIP; /* a container may forbid it */
	if (openat(fd, "new", O_CREAT | O_WRONLY, 0600) >= 0 || errno != EROFS)
		return 10;
	if (open("../status", O_PATH) >= 0 || open("../../1/status", O_PATH) >= 0)
		return 11;
	return reaches_only_share(fd);
}

static int user_with_landlock(void)
{
	if (syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION) < 2)
		return SKIP;
	if (geteuid() == 0 && (chown(share, NOBODY, NOBODY) < 0 || setresgid(NOBODY, NOBODY, NOBODY) < 0 ||
			       setresuid(NOBODY, NOBODY, NOBODY) < 0))
		return SKIP;
	int fd = enter(FS_SANDBOX_AUTO, true);

	if (fd < 0)
		return 20;
	if (openat(fd, "new", O_CREAT | O_WRONLY, 0600) >= 0)
		return 21;
	return reaches_only_share(fd);
}

static void confined_to_the_share(void **state)
{
	assert_int_equal(in_child(root_in_namespace), 0);
}

static void confined_by_landlock(void **state)
{
	assert_int_equal(in_child(user_with_landlock), 0);
}

/* ---- system calls ---- */
static void *thread(void *arg)
{
	return arg;
}

static int allowed_calls(void)
{
	struct __user_cap_header_struct h = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct d[2] = {0};
	struct err e = {0};
	pthread_t t;

	if (sandbox_calls(&e))
		return 1;
	if (syscall(SYS_capget, &h, d) ||
	    (d[0].permitted & (CAP_TO_MASK(CAP_SYS_ADMIN) | CAP_TO_MASK(CAP_MKNOD))) || d[1].permitted)
		return 2;
	if (pthread_create(&t, NULL, thread, NULL) || pthread_join(t, NULL))
		return 3;
	return open("/etc/passwd", O_RDONLY) >= 0 ? 0 : 4; /* files are the other half's business */
}

static int makes_socket(void)
{
	struct err e = {0};

	return sandbox_calls(&e) ? 1 : socket(AF_UNIX, SOCK_STREAM, 0);
}

static int makes_process(void)
{
	struct err e = {0};

	return sandbox_calls(&e) ? 1 : (int)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);
}

static int executes(void)
{
	char *args[] = {"true", NULL};
	struct err e = {0};

	return sandbox_calls(&e) ? 1 : execv("/bin/true", args);
}

static int traces(void)
{
	struct err e = {0};

	return sandbox_calls(&e) ? 1 : (int)syscall(SYS_ptrace, 0, 0, 0, 0);
}

static void system_calls(void **state)
{
	int (*const killed[])(void) = {makes_socket, makes_process, executes, traces};
	bool sanitized = false; /* its run-time library uses signals and calls of its own */

#if defined(__SANITIZE_ADDRESS__)
	sanitized = true;
#endif
	assert_int_equal(in_child(allowed_calls), 0);
	for (unsigned i = 0; i < ARRAY_SIZE(killed) && !sanitized; i++) {
		int status = in_child(killed[i]);

		assert_true(WIFSIGNALED(status));
		assert_int_equal(WTERMSIG(status), SIGSYS);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(confined_to_the_share),
					   cmocka_unit_test(confined_by_landlock),
					   cmocka_unit_test(system_calls)};

	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
