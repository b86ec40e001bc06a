/* Ring-buffer log of a chardev's output: `doppel console` shows it to who comes late. Lock order: the log's,
 * then nothing. */
#include "backends/chardev_log.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct chardev_log {
	struct chardev base;
	struct chardev *next;
	pthread_mutex_t lock;
	size_t size;
	u64 written; /* bytes since the start */
	u8 data[];
};

static struct chardev_log *log_of(struct chardev *base)
{
	return container_of(base, struct chardev_log, base);
}

static void remember(struct chardev_log *g, const u8 *p, size_t n)
{
	pthread_mutex_lock(&g->lock);
	for (size_t done = 0; done < n;) {
		size_t at = g->written % g->size;
		size_t run = MIN(n - done, g->size - at);
		memcpy(g->data + at, p + done, run);
		g->written += run;
		done += run;
	}
	pthread_mutex_unlock(&g->lock);
}

static size_t log_write(struct chardev *c, const u8 *p, size_t n)
{
	struct chardev_log *g = log_of(c);
	size_t taken = chardev_write(g->next, p, n);
	remember(g, p, taken);
	return taken;
}

static void log_resume(struct chardev *c)
{
	chardev_resume(log_of(c)->next);
}

/* The device's callbacks are the next chardev's own: only output passes through here. */
static void log_attached(struct chardev *c)
{
	chardev_attach(log_of(c)->next, c->sink, c->dev);
}

static void log_detached(struct chardev *c)
{
	chardev_detach(log_of(c)->next);
}

static void log_destroy(struct chardev *c)
{
	struct chardev_log *g = log_of(c);
	chardev_destroy(g->next);
	pthread_mutex_destroy(&g->lock);
	free(g);
}

static const struct chardev_ops log_ops = {.write = log_write,
					   .resume = log_resume,
					   .attached = log_attached,
					   .detached = log_detached,
					   .destroy = log_destroy};

size_t chardev_log_read(struct chardev *log, u64 *pos, void *buf, size_t n)
{
	struct chardev_log *g = log_of(log);
	u8 *to = buf;
	pthread_mutex_lock(&g->lock);
	u64 oldest = g->written > g->size ? g->written - g->size : 0;
	u64 from = MIN(MAX(*pos, oldest), g->written);
	n = MIN(n, g->written - from);
	for (size_t done = 0; done < n;) {
		size_t at = (from + done) % g->size;
		size_t run = MIN(n - done, g->size - at);
		memcpy(to + done, g->data + at, run);
		done += run;
	}
	*pos = from + n;
	pthread_mutex_unlock(&g->lock);
	return n;
}

int chardev_log_create(struct chardev *next, size_t size, struct chardev **out)
{
	struct chardev_log *g = calloc(1, sizeof(*g) + size);
	if (!g)
		return -ENOMEM;
	g->base.ops = &log_ops;
	g->next = next;
	g->size = size;
	pthread_mutex_init(&g->lock, NULL);
	*out = &g->base;
	return 0;
}
