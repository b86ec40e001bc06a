/* How the server gives up what it does not need. */
#ifndef FS_SANDBOX_H
#define FS_SANDBOX_H

#include "base/base.h"

enum fs_sandbox { FS_SANDBOX_AUTO, FS_SANDBOX_NAMESPACE, FS_SANDBOX_NONE };
struct fs_confine {
	const char *dir;
	bool readonly;
	enum fs_sandbox kind;
};
/* The share becomes all that is there, as far as this process may do that. The root's O_PATH descriptor, or
 * -errno. The working directory is /proc/self/fd afterwards. */
int sandbox_files(const struct fs_confine *c, struct err *e);
/* System calls and capabilities; last, before the first message. */
int sandbox_calls(struct err *e);

#endif
