/* One session of the agent: a process of its own that serves one connection and ends. */
#ifndef GUEST_SESSION_H
#define GUEST_SESSION_H

enum { SHARES_MAX = 16 };

/* The layer of the duplicate; -1: there is none. */
struct layer {
	int upper, lower; /* directories: what was written, and the machine below */
};
struct shares {
	int fd[SHARES_MAX];           /* read-write ones; to be written out before the end */
	unsigned n;
	const char *path[SHARES_MAX]; /* of all */
	unsigned n_paths;
};
struct agent {
	struct layer layer;
	struct shares shares;
	int transport; /* the driver that lets the host in, not yet loaded */
	int late;      /* closed: the drivers nobody waits for are loaded */
	int temporary; /* nobody will look at the layer again: it need not be written out */
};

/* In a process of its own. Returns when the session is over. */
void session_serve(const struct agent *a, int sock);

#endif
