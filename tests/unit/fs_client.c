#include "fs_client.h"

#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void client_open(struct fs_client *c, const struct fs_options *o)
{
	struct err e = {0};

	memset(c, 0, sizeof(*c));
	strcpy(c->dir, "/tmp/doppel-fs-test.XXXXXX");
	if (!mkdtemp(c->dir) || chdir("/proc/self/fd") < 0)
		abort();
	chmod(c->dir, 0755);
	umask(0);
	if (fs_open(&c->fs, o, open(c->dir, O_PATH | O_DIRECTORY), &e))
		abort();
	c->t = calloc(1, sizeof(*c->t));
	c->t->fs = &c->fs;
	c->room = sizeof(c->out);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *f)
{
	return remove(path);
}

void client_close(struct fs_client *c)
{
	int root = c->fs.root->fd;

	fs_close(&c->fs);
	close(root);
	free(c->t);
	nftw(c->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

const char *client_path(struct fs_client *c, const char *name)
{
	static char path[8][512];
	static unsigned next;
	char *p = path[next++ % 8];

	snprintf(p, sizeof(path[0]), "%s/%s", c->dir, name);
	return p;
}

void client_begin(struct fs_client *c, u32 opcode, u64 node)
{
	struct fuse_in_header h = {
	    .opcode = opcode, .unique = ++c->unique, .nodeid = node, .uid = c->uid, .gid = c->gid};

	c->in_len = 0;
	client_add(c, &h, sizeof(h));
}

void client_add(struct fs_client *c, const void *p, u32 n)
{
	if (n > sizeof(c->in) - c->in_len)
		abort();
	memcpy(c->in + c->in_len, p, n);
	c->in_len += n;
	((struct fuse_in_header *)c->in)->len = c->in_len;
}

void client_add_name(struct fs_client *c, const char *name)
{
	client_add(c, name, (u32)strlen(name) + 1);
}

static unsigned cut(struct iovec *iov, u8 *p, u32 n, u32 split)
{
	unsigned k = 0;

	for (u32 at = 0; at < n; k++) {
		u32 now = split && k < VIRTQ_SIZE_MAX / 2 - 1 ? MIN(split, n - at) : n - at;

		iov[k] = (struct iovec){p + at, now};
		at += now;
	}
	return k;
}

int client_send(struct fs_client *c)
{
	struct virtq_chain *chain = &c->t->chain;
	struct fuse_out_header h = {0};

	chain->n_out = cut(chain->iov, c->in, c->in_len, c->split);
	chain->n_in = cut(chain->iov + chain->n_out, c->out, c->room, c->split);
	chain->out_bytes = c->in_len;
	chain->in_bytes = c->room;
	memset(c->out, 0xaa, sizeof(c->out));
	u32 n = fs_handle(c->t, chain);
	fs_work_ahead(c->t);

	c->reply_len = 0;
	if (!n)
		return 1; /* no answer */
	memcpy(&h, c->out, sizeof(h));
	if (h.len != n || h.unique != c->unique || h.error > 0 || (h.error && n != sizeof(h)) || n > c->room)
		abort();
	c->reply = c->out + sizeof(h);
	c->reply_len = n - (u32)sizeof(h);
	return h.error;
}

int client_call(struct fs_client *c, u32 opcode, u64 node, const void *arg, u32 n, const char *name)
{
	client_begin(c, opcode, node);
	if (n)
		client_add(c, arg, n);
	if (name)
		client_add_name(c, name);
	return client_send(c);
}

void client_init(struct fs_client *c)
{
	struct fuse_init_in in = {.major = 7, .minor = 37, .max_readahead = 1 << 17, .flags = UINT32_MAX};

	if (client_call(c, FUSE_INIT, 0, &in, sizeof(in), NULL))
		abort();
}

int client_lookup(struct fs_client *c, u64 dir, const char *name, struct fuse_entry_out *e)
{
	int ret = client_call(c, FUSE_LOOKUP, dir, NULL, 0, name);

	memset(e, 0, sizeof(*e));
	if (!ret)
		memcpy(e, c->reply, sizeof(*e));
	return ret;
}

u64 client_find(struct fs_client *c, u64 dir, const char *name)
{
	struct fuse_entry_out e;

	return client_lookup(c, dir, name, &e) ? 0 : e.nodeid;
}

int client_openat(struct fs_client *c, u32 opcode, u64 node, u32 flags, u64 *fh)
{
	struct fuse_open_in in = {.flags = flags};
	int ret = client_call(c, opcode, node, &in, sizeof(in), NULL);

	*fh = 0;
	if (!ret)
		memcpy(fh, c->reply, sizeof(*fh));
	return ret;
}

int client_create(struct fs_client *c, u64 dir, const char *name, u32 flags, u32 mode, u64 *node, u64 *fh)
{
	struct fuse_create_in in = {.flags = flags, .mode = mode};
	int ret = client_call(c, FUSE_CREATE, dir, &in, sizeof(in), name);

	*node = *fh = 0;
	if (!ret) {
		memcpy(node, c->reply, sizeof(*node));
		memcpy(fh, c->reply + sizeof(struct fuse_entry_out), sizeof(*fh));
	}
	return ret;
}

int client_read(struct fs_client *c, u64 node, u64 fh, u64 offset, u32 size)
{
	struct fuse_read_in in = {.fh = fh, .offset = offset, .size = size};

	return client_call(c, FUSE_READ, node, &in, sizeof(in), NULL);
}

int client_write(struct fs_client *c, u64 node, u64 fh, u64 offset, const void *p, u32 n)
{
	struct fuse_write_in in = {.fh = fh, .offset = offset, .size = n};

	client_begin(c, FUSE_WRITE, node);
	client_add(c, &in, sizeof(in));
	client_add(c, p, n);
	return client_send(c);
}

int client_release(struct fs_client *c, u64 node, u64 fh)
{
	struct fuse_release_in in = {.fh = fh};

	return client_call(c, FUSE_RELEASE, node, &in, sizeof(in), NULL);
}

void client_forget(struct fs_client *c, u64 node, u64 n)
{
	struct fuse_forget_in in = {.nlookup = n};

	client_call(c, FUSE_FORGET, node, &in, sizeof(in), NULL);
}
