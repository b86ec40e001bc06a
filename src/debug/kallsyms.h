/* Symbols in a copy of a Linux kernel's image. */
#ifndef DEBUG_KALLSYMS_H
#define DEBUG_KALLSYMS_H

#include "debug/kimage.h"
#include "debug/symbols.h"

bool kallsyms_read(struct symbols *s, const struct kimage *k); /* false: none there, nothing was added */

#endif
