/* Open files and directories of the guest: a number each, a descriptor each. */
#include <stdlib.h>
#include <unistd.h>

#include "fs/fs_int.h"

int handle_new(struct fs *fs, struct fs_node *n, int fd, bool writable, u64 *id)
{
	struct fs_handle *h = calloc(1, sizeof(*h));
	int ret = -ENOMEM;

	if (!h)
		return ret;
	*h = (struct fs_handle){
	    .fd = fd, .refs = 1, .dir = S_ISDIR(n->key.type), .writable = writable, .node = n};
	pthread_mutex_init(&h->lock, NULL);
	pthread_mutex_lock(&fs->lock);
	ret = fs->n_handles < fs->max_handles ? table_add(&fs->handles, h, &h->id) : -ENFILE;
	if (!ret) {
		fs->n_handles++;
		n->refs++;
		*id = h->id;
	}
	pthread_mutex_unlock(&fs->lock);
	if (ret)
		free(h);
	return ret;
}

struct fs_handle *handle_get(struct fs *fs, u64 id, const struct fs_node *n)
{
	pthread_mutex_lock(&fs->lock);
	struct fs_handle *h = table_get(&fs->handles, id);

	if (h && h->node == n)
		h->refs++;
	else
		h = NULL;
	pthread_mutex_unlock(&fs->lock);
	return h;
}

void handle_put(struct fs *fs, struct fs_handle *h)
{
	if (!h)
		return;
	pthread_mutex_lock(&fs->lock);
	bool last = --h->refs == 0;

	if (last)
		fs->n_handles--;
	pthread_mutex_unlock(&fs->lock);
	if (!last)
		return;
	close(h->fd);
	node_put(fs, h->node);
	pthread_mutex_destroy(&h->lock);
	free(h->buf);
	free(h);
}

void handle_ahead(struct fs_thread *t, struct fs_handle *h, u64 request)
{
	handle_put(t->fs, t->ahead);
	t->ahead = h;
	t->ahead_of = request;
}

void handle_close(struct fs *fs, u64 id, const struct fs_node *n)
{
	pthread_mutex_lock(&fs->lock);
	struct fs_handle *h = table_get(&fs->handles, id);

	if (h && (!n || h->node == n))
		table_del(&fs->handles, id);
	else
		h = NULL;
	pthread_mutex_unlock(&fs->lock);
	handle_put(fs, h);
}
