/*
 * What makes a VM a duplicate of this machine: kernel, initramfs and its configuration, layer, shares, the socket of its agent. The
 * VM's process boots it; the process that was started as `doppel run` has the session (cli/session.h).
 */
#ifndef CLI_DUPLICATE_H
#define CLI_DUPLICATE_H

#include "cli/guest.h"
#include "cli/layer.h"
#include "cli/session.h"
#include "cli/share.h"
#include "cli/user.h"
#include "vmm/instance.h"
#include "vmm/machine.h"

enum { DUPLICATE_ENV_MAX = 256 };

struct duplicate_options {
	const struct share_option *share;
	u32 n_shares;
	char *env[DUPLICATE_ENV_MAX]; /* not ours */
	u32 n_env;
	const char *workdir, *user, *keep;
	bool must_exist; /* keep */
	bool net, net_user; /* there is a card; the first is doppel-net's */
	bool diff, bare;
};
int duplicate_parse_env(struct duplicate_options *o, const char *value, struct err *e);

/* The command's directory: workdir, else ours. */
int duplicate_cwd(const char *workdir, char *buf, size_t n, struct err *e);

struct duplicate {
	const struct duplicate_options *o;
	struct layer layer;
	struct guest guest;
	struct user user;
	char cwd[PATH_MAX];
	int listen_fd; /* the vsock socket */
	bool serial;   /* the console is a serial line */
};
/* Everything that can fail is done or found out here, before there is a VM. */
int duplicate_prepare(struct duplicate *d, const struct duplicate_options *o, const struct instance *in, struct err *e);
void duplicate_free(struct duplicate *d);
/* In the VM's process: its part of the machine. May start processes; before the sandbox. */
int duplicate_machine(struct duplicate *d, const struct instance *in, struct machine_config *cfg, struct err *e);

/* One session in the VM of that name; `command` starts with its program, NULL: the user's shell. */
struct duplicate_command {
	char **argv;
	bool no_input;
	session_sink *sink; /* NULL: output is passed through */
	void *arg;
};
int duplicate_session(const struct user *u, const char *cwd, const char *name, const struct duplicate_command *c,
		      const struct session_vm *vm, struct session_result *out, struct err *e);
/* An operation of the agent; sink gets its output, NULL: it has none. */
int duplicate_operation(const char *name, u32 operation, char **args, session_sink *sink, void *arg, struct err *e);

struct console;
/* Its VM has ended by itself: says why, as far as the console tells. */
void duplicate_tell_end(struct console *c, const char *reason);
u64 run_default_memory(bool duplicate);

/* ---- run_duplicate.c: all of `doppel run -- COMMAND` ---- */
struct duplicate_run {
	struct instance *in; /* claimed */
	const struct duplicate_options *o;
	char **command;      /* NULL: a shell; with detach nothing */
	bool detach;
	/* Instead of a command, done while the VM runs; 0 or -errno. NULL: the command */
	int (*work)(void *arg, const char *vm, struct err *e);
	void *work_arg;
	/* Becomes the VM, in a child. It ends when life_fd's other end closes (-1: by itself); ready_fd as of wait_for_vm(), or -1 */
	int (*vm)(void *arg, struct duplicate *d, int life_fd, int ready_fd);
	void *arg;
};
int duplicate_run(struct duplicate_run *x); /* the status to exit with */

/* ---- run.c ---- */
/* Does the work with a VM on the kept layer of that name; the status to exit with. */
int run_on_layer(const char *keep, int (*work)(void *arg, const char *vm, struct err *e), void *arg);

/* ---- diff.c ---- */
int print_changes(const char *vm, void *file, struct err *e);

#endif
