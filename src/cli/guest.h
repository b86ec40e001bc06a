/*
 * What `doppel run` boots when no kernel is named: the cached Debian kernel and an initramfs of our own init; with busybox (the bare
 * guest), or with the drivers and the configuration of a duplicate.
 */
#ifndef CLI_GUEST_H
#define CLI_GUEST_H

#include <limits.h>
#include "base/base.h"

struct guest {
	char kernel[PATH_MAX];
	int initrd_fd; /* a memfd */
};
/* --kernel builtin: our bare-metal program */
int builtin_guest(struct guest *g, struct err *e);
int default_guest(struct guest *g, bool want_initrd, struct err *e); /* --bare */
/* config: what src/guest/duplicate.c reads; net: there is a network card */
int duplicate_guest(struct guest *g, const char *config, size_t n, bool net, struct err *e);
/* A kernel or initial RAM disk, for reading; what is the option that named it. */
int guest_open_image(const char *what, const char *path, struct err *e);

#endif
