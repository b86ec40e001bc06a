/*
 * A process that does one thing: it connects to Unix sockets PATH_N, with N from the VM's process, and hands the
 * connection over. It exists because the VM's own process may not make sockets (vmm/sandbox.c).
 */
#ifndef BACKENDS_DIALER_H
#define BACKENDS_DIALER_H

#include "base/base.h"

struct dialer;
struct loop;
/* fd: the connection, now the callee's; or -errno */
typedef void dialer_cb(void *arg, u64 tag, int fd);

/* Forks; before threads and the sandbox. PATH is copied. */
int dialer_start(const char *path, struct dialer **out, struct err *e);
int dialer_attach(struct dialer *d, struct loop *l, dialer_cb *cb, void *arg);
int dialer_ask(struct dialer *d, u32 port, u64 tag); /* 0, or -errno: no answer will come */
void dialer_stop(struct dialer *d);

#endif
