/*
 * A character device's two ends. The backend (terminal, socket, log) owns struct chardev; a device (UART,
 * console port) attaches a sink to it. Nothing here blocks but writes while settle is on: each direction says how much it took, and
 * the other side says when to go on.
 *
 *   device -> backend (any thread)         backend -> device (main thread, no backend lock held)
 *   chardev_write    bytes out             sink->input    bytes in; returns how many it took
 *   chardev_resume   room for input again  sink->drained  output has room again after a short write
 *                                          sink->resized  the terminal's size; sink->opened  a peer came or
 * went
 *
 * Lock order: device mutex, then backend mutex. The sink's callbacks take the device mutex, so a backend
 * calls them bare, and never from within chardev_write or chardev_resume, which devices call with their mutex
 * held.
 */
#ifndef BACKENDS_CHARDEV_H
#define BACKENDS_CHARDEV_H

#include "base/base.h"
#include "base/loop.h"

struct chardev_sink {
	size_t (*input)(void *dev, const u8 *p, size_t n);
	void (*drained)(void *dev);
	void (*resized)(void *dev, u16 cols, u16 rows); /* may be NULL */
	void (*opened)(void *dev, bool open);           /* may be NULL */
};

struct chardev;
struct chardev_ops {
	size_t (*write)(struct chardev *c, const u8 *p, size_t n);
	void (*resume)(struct chardev *c);
	void (*attached)(struct chardev *c); /* a sink is there: report size and peer, start reading */
	void (*detached)(struct chardev *c); /* may be NULL */
	/* The guest closed its end after what was written (complete), or was reset. Never blocks; may be NULL. */
	void (*ended)(struct chardev *c, bool complete);
	/* The guest leaves the device: while this is on, what it left to be written waits for room. NULL: what finds no room is lost. */
	void (*settle)(struct chardev *c, bool on);
	void (*destroy)(struct chardev *c);
};
struct chardev {
	const struct chardev_ops *ops;
	const struct chardev_sink *sink;
	void *dev;
};

/* Main thread, before the vCPUs run. */
static inline void chardev_attach(struct chardev *c, const struct chardev_sink *sink, void *dev)
{
	if (!c)
		return;
	c->dev = dev;
	c->sink = sink;
	c->ops->attached(c);
}
/* Main thread, vCPUs stopped: no callback comes after this. */
static inline void chardev_detach(struct chardev *c)
{
	if (!c)
		return;
	c->sink = NULL;
	if (c->ops->detached)
		c->ops->detached(c);
}
/* Returns how many bytes were taken (0..n). After a short write sink->drained follows. A NULL chardev
 * swallows all. */
static inline size_t chardev_write(struct chardev *c, const void *p, size_t n)
{
	return c ? c->ops->write(c, p, n) : n;
}
static inline void chardev_resume(struct chardev *c)
{
	if (c)
		c->ops->resume(c);
}
static inline void chardev_ended(struct chardev *c, bool complete)
{
	if (c && c->ops->ended)
		c->ops->ended(c, complete);
}
/* Any thread. True: a write takes all that it is given, until this is off again. */
static inline bool chardev_settle(struct chardev *c, bool on)
{
	if (!c || !c->ops->settle)
		return false;
	c->ops->settle(c, on);
	return on;
}
static inline void chardev_destroy(struct chardev *c)
{
	if (c)
		c->ops->destroy(c);
}

#endif
