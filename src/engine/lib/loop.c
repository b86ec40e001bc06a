/*
 * The engine's main thread: epoll over the VM socket, irqfds and one timerfd that carries all loop timers.
 * Any thread may arm a timer: timerfd_settime wakes the epoll wait by itself.
 */
#include <errno.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <time.h>
#include "engine/lib/arena.h"
#include "engine/lib/lib.h"
#include "engine/lib/loop.h"

#define LOOP_FDS    4096
#define LOOP_EVENTS 32

struct watch {
	loop_fn *fn; /* NULL: not watched */
	void *arg;
	u32 generation; /* tells an event of a former watch of the same fd */
};

struct main_loop {
	int epoll, timerfd;
	u32 lock;                  /* futex lock over the timers */
	struct loop_timer *timers; /* by deadline */
	struct watch watch[LOOP_FDS];
};

static struct main_loop *the_loop(void)
{
	return the_arena()->loop;
}

int loop_add(int fd, loop_fn *fn, void *arg)
{
	struct main_loop *l = the_loop();
	struct epoll_event ev = {.events = EPOLLIN};
	struct watch *w = NULL;
	long r = 0;

	if (fd < 0 || fd >= LOOP_FDS)
		return -EMFILE;
	w = &l->watch[fd];
	ev.data.u64 = (u64)(w->generation + 1) << 32 | (u32)fd;
	r = sys_call(SYS_epoll_ctl, l->epoll, EPOLL_CTL_ADD, fd, &ev);
	if (r < 0)
		return (int)r;
	*w = (struct watch){fn, arg, w->generation + 1};
	return 0;
}

void loop_del(int fd)
{
	struct main_loop *l = the_loop();

	if (fd < 0 || fd >= LOOP_FDS || !l->watch[fd].fn)
		return;
	sys_call(SYS_epoll_ctl, l->epoll, EPOLL_CTL_DEL, fd, 0);
	l->watch[fd].fn = NULL;
}

/* Lock held. Programs the timerfd for the first timer; an absolute time of 0 would disarm it. */
static void timers_program(struct main_loop *l)
{
	u64 ns = l->timers ? MAX(l->timers->deadline, 1ull) : 0;
	struct itimerspec its = {.it_value = {(time_t)(ns / 1000000000), (long)(ns % 1000000000)}};

	sys_call(SYS_timerfd_settime, l->timerfd, TFD_TIMER_ABSTIME, &its, 0);
}

static void timers_unlink(struct main_loop *l, struct loop_timer *t)
{
	struct loop_timer **p = &l->timers;

	while (*p && *p != t)
		p = &(*p)->next;
	if (*p)
		*p = t->next;
	t->linked = false;
}

void loop_timer_set(struct loop_timer *t, u64 deadline_ns)
{
	struct main_loop *l = the_loop();
	struct loop_timer **p = &l->timers, *head = NULL;

	eng_lock(&l->lock);
	head = l->timers;
	if (t->linked)
		timers_unlink(l, t);
	t->deadline = deadline_ns;
	if (deadline_ns) {
		while (*p && (*p)->deadline <= deadline_ns)
			p = &(*p)->next;
		t->next = *p;
		*p = t;
		t->linked = true;
	}
	if (l->timers != head || head == t)
		timers_program(l);
	eng_unlock(&l->lock);
}

static struct loop_timer *timers_pop(struct main_loop *l, u64 now)
{
	struct loop_timer *t = NULL;

	eng_lock(&l->lock);
	t = l->timers;
	if (t && t->deadline <= now) {
		l->timers = t->next;
		t->linked = false;
		t->deadline = 0;
	} else {
		t = NULL;
		timers_program(l);
	}
	eng_unlock(&l->lock);
	return t;
}

/* One clock reading for all: a timer that re-arms itself in the past waits for the next round. */
static void timers_fire(void *arg)
{
	struct main_loop *l = arg;
	struct loop_timer *t = NULL;
	u64 expirations = 0, now = eng_now_ns();

	sys_call(SYS_read, l->timerfd, &expirations, sizeof(expirations));
	for (int i = 0; i < 256 && (t = timers_pop(l, now)); i++)
		t->fn(t->arg);
	if (t) {
		eng_lock(&l->lock);
		timers_program(l);
		eng_unlock(&l->lock);
	}
}

int loop_init(void)
{
	struct main_loop *l = vm_alloc(sizeof(*l));
	long r = 0;

	if (!l)
		return -ENOMEM;
	r = sys_call(SYS_epoll_create1, EPOLL_CLOEXEC);
	if (r < 0)
		return (int)r;
	l->epoll = (int)r;
	r = sys_call(SYS_timerfd_create, CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (r < 0)
		goto close_epoll;
	l->timerfd = (int)r;
	the_arena()->loop = l;
	r = loop_add(l->timerfd, timers_fire, l);
	if (!r)
		return 0;
	the_arena()->loop = NULL;
	sys_call(SYS_close, l->timerfd);
close_epoll:
	sys_call(SYS_close, l->epoll);
	return (int)r;
}

int loop_run(void)
{
	struct main_loop *l = the_loop();
	struct epoll_event ev[LOOP_EVENTS];

	for (;;) {
		/* epoll_pwait without a mask: the one form of the call that the sandbox has to allow */
		long n = sys_call(SYS_epoll_pwait, l->epoll, ev, LOOP_EVENTS, -1, 0, 8);

		if (n < 0 && n != -EINTR)
			return (int)n;
		for (long i = 0; i < n; i++) {
			struct watch *w = &l->watch[(u32)ev[i].data.u64];

			if (w->fn && w->generation == (u32)(ev[i].data.u64 >> 32))
				w->fn(w->arg);
		}
	}
}
