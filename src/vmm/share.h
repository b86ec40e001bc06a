/* Shared folders: the processes that serve them. */
#ifndef VMM_SHARE_H
#define VMM_SHARE_H

#include <sys/types.h>

#include "base/base.h"

/*
 * The guest knows a share by its tag: doppel0, doppel1, ... in the order of --share; doppel-root is the
 * duplicate of this machine's root file system.
 */
enum { SHARES_MAX = 16, SHARE_TAG_MAX = 36 };
/* The most that a share that is only read has of it: large files are read there without a copy of their own. Linux takes 1/64 of it for struct page,
 * so that all of them together are not larger than the memory. */
enum { SHARE_WINDOW = 1 << 30 };
struct machine_share {
	const char *path;
	char tag[SHARE_TAG_MAX];
	bool writable;
	bool no_xattr; /* the guest asks once, then never again: overlayfs asks for each file it looks up */
	const char *cache;  /* auto, always, never; NULL: auto */
	const char *server; /* a virtiofsd; NULL: doppel-fs */
};

/* Starts a server; its connected socket (the caller's), and its process. */
int share_start(const struct machine_share *s, int *sock, pid_t *pid, struct err *e);
/* It has no attributes trusted.*, and says so of each file. */
bool share_is_untrusted(const struct machine_share *s);
/* The socket is closed: the server leaves; waits for that, but not for ever. */
void share_reap(pid_t pid);

#endif
