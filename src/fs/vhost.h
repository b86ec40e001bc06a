/* The back-end of vhost-user: the front-end's memory, its queues, a thread for each. */
#ifndef FS_VHOST_H
#define FS_VHOST_H

#include "fs/fs.h"

/* Serves one front-end on a connected socket until it goes away. 0, or -errno with e. */
int vhost_serve(struct fs *fs, int sock, struct err *e);

#endif
