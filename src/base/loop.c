/*
 * Event loop on epoll. Entries are freed only between rounds, so that a callback may delete any entry, its own too, while events
 * of the same round are still to be delivered.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include "base/loop.h"

struct entry {
	struct entry *next;
	int fd;
	bool dead;
	loop_cb *cb;
	void *arg;
};

struct call {
	struct call *next;
	void (*fn)(void *arg);
	void *arg;
};

struct loop {
	int epfd, wakefd;
	pthread_mutex_t lock; /* entries, calls, stop, code */
	struct entry *entries;
	struct call *calls, **calls_tail;
	bool stop;
	int code;
};

static void wake(struct loop *l)
{
	u64 one = 1;

	if (write(l->wakefd, &one, sizeof(one)) < 0)
		return; /* EAGAIN: already awake */
}

static struct entry *find_locked(struct loop *l, int fd)
{
	for (struct entry *e = l->entries; e; e = e->next)
		if (e->fd == fd && !e->dead)
			return e;
	return NULL;
}

struct loop *loop_new(void)
{
	struct loop *l = calloc(1, sizeof(*l));
	struct epoll_event ev = {.events = EPOLLIN, .data.ptr = NULL};

	if (!l)
		return NULL;
	pthread_mutex_init(&l->lock, NULL);
	l->calls_tail = &l->calls;
	l->epfd = epoll_create1(EPOLL_CLOEXEC);
	l->wakefd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (l->epfd < 0 || l->wakefd < 0 || epoll_ctl(l->epfd, EPOLL_CTL_ADD, l->wakefd, &ev) < 0) {
		loop_free(l);
		return NULL;
	}
	return l;
}

void loop_free(struct loop *l)
{
	if (!l)
		return;
	for (struct entry *e = l->entries, *n = NULL; e; e = n) {
		n = e->next;
		free(e);
	}
	for (struct call *c = l->calls, *n = NULL; c; c = n) {
		n = c->next;
		free(c);
	}
	if (l->epfd >= 0)
		close(l->epfd);
	if (l->wakefd >= 0)
		close(l->wakefd);
	pthread_mutex_destroy(&l->lock);
	free(l);
}

int loop_add(struct loop *l, int fd, u32 events, loop_cb *cb, void *arg)
{
	struct entry *e = calloc(1, sizeof(*e));
	struct epoll_event ev = {.events = events, .data.ptr = e};
	int ret = 0;

	if (!e)
		return -ENOMEM;
	*e = (struct entry){.fd = fd, .cb = cb, .arg = arg};
	pthread_mutex_lock(&l->lock);
	if (epoll_ctl(l->epfd, EPOLL_CTL_ADD, fd, &ev) < 0) {
		ret = -errno;
		free(e);
	} else {
		e->next = l->entries;
		l->entries = e;
	}
	pthread_mutex_unlock(&l->lock);
	return ret;
}

int loop_mod(struct loop *l, int fd, u32 events)
{
	struct epoll_event ev = {.events = events};
	int ret = 0;

	pthread_mutex_lock(&l->lock);
	ev.data.ptr = find_locked(l, fd);
	if (!ev.data.ptr)
		ret = -ENOENT;
	else if (epoll_ctl(l->epfd, EPOLL_CTL_MOD, fd, &ev) < 0)
		ret = -errno;
	pthread_mutex_unlock(&l->lock);
	return ret;
}

void loop_del(struct loop *l, int fd)
{
	struct entry *e = NULL;

	pthread_mutex_lock(&l->lock);
	e = find_locked(l, fd);
	if (e) {
		epoll_ctl(l->epfd, EPOLL_CTL_DEL, fd, NULL);
		e->dead = true;
	}
	pthread_mutex_unlock(&l->lock);
}

void loop_stop(struct loop *l, int code)
{
	pthread_mutex_lock(&l->lock);
	if (!l->stop)
		l->code = code;
	l->stop = true;
	pthread_mutex_unlock(&l->lock);
	wake(l);
}

int loop_call(struct loop *l, void (*fn)(void *arg), void *arg)
{
	struct call *c = malloc(sizeof(*c));

	if (!c)
		return -ENOMEM;
	*c = (struct call){.fn = fn, .arg = arg};
	pthread_mutex_lock(&l->lock);
	*l->calls_tail = c;
	l->calls_tail = &c->next;
	pthread_mutex_unlock(&l->lock);
	wake(l);
	return 0;
}

/* Takes what other threads asked for and buries the dead; true when the loop is to end. */
static bool between_rounds(struct loop *l)
{
	struct call *calls = NULL;
	bool stop = false;

	pthread_mutex_lock(&l->lock);
	calls = l->calls;
	l->calls = NULL;
	l->calls_tail = &l->calls;
	for (struct entry **p = &l->entries; *p;) {
		struct entry *e = *p;

		if (e->dead) {
			*p = e->next;
			free(e);
		} else {
			p = &e->next;
		}
	}
	pthread_mutex_unlock(&l->lock);
	while (calls) {
		struct call *c = calls;

		calls = c->next;
		c->fn(c->arg);
		free(c);
	}
	pthread_mutex_lock(&l->lock);
	stop = l->stop;
	pthread_mutex_unlock(&l->lock);
	return stop;
}

static void deliver(struct loop *l, const struct epoll_event *ev)
{
	struct entry *e = ev->data.ptr;
	u64 drained = 0;
	bool dead = false;

	if (!e) {
		if (read(l->wakefd, &drained, sizeof(drained)) < 0)
			return;
		return;
	}
	pthread_mutex_lock(&l->lock);
	dead = e->dead;
	pthread_mutex_unlock(&l->lock);
	if (!dead)
		e->cb(e->arg, ev->events);
}

int loop_run(struct loop *l)
{
	struct epoll_event evs[32];
	int code = 0;

	while (!between_rounds(l)) {
		int n = epoll_wait(l->epfd, evs, ARRAY_SIZE(evs), -1);

		if (n < 0 && errno != EINTR)
			return -errno;
		for (int i = 0; i < n; i++)
			deliver(l, &evs[i]);
	}
	pthread_mutex_lock(&l->lock);
	l->stop = false;
	code = l->code;
	pthread_mutex_unlock(&l->lock);
	return code;
}
