/*
 * Starts a session's command. The session's process leads a POSIX session and holds the terminal; the command is a process
 * group of its own in there, in the foreground. So Ctrl-Z stops it as in any shell: a group whose leader's parent is
 * outside of the session would be orphaned, and the kernel stops no orphans.
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include "guest/session_int.h"

struct setup {
	int slave;
	int in[2], out[2], err[2], failed[2]; /* [0] is read from */
};

static int open_terminal(const struct request *r, struct command *c, struct setup *s)
{
	struct winsize w = {.ws_row = (unsigned short)r->rows, .ws_col = (unsigned short)r->columns};
	struct termios t;
	char name[64];

	c->terminal = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
	if (c->terminal < 0 || grantpt(c->terminal) < 0 || unlockpt(c->terminal) < 0 || ptsname_r(c->terminal, name, sizeof(name)))
		return -errno;
	s->slave = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (s->slave < 0 || ioctl(s->slave, TIOCSWINSZ, &w) < 0)
		return -errno;
	if (fchown(s->slave, r->uid, (gid_t)-1) < 0)
		return -errno;
	if (!(r->tty & TTY_INPUT) && tcgetattr(s->slave, &t) == 0) {
		t.c_oflag &= (tcflag_t)~OPOST; /* the host's terminal is not raw then and does this itself */
		tcsetattr(s->slave, TCSANOW, &t);
	}
	return ioctl(s->slave, TIOCSCTTY, 0) < 0 ? -errno : 0;
}

static int make_pipes(const struct request *r, struct setup *s)
{
	if (!(r->tty & TTY_INPUT) && pipe2(s->in, O_CLOEXEC) < 0)
		return -errno;
	if (!(r->tty & TTY_OUTPUT) && pipe2(s->out, O_CLOEXEC) < 0)
		return -errno;
	if (!(r->tty & TTY_ERROR) && pipe2(s->err, O_CLOEXEC) < 0)
		return -errno;
	return pipe2(s->failed, O_CLOEXEC) < 0 ? -errno : 0;
}

static int become(const struct request *r)
{
	gid_t groups[REQUEST_GROUPS];

	for (unsigned i = 0; i < r->n_groups; i++)
		groups[i] = r->groups[i];
	umask(r->umask);
	return setgroups(r->n_groups, groups) < 0 || setresgid(r->gid, r->gid, r->gid) < 0 ||
			       setresuid(r->uid, r->uid, r->uid) < 0
		       ? -errno
		       : 0;
}

/* What a shell says: 127 not found, 126 found and cannot be executed. */
static void __attribute__((noreturn)) tell(const struct setup *s, const char *what)
{
	char text[160];
	int e = errno, n = snprintf(text, sizeof(text), "%c%s", e, what);

	if (write(s->failed[1], text, (size_t)n) < 0)
		_exit(127);
	_exit(e == ENOENT ? 127 : 126);
}

static void __attribute__((noreturn)) child(const struct request *r, const struct setup *s)
{
	char text[128];
	sigset_t none;

	setpgid(0, 0);
	if (s->slave >= 0)
		tcsetpgrp(s->slave, getpid()); /* SIGTTOU is still blocked */
	dup2(s->in[0] >= 0 ? s->in[0] : s->slave, 0);
	dup2(s->out[1] >= 0 ? s->out[1] : s->slave, 1);
	dup2(s->err[1] >= 0 ? s->err[1] : s->slave, 2);
	for (int sig = 1; sig < NSIG; sig++)
		if (sig != SIGKILL && sig != SIGSTOP)
			signal(sig, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	prctl(PR_SET_PDEATHSIG, 0);
	if (become(r) < 0)
		tell(s, "cannot become the user");
	if (chdir(r->cwd ? r->cwd : "/") < 0) {
		int e = errno;

		snprintf(text, sizeof(text), "working directory %s", r->cwd ? r->cwd : "/");
		errno = e;
		tell(s, text);
	}
	environ = r->env.v;
	execvp(r->argv.v[0], r->argv.v);
	tell(s, r->argv.v[0]);
}

static void close_all(struct setup *s, bool ours)
{
	int *theirs[] = {&s->in[0], &s->out[1], &s->err[1], &s->failed[1], &s->slave};
	int *mine[] = {&s->in[1], &s->out[0], &s->err[0], &s->failed[0]};

	for (unsigned i = 0; i < 5; i++) {
		if (*theirs[i] >= 0)
			close(*theirs[i]);
		*theirs[i] = -1;
	}
	for (unsigned i = 0; ours && i < 4; i++)
		if (*mine[i] >= 0)
			close(*mine[i]);
}

/* The execve has happened when the pipe ends without a word. */
static int wait_exec(struct setup *s, const char **what)
{
	static char text[160];
	ssize_t n = read(s->failed[0], text, sizeof(text) - 1);

	close(s->failed[0]);
	s->failed[0] = -1;
	if (n <= 0)
		return 0;
	text[n] = 0;
	*what = text + 1;
	return -(unsigned char)text[0];
}

int command_start(const struct request *r, struct command *c, const char **what)
{
	struct setup s = {.slave = -1, .in = {-1, -1}, .out = {-1, -1}, .err = {-1, -1}, .failed = {-1, -1}};
	int e;

	*c = (struct command){.terminal = -1, .in = -1, .out = -1, .err = -1};
	*what = "terminal";
	setsid();
	e = r->tty ? open_terminal(r, c, &s) : 0;
	if (!e) {
		*what = "pipes";
		e = make_pipes(r, &s);
	}
	if (!e) {
		*what = "process";
		c->pid = fork();
		if (c->pid == 0)
			child(r, &s);
		e = c->pid < 0 ? -errno : 0;
	}
	close_all(&s, e != 0);
	if (!e)
		e = wait_exec(&s, what);
	if (e)
		return e;
	c->in = s.in[1];
	c->out = s.out[0];
	c->err = s.err[0];
	for (unsigned i = 0; i < 3; i++) {
		int fd = i == 0 ? c->in : i == 1 ? c->out : c->err;

		if (fd >= 0)
			fcntl(fd, F_SETFL, O_NONBLOCK);
	}
	return 0;
}
