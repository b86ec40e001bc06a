/* Process 1 of the guests that doppel makes: the duplicate of a machine, and the bare one with a shell from busybox. */
#ifndef GUEST_INIT_H
#define GUEST_INIT_H

#include <stdbool.h>

/* In the initramfs of a duplicate: records NAME=VALUE, each ended by a NUL (see duplicate.c). */
#define DUPLICATE_CONFIG "/config"

/* Becomes a duplicate of the host; on failure says why on the console and powers off. */
void __attribute__((noreturn)) duplicate(void);

#define MODULES      "/lib/modules" /* drivers in the initramfs; they are loaded in the order of their names */
#define LATE_MODULES "/lib/late"    /* nobody waits for these */

/* All of a directory but those whose name has that part (NULL: all). That of shared folders may not be ready until modules_wait(). */
void load_modules(const char *dir, const char *except);
void modules_wait(void);
int open_module(const char *dir, const char *part); /* by a part of its name; -1: none */
int load_module(int fd);           /* 0 (also when it is there already) or -errno */

/* ---- kmod.c: modules of the kernel that the duplicate's root does not have. lower, layer: where those are mounted now ---- */
/* Makes the layer `extra`, to lie below `lower`; tree: the modules' directory in lower. false: the root needs none, or there are none. */
bool kmod_prepare(const char *lower, const char *tree, const char *extra);
void kmod_mount(const char *lower, const char *tree, const char *layer); /* in the new root, the working directory, with its /run */
void kmod_ready(void);                                                    /* in the root */
int modprobe_main(int argc, char **argv);

void network_up(bool user); /* the loopback, and the card if it is doppel-net's */

int power_button_open(void);       /* -1: the kernel has none */
int power_button_read(int fd);     /* 1: pressed; 0: something else; -errno */

#endif
