/* The host's end of a session with the agent in a duplicate: terminal, pipes and signals of this process for a command there. */
#ifndef CLI_SESSION_H
#define CLI_SESSION_H

#include "base/base.h"
#include "guest/proto.h"

struct session_request {
	u32 operation; /* enum operation */
	char **argv, **env;
	const char *cwd;
	u32 uid, gid, umask;
	u32 *groups;
	u32 n_groups;
	bool no_input;  /* standard input is not the command's */
};

/* The VM behind the connection, if it is this process's own; -1: none. */
struct session_vm {
	int messages; /* what it says; passed on to standard error */
	bool *ended;  /* the messages ended: it is gone */
};

enum session_end {
	SESSION_STATUS, /* value: exit status */
	SESSION_SIGNAL, /* value: signal number */
	SESSION_FAILED, /* the command was not started: value is the errno, text what */
	SESSION_LOST,   /* the VM ended or the connection broke */
	SESSION_KILLED, /* this process was told to end (value: signal) before the command ran */
};
struct session_result {
	enum session_end end;
	int value;
	char text[512];
};
/* Where output (fd 1 or 2) goes that is not simply passed on; -errno ends the session. */
typedef int session_sink(void *arg, int fd, const u8 *p, size_t n);

/*
 * vsock: the VM's Unix socket, connected. Returns when the session is over. sink NULL: output to standard output and error,
 * with terminal and signals passed through.
 */
int session_run(int vsock, const struct session_request *q, const struct session_vm *vm, session_sink *sink, void *arg,
		struct session_result *out, struct err *e);
/* The status a shell would give; says on stderr what is to be said. */
int session_status(const struct session_result *r, const char *command);

#endif
