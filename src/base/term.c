/*
 * Raw mode. The saved state is file-scope because exit and fatal signal handlers need it. A fatal signal restores the terminal and
 * is then raised again with its default action, so that the exit status and core file are as without us. SIGKILL cannot be caught:
 * for that a child waits on a pipe, whose other end closes with us.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>
#include "base/term.h"

static struct termios saved;
static volatile sig_atomic_t raw_fd = -1, guard_fd = -1, guard_pid;

void term_restore(void)
{
	int fd = raw_fd, e = errno;

	raw_fd = -1;
	if (fd >= 0)
		tcsetattr(fd, TCSANOW, &saved);
	if (guard_fd >= 0) {
		if (write(guard_fd, "", 1) == 1)
			waitpid(guard_pid, NULL, 0);
		close(guard_fd);
		guard_fd = -1;
	}
	errno = e;
}

/*
 * Keeps nothing of ours open (the VM's lock, the engine's socket), or we would live on in it. With SIGTTOU blocked it may set the
 * terminal from the background, where it is once the shell has noticed our end.
 */
static void __attribute__((noreturn)) guard(int tty, int pipe)
{
	char c = 0;

	tty = dup(tty); /* neither may be the other's number */
	pipe = dup(pipe);
	if (tty < 0 || pipe < 0)
		_exit(1);
	close_range(0, (unsigned)MIN(tty, pipe) - 1, 0);
	close_range((unsigned)MAX(tty, pipe) + 1, ~0u, 0);
	for (int fd = MIN(tty, pipe) + 1; fd < MAX(tty, pipe); fd++)
		close(fd);
	prctl(PR_SET_NAME, "doppel-term");
	if (read(pipe, &c, 1) == 0)
		tcsetattr(tty, TCSANOW, &saved);
	_exit(0);
}

/* Without it (no process to be had) only SIGKILL leaves the terminal raw. */
static void start_guard(int tty)
{
	int fds[2];
	pid_t pid = 0;
	sigset_t all, before;

	if (pipe2(fds, O_CLOEXEC) < 0)
		return;
	/* before it is born: our end may bring it a SIGHUP at once */
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &before);
	pid = fork();
	if (pid == 0) {
		close(fds[1]);
		guard(tty, fds[0]);
	}
	sigprocmask(SIG_SETMASK, &before, NULL);
	close(fds[0]);
	if (pid < 0) {
		close(fds[1]);
		return;
	}
	guard_pid = pid;
	guard_fd = fds[1];
}

static void on_fatal(int sig)
{
	term_restore();
	raise(sig); /* SA_RESETHAND: the default action now, once the handler returns */
}

static void catch_fatal(void)
{
	static const int fatal[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGSYS, SIGQUIT};
	struct sigaction sa = {.sa_handler = on_fatal, .sa_flags = (int)SA_RESETHAND};

	for (u32 i = 0; i < ARRAY_SIZE(fatal); i++)
		sigaction(fatal[i], &sa, NULL);
}

int term_raw(int fd)
{
	static bool registered;
	struct termios t;

	if (raw_fd >= 0)
		return -EBUSY;
	if (tcgetattr(fd, &saved) < 0)
		return -errno;
	if (!registered) {
		atexit(term_restore);
		catch_fatal();
		registered = true;
	}
	start_guard(fd);
	t = saved;
	cfmakeraw(&t);
	raw_fd = fd;
	if (tcsetattr(fd, TCSANOW, &t) < 0) {
		int e = errno;

		term_restore();
		return -e;
	}
	return 0;
}

bool term_size(int fd, u16 *cols, u16 *rows)
{
	struct winsize w;

	if (ioctl(fd, TIOCGWINSZ, &w) < 0 || !w.ws_col || !w.ws_row)
		return false;
	*cols = w.ws_col;
	*rows = w.ws_row;
	return true;
}
