/*
 * Terminal and signals of a session. The terminal is raw while the command runs in the foreground: then Ctrl-C and Ctrl-Z are
 * bytes for the guest's terminal, which makes signals of them there. Where no terminal is input, they are signals here, and go on as
 * such.
 */
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <unistd.h>
#include "base/term.h"
#include "cli/session_int.h"

static const int forwarded[] = {SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGTSTP, SIGCONT, SIGWINCH};

u32 session_terminals(bool no_input)
{
	u32 tty = 0;

	for (int fd = no_input ? 1 : 0; fd < 3; fd++)
		if (isatty(fd))
			tty |= TTY_INPUT << fd;
	return tty;
}

void session_tty_size(u32 *rows, u32 *columns)
{
	u16 c = 0, r = 0;

	*rows = 24;
	*columns = 80;
	for (int fd = 0; fd < 3; fd++) {
		if (term_size(fd, &c, &r)) {
			*rows = r;
			*columns = c;
			return;
		}
	}
}

static void block(int how)
{
	sigset_t set;

	sigemptyset(&set);
	for (u32 i = 0; i < ARRAY_SIZE(forwarded); i++)
		sigaddset(&set, forwarded[i]);
	sigprocmask(how, &set, NULL);
}

int session_signals_open(struct session *s)
{
	sigset_t set;

	block(SIG_BLOCK);
	sigemptyset(&set);
	for (u32 i = 0; i < ARRAY_SIZE(forwarded); i++)
		sigaddset(&set, forwarded[i]);
	s->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return s->signals < 0 ? -errno : 0;
}

void session_signals_close(struct session *s)
{
	if (s->signals >= 0)
		close(s->signals);
	s->signals = -1;
	block(SIG_UNBLOCK);
}

void session_raw(struct session *s, bool on)
{
	if (!(s->tty & TTY_INPUT) || on == s->raw)
		return;
	if (on && tcgetpgrp(STDIN_FILENO) != getpgrp())
		return; /* in the background; SIGCONT comes with the foreground */
	if (on)
		s->raw = term_raw(STDIN_FILENO) == 0;
	else
		term_restore();
	s->raw = s->raw && on;
}

static void send_size(struct session *s)
{
	u32 size[2];

	session_tty_size(&size[0], &size[1]);
	session_put_u32(s, F_SIZE, size, 2);
}

static void send_signal(struct session *s, int sig)
{
	u32 v = (u32)sig;

	session_put_u32(s, F_SIGNAL, &v, 1);
}

/* A command that has not started cannot be told anything: then we end. */
void session_on_signal(struct session *s)
{
	struct signalfd_siginfo si;

	while (read(s->signals, &si, sizeof(si)) == sizeof(si)) {
		int sig = (int)si.ssi_signo;

		if (sig == SIGWINCH) {
			if (s->tty)
				send_size(s);
		} else if (sig == SIGCONT) {
			session_raw(s, s->started);
		} else if (s->started) {
			s->stop_came |= sig == SIGTSTP;
			send_signal(s, sig);
		} else if (sig == SIGTSTP) {
			session_stopped(s, sig);
		} else {
			s->over = true;
			*s->result = (struct session_result){.end = SESSION_KILLED, .value = sig};
		}
	}
}

void session_stopped(struct session *s, int sig)
{
	bool alone = s->stop_came || !s->started;

	s->stop_came = false;
	session_raw(s, false);
	if (alone) { /* the others of our group have been told by who told us */
		raise(SIGSTOP);
	} else {
		sigset_t set;

		sigemptyset(&set);
		sigaddset(&set, SIGTSTP);
		kill(0, SIGTSTP); /* as the terminal would have done */
		sigprocmask(SIG_UNBLOCK, &set, NULL);
		sigprocmask(SIG_BLOCK, &set, NULL);
	}
	session_raw(s, s->started);
	if (s->tty)
		send_size(s);
	if (s->started)
		send_signal(s, SIGCONT);
}
