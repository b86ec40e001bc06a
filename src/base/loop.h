/* The VMM's event loop: epoll; level-triggered callbacks on the thread that runs it. */
#ifndef BASE_LOOP_H
#define BASE_LOOP_H

#include "base/types.h"

struct loop;
typedef void loop_cb(void *arg, u32 events); /* EPOLL* bits */

struct loop *loop_new(void);
void loop_free(struct loop *l);
int loop_add(struct loop *l, int fd, u32 events, loop_cb *cb, void *arg); /* 0 or -errno */
int loop_mod(struct loop *l, int fd, u32 events);
void loop_del(struct loop *l, int fd);
int loop_run(struct loop *l);   /* until loop_stop; returns its code */
void loop_stop(struct loop *l, int code); /* any thread */
/* Runs fn on the loop's thread soon; any thread. */
int loop_call(struct loop *l, void (*fn)(void *arg), void *arg);

#endif
