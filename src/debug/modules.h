/*
 * Modules of a running Linux kernel. struct module differs with every configuration: but for its list and its name, which come first, what
 * is wanted of it is found by what it looks like.
 */
#ifndef DEBUG_MODULES_H
#define DEBUG_MODULES_H

#include "debug/unwind.h"

/* Adds their symbols as name[module]; s is sorted, and is to be again. */
void modules_symbols(struct symbols *s, const struct inspect *in);
/* And their tables to o, which may be NULL. */
void modules_orc(const struct symbols *s, struct orc *o, const struct inspect *in);

#endif
