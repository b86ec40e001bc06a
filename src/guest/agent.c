/*
 * Listens, starts a process per session, buries the dead. The socket listens before the transport's driver is there: a host
 * connection that waits for the driver then finds the agent, and nobody has to try again.
 */
#include <errno.h>
#include <linux/vm_sockets.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/reboot.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "guest/agent.h"
#include "guest/init.h"
#include "guest/operations.h"

static int listen_vsock(void)
{
	const struct sockaddr_vm a = {.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY, .svm_port = AGENT_PORT};
	int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || bind(fd, (const struct sockaddr *)&a, sizeof(a)) < 0 || listen(fd, 64) < 0)
		return -1;
	return fd;
}

static void start_session(const struct agent *a, int listener)
{
	struct sockaddr_vm peer;
	socklen_t n = sizeof(peer);
	int sock = accept4(listener, (struct sockaddr *)&peer, &n, SOCK_CLOEXEC);
	pid_t pid;

	if (sock < 0)
		return;
	pid = peer.svm_cid == VMADDR_CID_HOST ? fork() : -1; /* only the host is obeyed */
	if (pid == 0) {
		close(listener);
		session_serve(a, sock);
		_exit(0);
	}
	close(sock);
}

/* SIGUSR1, SIGUSR2 and SIGTERM are what busybox's halt, poweroff and reboot send to process 1. */
static void on_signal(const struct agent *a, int fd)
{
	struct signalfd_siginfo si;

	if (read(fd, &si, sizeof(si)) != sizeof(si))
		return;
	if (si.ssi_signo == SIGCHLD) {
		while (waitpid(-1, NULL, WNOHANG) > 0)
			;
	} else if (si.ssi_signo == SIGTERM) {
		agent_sync(a);
		reboot(RB_AUTOBOOT);
	} else {
		agent_power_off(a);
	}
}

void agent_serve(const struct agent *a)
{
	struct pollfd p[3] = {{.events = POLLIN}, {.events = POLLIN}, {.events = POLLIN}};
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, SIGUSR2);
	sigprocmask(SIG_BLOCK, &set, NULL);
	p[0].fd = listen_vsock();
	p[1].fd = signalfd(-1, &set, SFD_CLOEXEC);
	p[2].fd = power_button_open();
	if (p[0].fd < 0 || p[1].fd < 0)
		return;
	errno = a->transport < 0 ? ENOENT : -load_module(a->transport);
	if (errno)
		return;
	if (a->late >= 0)
		close(a->late);
	for (;;) {
		if (poll(p, 3, -1) < 0 && errno != EINTR)
			return;
		if (p[0].revents)
			start_session(a, p[0].fd);
		if (p[1].revents)
			on_signal(a, p[1].fd);
		if (p[2].revents && power_button_read(p[2].fd) == 1)
			agent_power_off(a);
	}
}
