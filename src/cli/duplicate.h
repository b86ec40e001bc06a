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
	bool diff, bare;
};
int duplicate_parse_env(struct duplicate_options *o, const char *value, struct err *e);

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
int duplicate_session(const struct duplicate *d, const char *name, char **command, const struct session_vm *vm,
		      struct session_result *out, struct err *e);
/* An operation of the agent; sink gets its output, NULL: it has none. */
int duplicate_operation(const char *name, u32 operation, char **args, session_sink *sink, void *arg, struct err *e);

#endif
