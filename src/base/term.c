/*
 * Raw mode. The saved state is file-scope because exit and fatal signal handlers need it. A fatal signal restores the terminal and
 * is then raised again with its default action, so that the exit status and core file are as without us.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>
#include "base/term.h"

static struct termios saved;
static volatile sig_atomic_t raw_fd = -1;

void term_restore(void)
{
	int fd = raw_fd, e = errno;

	raw_fd = -1;
	if (fd >= 0)
		tcsetattr(fd, TCSANOW, &saved);
	errno = e;
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
	t = saved;
	cfmakeraw(&t);
	raw_fd = fd;
	if (tcsetattr(fd, TCSANOW, &t) < 0) {
		raw_fd = -1;
		return -errno;
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
