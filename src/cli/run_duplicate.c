/*
 * doppel run -- COMMAND. This process keeps the terminal and has the session; the VM is its child, in a POSIX session of its own,
 * where the terminal's keys do not reach it, and ends with this process however that ends: when a pipe closes.
 */
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include "cli/changes.h"
#include "cli/cli.h"
#include "cli/detach.h"
#include "cli/duplicate.h"

enum { OUTPUT_MAX = 16 << 20 /* of a detached command, in the log */, LAST_WAIT_MS = 2000 };

struct child {
	pid_t pid;
	int messages; /* what the VM's process says */
	int life;     /* closed: the VM ends */
	bool spoke;   /* it said something in the end */
};

static void __attribute__((noreturn)) become_vm(struct duplicate_run *x, struct duplicate *d, const int messages[2],
						const int life[2], int ready_fd)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	setsid();
	close(messages[0]);
	close(life[1]);
	dup2(null, STDIN_FILENO);
	dup2(null, STDOUT_FILENO);
	dup2(messages[1], STDERR_FILENO);
	close(messages[1]);
	close(null);
	exit(x->vm(x->arg, d, life[0], ready_fd));
}

static int start_vm(struct duplicate_run *x, struct duplicate *d, int ready_fd, struct child *c, struct err *e)
{
	int messages[2], life[2];

	if (pipe2(messages, O_CLOEXEC) < 0)
		return err_set(e, errno, "run: %s", strerror(errno));
	if (pipe2(life, O_CLOEXEC) < 0 || (c->pid = fork()) < 0) {
		int error = errno;

		close(messages[0]);
		close(messages[1]);
		return err_set(e, error, "run: cannot start a process: %s", strerror(error));
	}
	if (!c->pid)
		become_vm(x, d, messages, life, ready_fd);
	close(messages[1]);
	close(life[0]);
	close(x->in->lock_fd); /* the VM's process has it */
	x->in->lock_fd = -1;
	c->messages = messages[0];
	c->life = life[1];
	return 0;
}

/* A guest that powers itself off takes its agent away first: its VM is about to end by itself, and to say so. */
static void let_it_end(const struct child *c)
{
	struct pollfd p = {.fd = c->messages}; /* hung up: it has ended */

	poll(&p, 1, LAST_WAIT_MS);
}

/* Ends the VM; its last messages; its status. */
static int end_vm(struct child *c)
{
	char buf[512];
	ssize_t n = 0;
	int status = 0;

	close(c->life);
	while ((n = read(c->messages, buf, sizeof(buf))) > 0 || (n < 0 && errno == EINTR))
		if (n > 0)
			c->spoke = fwrite(buf, 1, (size_t)n, stderr) > 0;
	close(c->messages);
	while (waitpid(c->pid, &status, 0) < 0 && errno == EINTR)
		;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* What is written is to reach the host before the VM may go. */
static int finish(struct duplicate_run *x, struct err *e)
{
	bool writes = x->o->keep != NULL;

	for (u32 i = 0; i < x->o->n_shares; i++)
		writes |= x->o->share[i].share.writable;
	return writes ? duplicate_operation(x->in->name, OP_SYNC, NULL, NULL, NULL, e) : 0;
}

static int guest_left(const char *command, bool said_why)
{
	if (!said_why)
		log_msg(LOG_ERROR, "%s: the guest was gone before it ended (shut down, halted, or its agent was killed)", command);
	return EXIT_DOPPEL;
}

/* What the VM's process says when it ends before its time is enough for both of us. */
static int status_of(const struct session_result *r, const struct child *c, int vm_status, const char *command)
{
	if (r->end == SESSION_LOST && vm_status)
		return vm_status;
	if (r->end == SESSION_LOST)
		return guest_left(command, c->spoke);
	return session_status(r, command);
}

/* The VM is there for what asks its agent (doppel diff of a duplicate that does not run). */
static int with_work(struct duplicate_run *x, struct duplicate *d)
{
	struct child c = {0};
	struct err e = {0};
	int ret = start_vm(x, d, -1, &c, &e), vm_status = 0;

	if (ret) {
		instance_release(x->in);
		return cli_fail(&e);
	}
	ret = x->work(x->work_arg, x->in->name, &e);
	vm_status = end_vm(&c);
	if (ret)
		return vm_status ? vm_status : cli_fail(&e);
	return 0;
}

static int with_session(struct duplicate_run *x, struct duplicate *d, int ready_fd, const struct duplicate_command *command)
{
	struct child c = {0};
	struct session_result result = {0};
	bool ended = false;
	struct session_vm vm = {.ended = &ended};
	struct err e = {0};
	int ret = start_vm(x, d, ready_fd, &c, &e), vm_status = 0;

	if (ready_fd >= 0)
		close(ready_fd);
	if (ret) {
		instance_release(x->in);
		return cli_fail(&e);
	}
	vm.messages = c.messages;
	ret = duplicate_session(&d->user, d->cwd, x->in->name, command, &vm, &result, &e);
	if (!ret && result.end <= SESSION_SIGNAL && x->o->diff)
		ret = print_changes(x->in->name, stderr, &e);
	if (!ret && result.end <= SESSION_SIGNAL)
		ret = finish(x, &e);
	if (!ret && result.end == SESSION_LOST)
		let_it_end(&c);
	vm_status = end_vm(&c);
	if (ret)
		return cli_fail(&e);
	return status_of(&result, &c, vm_status, command->argv ? command->argv[0] : d->user.shell);
}

/* ---- in the background ---- */
struct output {
	int fd;
	u64 n;
};

static int keep_output(void *arg, int fd, const u8 *p, size_t n)
{
	struct output *o = arg;

	if (o->n + n <= OUTPUT_MAX && write_all(o->fd, p, n) == 0)
		o->n += n;
	return 0; /* what is too much is lost; the command goes on */
}

static int supervise(struct duplicate_run *x, struct duplicate *d, int ready_fd)
{
	struct output o = {0};
	char path[PATHS_MAX + 64];
	const struct duplicate_command c = {.argv = x->command, .no_input = true, .sink = keep_output, .arg = &o};

	leave_terminal(x->in);
	snprintf(path, sizeof(path), "%s/output", x->in->dir);
	o.fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	return with_session(x, d, ready_fd, &c);
}

static int detach(struct duplicate_run *x, struct duplicate *d)
{
	int fds[2];
	pid_t pid = 0;

	if (pipe2(fds, O_CLOEXEC) < 0 || (pid = fork()) < 0) {
		log_msg(LOG_ERROR, "run: cannot start a process: %s", strerror(errno));
		instance_release(x->in);
		return EXIT_DOPPEL;
	}
	if (!pid) {
		close(fds[0]);
		if (x->command)
			exit(supervise(x, d, fds[1]));
		leave_terminal(x->in);
		exit(x->vm(x->arg, d, -1, fds[1]));
	}
	close(fds[1]);
	return wait_for_vm(fds[0], x->in->name);
}

int duplicate_run(struct duplicate_run *x)
{
	const struct duplicate_command c = {.argv = x->command};
	struct duplicate d;
	struct err e = {0};
	int ret = duplicate_prepare(&d, x->o, x->in, &e);

	if (ret) {
		instance_release(x->in);
		return cli_fail(&e);
	}
	ret = x->work ? with_work(x, &d) : x->detach ? detach(x, &d) : with_session(x, &d, -1, &c);
	duplicate_free(&d);
	return ret;
}
