/*
 * doppel-fs: a directory of this machine for a guest, by FUSE messages (<linux/fuse.h>) in the queues of a
 * virtio-fs device (Virtio 1.2, 5.11).
 *
 * The guest is hostile. It names files by node numbers that this server gave it, and by single names inside
 * such nodes; a name is looked up in a directory's descriptor without following anything (openat2:
 * RESOLVE_BENEATH, O_NOFOLLOW). No path of the guest's making is ever walked. Only regular files and
 * directories are opened; devices, FIFOs and sockets of the share are the guest's own business.
 *
 * What the kernel shows in a share of the whole machine (/proc, /sys) is not the guest's either: with our
 * rights it could look into our processes there. Their mount points are there, as empty directories.
 *
 * A node is known by device, inode, mount and time of birth. It remembers in which directory and under which
 * name it was last seen. Its O_PATH descriptor is opened when first needed and may be closed again, when
 * descriptors get scarce: opening it anew must find the same file, else the answer is ESTALE (the guest then
 * looks up again).
 *
 * Threads: one per queue calls fs_handle(). Lock order: a directory handle's lock, then fs->lock (nodes and
 * handles). No system call that can take long is made under fs->lock, other than opening a node's descriptor.
 */
#ifndef FS_FS_H
#define FS_FS_H

#include <linux/fuse.h>
#include <pthread.h>
#include <sys/stat.h>

#include "base/base.h"
#include "devices/virtio.h" /* the ring; the only reader of descriptors */
#include "fs/fill.h"

enum fs_cache { FS_CACHE_AUTO, FS_CACHE_ALWAYS, FS_CACHE_NEVER };
enum { FS_ARG_MAX = 128 << 10, FS_OUT_MAX = 128 << 10, FS_NAME_MAX = 255, FS_DIRBUF = 8192 };
/* The guest maps files in pieces of this size; of so many we remember something. */
enum { FS_GRANULE = 2 << 20, FS_GRANULES = 1024 };

struct fs_options {
	bool readonly, locks, xattr;
	enum fs_cache cache;
};

/* ---- nodes (node.c) ---- */
struct fs_key {
	u64 dev, ino, mnt, born; /* born: nanoseconds, 0 where the file system does not say */
	u32 type;                /* S_IFMT bits */
};
struct fs_node {
	struct fs_key key;
	u64 id;      /* the guest's name for it: slot + 1, generation above */
	u64 lookups; /* references of the guest */
	u32 refs;    /* ours: requests in flight, handles, nodes that have it as their directory */
	u32 pins;    /* of refs: those that use fd */
	int fd;      /* O_PATH; -1: closed */
	bool closed; /* the kernel's own (proc, sysfs and the like): an empty directory, as far as the guest
			can see */
	struct fs_node *dir; /* where it was last seen; NULL: root, or unlinked (then fd stays open) */
	char *name;
	struct fs_node *hash_next;
	u32 bare;       /* a directory: entries that the guest has seen without attributes, and not asked for */
	u8 dax;         /* enum dax; atomic */
	bool bare_list; /* the list that it may have kept is one of names only */
	s64 listed;     /* and is that of this ctime; 0: it keeps none */
	struct fs_node *older, *newer; /* among those with an fd that can be opened again */
};

/* ---- open files (handle.c) ---- */
struct fs_handle {
	u64 id;
	int fd;
	u32 refs;
	bool dir, writable;
	struct fs_node *node;
	pthread_mutex_t lock; /* the rest: a directory being read */
	u8 *buf;              /* FS_DIRBUF bytes of getdents64 */
	u32 at, end;
	u64 next; /* offset that a reader who goes on will ask for */
	u64 ahead; /* buf was filled ahead, after this request; 0: because it was asked for */
};

struct fs_slot {
	void *p; /* NULL: free */
	u32 generation;
	u32 next_free; /* slot + 1; 0: the last */
};
struct fs_table {
	struct fs_slot *slot;
	u32 n, used, free; /* free: slot + 1 of the first */
};

/* ---- what readers of directories use (habit.c) ---- */
struct fs_habit {
	bool names_only;
	u32 step, count; /* every step-th entry is left bare */
	u32 bare, asked; /* entries without attributes; and those of them that were asked for */
};

struct fs {
	struct fs_options o;
	bool as_root; /* may act as any user */
	bool births;  /* times of birth do not change: on overlayfs they do, when a file is first written */
	dev_t root_dev;
	struct fs_node *root;

	pthread_mutex_t lock;
	bool started; /* FUSE_INIT was answered */
	struct fs_table nodes, handles;
	struct fs_node **hash;
	u32 hash_size; /* power of two */
	struct fs_node *oldest, *newest;
	u32 n_fds, max_fds; /* descriptors of nodes */
	u32 n_handles, max_handles;
	struct fs_habit habit;
	u64 requests; /* so far */

	u64 window; /* bytes of the device's, 0: none; and whom to ask for what is there */
	int window_sock;
	pthread_mutex_t window_lock; /* a question and its answer; and: */
	u64 window_used[FS_GRANULES / 64];  /* pieces that the guest has */
	u64 window_stale[FS_GRANULES / 64]; /* those that it has given back, or not yet asked for, and that show a file */
	struct fs_mapping {
		u64 node, file_offset, offset; /* in the window */
	} mapped_ahead;			       /* node 0: nothing is */
};

/* root_fd (O_PATH) is the fs's if it succeeds. The process' working directory must be /proc/self/fd, so that
 * a descriptor's number is the path of its file: that is how nodes are opened, and what calls that know no
 * descriptors are given. */
int fs_open(struct fs *fs, const struct fs_options *o, int root_fd, struct err *e);
void fs_close(struct fs *fs);
void fs_forget_all(struct fs *fs); /* everything but the root: the guest starts anew, or is gone */

/* ---- requests (request.c) ---- */
struct fs_thread { /* a worker's scratch memory */
	struct fs *fs;
	struct fill_ram *ram; /* the memory that chains point to; NULL: other */
	struct fill_pipe pipe;
	struct fs_handle *ahead; /* a directory whose next entries will be asked for; a reference */
	u64 ahead_of;		 /* the request that says so */
	struct fs_mapping to_map; /* what will be asked for, if the file is read in order; node 0: nothing */
	struct virtq_chain chain;
	struct iovec iov[VIRTQ_SIZE_MAX];
	u8 arg[FS_ARG_MAX];
	u8 out[FS_OUT_MAX];
};
/* Serves one request; the number of bytes written to the chain. */
u32 fs_handle(struct fs_thread *t, const struct virtq_chain *c);
/* While nothing else is to be done. */
void fs_work_ahead(struct fs_thread *t);
/* After a while without requests: whether there is something to do then; and doing it. */
bool fs_untidy(struct fs *fs);
void fs_tidy(struct fs *fs);

#endif
